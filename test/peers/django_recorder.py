"""A test runner for Django's own tests that writes down what came of each.

``{test: [what it has to say, no lines if it passed]}``, as JSON, into the file that
``DJACTOR_PEERS_OUT`` names.
"""

from __future__ import annotations

import json
import os
import unittest
from pathlib import Path
from typing import Any

from django.test.runner import DiscoverRunner

_outcomes: dict[str, list[str]] = {}


class _Result(unittest.TextTestResult):
    def _add(self, test: Any, *lines: str) -> None:
        _outcomes.setdefault(test.id(), []).extend(lines)

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        self._add(test)

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self._add(test, f"error: {_last_line(err)}")

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self._add(test, f"failure: {_last_line(err)}")

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self._add(test, f"skipped: {reason}")

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self._add(test)

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self._add(test, "unexpected success")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._add(test, f"{subtest}: {_last_line(err)}")


def _last_line(err: Any) -> str:
    return (str(err[1]).strip().splitlines() or [""])[-1].rstrip()


class Recorder(DiscoverRunner):
    def get_resultclass(self) -> Any:
        return _Result

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        result = super().run_suite(suite, **kwargs)
        Path(os.environ["DJACTOR_PEERS_OUT"]).write_text(json.dumps(_outcomes))
        return result
