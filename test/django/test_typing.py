"""mypy finds the wrong calls of the public interface in users' code, and no others."""

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
    wrong = {
        number
        for number, line in enumerate(CALLS.read_text().splitlines(), 1)
        if line.endswith("# wrong")
    }
    assert wrong == {int(number) for _, number in found}, done.stdout
