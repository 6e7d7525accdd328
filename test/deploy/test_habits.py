"""What a public project has: workflow, hooks and pages run, and link to, what there is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
HOOKS = {
    hook["id"]: hook
    for repo in yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]
}


def test_the_workflow_runs_what_everybody_can_run() -> None:
    jobs = yaml.safe_load((TOP / ".github/workflows/ci.yml").read_text())["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert ".ci/run" in runs
    makefile = (TOP / "Makefile").read_text()
    for run in runs:
        if run.startswith("make "):
            assert f"\n{run.split()[1]}:" in makefile
    limit = int(re.findall(r"^time_limit=(\d+)", (TOP / ".ci/run").read_text(), re.M)[0])
    assert jobs["checks"]["timeout-minutes"] * 60 > limit


def hook(name: str, *files: Path | str) -> int:
    """The status of a hook's command on files."""
    entry = HOOKS[name]["entry"].replace(".venv/bin/python", sys.executable)
    words = " ".join(f"'{file}'" for file in files)
    return subprocess.run(f"{entry} {words}", shell=True, cwd=TOP).returncode


def test_hooks_find_what_lint_finds(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text('"""A module."""\n')
    bad.write_text("import os  \n")
    for name in ("ruff", "ruff-format", "blanks"):
        assert hook(name, good) == 0, name
        assert hook(name, bad) != 0, name
    assert hook("layers") == 0


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="make lint installs shellcheck")
def test_a_hook_finds_what_shellcheck_finds(tmp_path: Path) -> None:
    script = tmp_path / "bad.sh"
    script.write_text("#!/bin/bash\necho $1\n")
    assert hook("shellcheck", TOP / "tools/release") == 0
    assert hook("shellcheck", script) != 0


@pytest.mark.parametrize(
    ("message", "taken"),
    [("x" * 72 + "\n\nbody " + "x" * 100, True), ("x" * 73 + "\n\nshort", False)],
)
def test_a_hook_wants_short_subjects(tmp_path: Path, message: str, taken: bool) -> None:
    (tmp_path / "message").write_text(message)
    assert (hook("subject", tmp_path / "message") == 0) is taken


def test_the_pages_of_the_project_link_to_what_there_is() -> None:
    for page in (
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CODE_OF_CONDUCT.md",
        "CHANGELOG.md",
        "deploy/README.md",
    ):
        text = (TOP / page).read_text()
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in link:
                assert ((TOP / page).parent / link).exists(), f"{page}: {link}"
        for target in re.findall(r"`make ([\w-]+)", text):
            assert re.search(rf"^{target}\b.*:", (TOP / "Makefile").read_text(), re.M), target
