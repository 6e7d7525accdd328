"""The files of deploy/, compose.yaml and the Dockerfiles, tried as far as that takes no engine.

Schemas say whether the files are well formed. The commands of compose.yaml run as they are, with
their environment, on a server of the test: only addresses are others.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml

from private_server import PrivateServer

TOP = Path(__file__).resolve().parents[2]
DEPLOY = TOP / "deploy"
COMPOSE = yaml.safe_load((TOP / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
KUBERNETES = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
DEADLINE = float(os.environ.get("DJACTOR_PATIENCE", "60"))


def kind(kind: str, name: str) -> dict[str, Any]:
    """A document of kubernetes.yaml."""
    (found,) = (
        document
        for document in KUBERNETES
        if document["kind"] == kind and document["metadata"]["name"] == name
    )
    return dict(found)


def container(kind_of: str, name: str) -> dict[str, Any]:
    (found,) = kind(kind_of, name)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def until(check: Any) -> Any:
    """What the function returns, once that is true; exceptions are "not yet"."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            if result := check():
                return result
        except OSError as error:
            result = error
        assert time.monotonic() < end, result
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("compose-spec", "compose.yaml"),
        ("github-workflows", "deploy/github.yml"),
        ("gitlab-ci", "deploy/gitlab-ci.yml"),
        ("github-workflows", ".github/workflows/ci.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/wish.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_a_file_is_as_its_schema_wants_it(schema: str, path: str) -> None:
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            f"vendor.{schema}",
            TOP / path,
        ],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("document", KUBERNETES, ids=lambda document: document["kind"])
def test_kubernetes_takes_each_document(document: dict[str, Any]) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_and_compose_agree() -> None:
    secret = kind("Secret", "shop-database")["stringData"]
    environment = SERVICES["worker"]["environment"]
    assert set(secret) | {"SHOP_BANK_URL"} == set(environment)
    worker = container("Deployment", "shop-worker")
    assert worker["command"] == SERVICES["worker"]["command"]
    labels = kind("Deployment", "shop-worker")["spec"]["template"]["metadata"]["labels"]
    for selecting in (
        kind("Deployment", "shop-worker"),
        kind("PodDisruptionBudget", "shop-worker"),
    ):
        assert selecting["spec"]["selector"]["matchLabels"] == labels
    assert kind("Service", "shop")["spec"]["selector"] == {"app": "shop", "part": "web"}


def test_the_worker_has_time_to_end_its_turns() -> None:
    command = SERVICES["worker"]["command"]
    grace = int(command[command.index("--grace") + 1])
    pod = kind("Deployment", "shop-worker")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > grace
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > grace


def test_probes_ask_the_port_that_the_worker_opens() -> None:
    worker = container("Deployment", "shop-worker")
    port = int(worker["command"][worker["command"].index("--health") + 1])
    assert worker["ports"] == [{"name": "health", "containerPort": port}]
    for probe in ("readinessProbe", "livenessProbe"):
        assert worker[probe]["httpGet"]["port"] == "health"


