"""The yardstick of bench/ is compiled with djactor's headers, so it has to follow them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_the_yardstick_compiles(tmp_path: Path) -> None:
    shutil.copytree(TOP / "src", tmp_path / "src")
    shutil.copytree(TOP / "bench" / "yardstick", tmp_path / "bench" / "yardstick")
    made = subprocess.run(
        ["make", "-s", f"PG_CONFIG={os.environ['PG_CONFIG']}"],
        cwd=tmp_path / "bench" / "yardstick",
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
