"""Type checkers find the wrong calls of the public interface in users' code, and no others.

Pyright knows less than mypy of Django's models, so it is asked about typed messages alone.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CALLS = HERE / "typed_calls.py"


def test_mypy_finds_the_wrong_calls_and_no_others(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), str(CALLS)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "django"), str(HERE)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    found = re.findall(r"^(\S+):(\d+): error: ", done.stdout, flags=re.MULTILINE)
    assert {Path(name).name for name, _ in found} == {CALLS.name}, done.stdout
    assert wrong_calls() == {int(number) for _, number in found}, done.stdout


def test_pyright_finds_the_wrong_messages_and_no_others(tmp_path):
    config = {
        "include": [str(CALLS)],
        "extraPaths": [str(ROOT / "django"), str(HERE)],
        "typeCheckingMode": "standard",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "basedpyright", "--outputjson"),
            *("--pythonpath", sys.executable, "-p", str(tmp_path)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    start = CALLS.read_text().splitlines().index("# Typed messages") + 1
    found = {
        one["range"]["start"]["line"] + 1
        for one in json.loads(done.stdout)["generalDiagnostics"]
        if one["severity"] == "error"
    }
    wrong = {number for number in wrong_calls() if number > start}
    assert wrong == {number for number in found if number > start}, done.stdout


def wrong_calls():
    return {
        number
        for number, line in enumerate(CALLS.read_text().splitlines(), 1)
        if line.endswith("# wrong")
    }