@pytest.mark.parametrize("path", ["Dockerfile", "examples/shop/Dockerfile"])
def test_a_dockerfile_copies_and_installs_what_there_is(path: str) -> None:
    text = re.sub(r"\\\n", " ", (TOP / path).read_text())
    steps = [line.split(None, 1) for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert steps[0][0] in ("ARG", "FROM")
    ignored = (TOP / ".dockerignore").read_text().split()
    for word, rest in steps:
        assert word in ("ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "CMD")
        if word == "COPY" and "--from" not in rest:
            source = rest.split()[0]
            assert (TOP / source).exists() and source not in ignored
        if word == "RUN":
            checked = subprocess.run(["bash", "-n", "-c", rest], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stderr
    extras = set(re.findall(r"/django\[(\w+)\]", text))
    known = tomllib.loads((TOP / "django/pyproject.toml").read_text())["project"]
    assert extras <= set(known["optional-dependencies"])


def test_the_devcontainer_runs_what_there_is() -> None:
    content = json.loads((TOP / ".devcontainer/devcontainer.json").read_text())
    program, *arguments = shlex.split(content["postCreateCommand"])
    assert os.access(TOP / program, os.X_OK)
    setup = (TOP / program).read_text()
    for argument in arguments:
        assert not argument.startswith("--") or f"{argument})" in setup, argument


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Machine:
    """Runs services of compose.yaml as processes."""

    def __init__(self, server: PrivateServer, scratch: Path) -> None:
        self.server = server
        self.scratch = scratch
        self.ports = {port: str(free_port()) for port in ("8000", "8001", "8010")}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def words(self, text: str) -> str:
        """With the addresses that hold here."""
        for given, here in self.ports.items():
            text = re.sub(rf"\b{given}\b", here, text)
        return text.replace("/tmp/", f"{self.scratch}/").replace("//bank", "//127.0.0.1")

    def command(self, name: str) -> list[str]:
        """The service's command, else that of its image."""
        (line,) = re.findall(r"^CMD (.*)$", (TOP / "examples/shop/Dockerfile").read_text(), re.M)
        command = SERVICES[name].get("command", json.loads(line))
        return [self.words(word) for word in command]

    def environment(self, name: str) -> dict[str, str]:
        given = {key: self.words(value) for key, value in SERVICES[name]["environment"].items()}
        assert given["SHOP_DB_HOST"] == "database"
        paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # the image has installed the app
        app = str(TOP / "django")
        here = {"SHOP_DB_HOST": self.server.host, "PATH": paths, "PYTHONPATH": app}
        return os.environ | given | here

    def start(self, name: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self.command(name),
            cwd=TOP / "examples/shop",
            env=self.environment(name),
        )
        self.running[name] = process
        return process

    def stop(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        for process in self.running.values():
            process.wait(30)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with PrivateServer({"max_worker_processes": 16}, fsync=False) as server:
        machine = Machine(server, tmp_path)
        try:
            yield machine
        finally:
            machine.stop()


def test_compose_brings_a_shop_that_sells(machine: Machine) -> None:
    for statement in COMPOSE["configs"]["database.sql"]["content"].split(";"):
        if statement.strip():
            machine.server.sql(statement)
    assert machine.start("migrate").wait(DEADLINE) == 0
    assert machine.server.sql("SELECT count(*) FROM shop_product", "shop") == "3"
    # a second start finds all there and changes nothing
    machine.server.sql("UPDATE shop_product SET stock = 7", "shop")
    assert machine.start("migrate").wait(DEADLINE) == 0
    assert machine.server.sql("SELECT DISTINCT stock FROM shop_product", "shop") == "7"

    for name in ("bank", "web", "worker"):
        machine.start(name)
    health = [machine.words(word) for word in SERVICES["worker"]["healthcheck"]["test"][1:]]
    until(lambda: subprocess.run(health, env=machine.environment("worker")).returncode == 0)
    address = f"http://127.0.0.1:{machine.ports['8000']}/"
    probe = container("Deployment", "shop-web")["readinessProbe"]["httpGet"]
    headers = {header["name"]: header["value"] for header in probe["httpHeaders"]}
    asked = urllib.request.Request(address[:-1] + probe["path"], headers=headers)
    page = until(lambda: urllib.request.urlopen(asked, timeout=5).read().decode())
    assert "Teapot" in page

    turns = """
        INSERT INTO djactor.message (actor_type, actor_key, payload)
            VALUES ('shop.mail', 'o', '{"to": "ann@example.org", "subject": "Hello", "text": "Hi"}')
    """
    machine.server.sql(turns, "shop", "shop")
    until(
        lambda: (
            machine.server.sql(
                "SELECT handled FROM djactor.stat WHERE actor_type = 'shop.mail'", "shop"
            )
            not in ("", "0")
        )
    )

    worker = machine.running["worker"]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(DEADLINE) == 0, "the worker ends by itself"
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{machine.ports['8001']}/live", timeout=5)


def test_continuous_integration_notices_a_server_without_djactor(machine: Machine) -> None:
    github = yaml.safe_load((DEPLOY / "github.yml").read_text())["jobs"]["test"]
    gitlab = yaml.safe_load((DEPLOY / "gitlab-ci.yml").read_text())["test"]
    lines = [step["run"] for step in github["steps"] if "max_workers" in step.get("run", "")]
    lines += [line for line in gitlab["script"] if "max_workers" in line]
    assert len(lines) == 2
    with PrivateServer({"shared_preload_libraries": ""}, fsync=False) as plain:
        for server, status in ((machine.server, True), (plain, False)):
            environment = os.environ | {"PGHOST": server.host, "PGUSER": server.superuser}
            environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
            for line in lines:
                done = subprocess.run(line, shell=True, env=environment, capture_output=True)
                assert (done.returncode == 0) is status, (line, done.stderr)
