"""Tests of others, run against djactor's backend for tasks.

* Django's own tests of its tasks (``tests/tasks`` of its source distribution): those of the API
  with a dummy backend, of the dummy backend, and of the immediate backend; those of custom
  backends use none but their own;
* those of ``django-tasks-db``, the backend that was part of ``django-tasks``, for its backend and
  its worker.  (``django-tasks`` itself comes without tests.)

Only names are changed in them: of the backends, of base classes that forbid a database, and with
Django 5.2 of the package.  ``SKIPPED`` lists what is left out, and why.
"""

import importlib
import os
import re
import subprocess
import sys
import tarfile
import unittest
from pathlib import Path

import pytest
from django.db import connection, connections
from django.test import override_settings

from djactor import declared, registry
from djactor.tasks import compat
from registering import drop

HERE = Path(__file__).resolve().parent
SOURCES = ("Django==6.1.3", "django-tasks-db==0.13.0")
QUEUES = ("default", "queue_1", "queue-1")
BACKPORT = compat.PACKAGE == "django_tasks"

OF_THE_DUMMY = "changes the list of the dummy backend by hand"
OF_THE_IMMEDIATE = "says what the immediate backend cannot do, and djactor can"
SYNC_IN_A_LOOP = "asks for results in an event loop, which Django refuses if there is a database"
NO_QUEUES = "its backend has no QUEUES, which is an error here: queues have to be defined"
OF_DJANGO_6 = "the package django-tasks does not have this"

SKIPPED = {
    "DummyBackendTestCase.test_refresh_result": OF_THE_DUMMY,
    "DummyBackendTestCase.test_refresh_result_async": OF_THE_DUMMY,
    "DummyBackendTestCase.test_check": NO_QUEUES,
    "DummyBackendTestCase.test_enqueue_task_async": SYNC_IN_A_LOOP,
    "DummyBackendTestCase.test_get_missing_result": SYNC_IN_A_LOOP,
    "TaskTestCase.test_enqueue_task_async": SYNC_IN_A_LOOP,
    "TaskTestCase.test_get_missing_result": SYNC_IN_A_LOOP,
    "TaskTestCase.test_refresh_result": SYNC_IN_A_LOOP,
    "ImmediateBackendTestCase.test_cannot_get_result": OF_THE_IMMEDIATE,
    "ImmediateBackendTestCase.test_cannot_refresh_result": OF_THE_IMMEDIATE,
    "ImmediateBackendTestCase.test_cannot_pass_run_after": OF_THE_IMMEDIATE,
}
if BACKPORT:
    SKIPPED |= dict.fromkeys(
        (
            "TaskTestCase.test_pickle_task",
            "TaskTestCase.test_pickle_task_result",
            "TaskTestCase.test_unpickle_arbitrary_string",
            "TaskTestCase.test_unpickle_non_task_object",
            "TaskTestCase.test_run_after_in_decorator",
        ),
        OF_DJANGO_6,
    )

# Of django-tasks-db: all but what is about its table, its command or its other parts.
DATABASE = {
    "DatabaseBackendTestCase": (
        "test_using_correct_backend",
        "test_enqueue_task",
        "test_enqueue_task_async",
        "test_get_result",
        "test_get_result_async",
        "test_get_missing_result",
        "test_async_get_missing_result",
        "test_invalid_uuid",
        "test_async_invalid_uuid",
        "test_check",
        "test_enqueue_logs",
        "test_validate_on_enqueue",
        "test_validate_on_aenqueue",
    ),
    "DatabaseBackendWorkerTestCase": (
        "test_run_enqueued_task",
        "test_batch_processes_all_tasks",
        "test_no_tasks",
        "test_failing_task",
        "test_complex_exception",
        "test_complex_return_value",
        "test_worker_doesnt_exit_on_failure",
        "test_takes_context",
        "test_context",
    ),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Modules of tests by path, from source distributions: of this tree's cache, or of PyPI."""
    shots = os.environ.get("DJACTOR_SCREENSHOTS")
    cache = Path(shots).parent / "source/tasks" if shots else tmp_path_factory.mktemp("cache")
    cache.mkdir(parents=True, exist_ok=True)
    texts = {}
    for source in SOURCES:
        name, _, version = source.partition("==")
        pattern = f"{name.lower().replace('-', '[-_]')}-{version}.tar.gz"
        if not list(cache.glob(pattern)):
            command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
            command += ["--no-deps", "--no-binary", ":all:", "--ignore-requires-python"]
            # The Django whose tests these are wants a newer Python than runs them.
            command += ["--python-version", "3.13", "-d", str(cache), source]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
            except subprocess.SubprocessError as error:
                pytest.skip(f"{source} cannot be had from PyPI: {getattr(error, 'stderr', error)}")
        (archive,) = cache.glob(pattern)
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                found = re.search(r"/tests/(tasks/\w+\.py|tests\.py)$", member.name)
                if found is not None:
                    texts[found[1]] = tar.extractfile(member).read().decode()
    return texts


def rewritten(text):
    """The text of a module of tests, with the names that are true here."""
    for module, found, ours in (
        ("dummy", "DummyBackend", "Queued"),
        ("immediate", "ImmediateBackend", "Drained"),
    ):
        text = text.replace(
            f"from django.tasks.backends.{module} import {found}",
            f"from suite_backends import {ours} as {found}",
        )
        text = text.replace(f"django.tasks.backends.{module}.{found}", f"suite_backends.{ours}")
    text = text.replace(
        "from django.test import",
        "from suite_backends import Committing as TransactionTestCase\n"
        "from suite_backends import InTransaction as SimpleTestCase\n"
        "from django.test import",
    )
    text = re.sub(r"(from django\.test import.*?) ?SimpleTestCase,", r"\1", text)
    text = re.sub(r"(from django\.test import.*?) ?TransactionTestCase,", r"\1", text)
    if BACKPORT:
        text = text.replace("django.tasks", "django_tasks")
        text = re.sub(r"\b(InvalidTask|InvalidTaskBackend)\b", r"\1Error", text)
        text = text.replace("not support async Tasks", "not support async tasks")
    return text


@pytest.fixture
def package(sources, tmp_path, project):
    """The tests as a package ``tasks``, with the queues that they use."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for path, text in sources.items():
        if path == "tests.py":
            (folder / "test_database.py").write_text(of_database(text))
        else:
            (folder / Path(path).name).write_text(rewritten(text))
    entry = {"BACKEND": "suite_backends.Queued", "QUEUES": list(QUEUES)}
    with override_settings(TASKS={"default": entry}), connections["admin"].cursor() as cursor:
        # Missing results are looked for by the ids 123 and the like.
        cursor.execute("SELECT setval('djactor.message_id_seq', 100000)")
        with connection.schema_editor() as editor:
            declared.define_registered("default", QUEUES, editor)
        sys.path.insert(0, str(tmp_path))
        try:
            yield lambda name: importlib.import_module(f"tasks.{name}")
        finally:
            sys.path.remove(str(tmp_path))
            for name in [one for one in sys.modules if one.partition(".")[0] == "tasks"]:
                del sys.modules[name]
    for queue in QUEUES:
        registry.unregister(queue)
        drop(queue)


def of_database(text):
    """The same for the tests of django-tasks-db."""
    end = text.index("class DatabaseTaskResultTestCase")
    text = text[: text.rindex("\n@override_settings(", 0, end)]
    text = re.sub(r"^from django_tasks_db.*?(\n(?=\S)(?!\)))", r"\1", text, flags=re.M | re.S)
    text = text.replace(
        "from tests import tasks as test_tasks", "from . import tasks as test_tasks"
    )
    text = text.replace(
        "from django.test import SimpleTestCase, TestCase, TransactionTestCase, ",
        "from suite_backends import Committing as TransactionTestCase\n"
        "from suite_backends import Queued as DatabaseBackend\n"
        "from suite_backends import Results as DBTaskResult, run_worker\n"
        "from django.test import SimpleTestCase, TestCase, ",
    )
    text = re.sub(
        r"run_worker = staticmethod\(\n.*?\n    \)\n",
        "run_worker = staticmethod(run_worker)\n",
        text,
        flags=re.S,
    )
    # Other statements, ids that are no UUIDs, the words of Django's tasks and of its JSON.
    text = re.sub(r"with self\.assertNumQueries\(.*?\):", "with contextlib.nullcontext():", text)
    text = text.replace(", self.assertNumQueries(1):", ":")
    text = re.sub(r"^ *self\.assertEqual\(uuid\.UUID\(result\.id\).*\n", "", text, flags=re.M)
    text = text.replace("This task failed due to", "This Task failed due to")
    text = text.replace("is not JSON serializable", "Unsupported type")
    text = text.replace("django_tasks_db.DatabaseBackend", "suite_backends.Queued")
    return text


class Report(unittest.TestResult):
    """What was not as it should be."""

    def __init__(self):
        super().__init__()
        self.wrong = []

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.wrong.append(f"{test.id()}: {self.failures[-1][1]}")

    def addError(self, test, error):
        super().addError(test, error)
        self.wrong.append(f"{test.id()}: {self.errors[-1][1]}")

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.wrong.append(f"{subtest.id()}: {error[1]!r}")


def run(module, wanted=None):
    """Run the tests of a module, or some of each class.

    Returns:
        How many have run, and which of SKIPPED.
    """
    suite = unittest.TestSuite()
    left_out = set()
    for tests in unittest.defaultTestLoader.loadTestsFromModule(module):
        for test in tests:
            cls, _, method = test.id().rpartition(".")
            name = f"{cls.rpartition('.')[2]}.{method}"
            if wanted is not None and method not in wanted.get(type(test).__name__, ()):
                continue
            if name in SKIPPED:
                left_out.add(name)
                continue
            suite.addTest(test)
    report = Report()
    suite.run(report)
    assert not report.wrong, "\n".join(report.wrong)
    return report.testsRun, left_out


def test_of_the_api(package):
    ran, left_out = run(package("test_tasks"))
    assert (ran, len(left_out)) == ((31, 8) if BACKPORT else (36, 3))


def test_of_the_dummy_backend(package):
    ran, left_out = run(package("test_dummy_backend"))
    assert (ran, len(left_out)) == (12, 5)


def test_of_the_immediate_backend(package):
    ran, left_out = run(package("test_immediate_backend"))
    assert (ran, len(left_out)) == (17, 3)


def test_of_the_database_backend(package):
    module = package("test_database")
    ran, _ = run(module, DATABASE)
    assert ran == sum(map(len, DATABASE.values()))
