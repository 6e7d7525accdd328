"""examples/gateway: no token is taken twice, breakers open and recover, whatever dies meanwhile."""

import concurrent.futures
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter

import httpx
import pytest

from private_server import end_with

NAMES = itertools.count(1)
PATIENCE = 60  # seconds
PLENTY = (1e6, 1_000_000)  # rate, burst
ONCE = 0.001  # a rate: nothing comes back during a test


class Service:
    """The example's upstream, in a process that can be killed and started again."""

    def __init__(self, folder):
        self.folder = folder
        self.port = 0
        self.process = None

    def start(self):
        with socket.create_server(("127.0.0.1", self.port)) as listening:
            self.port = listening.getsockname()[1]
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "uvicorn", "upstream:application"),
                    *("--fd", str(listening.fileno()), "--log-level", "warning"),
                ],
                cwd=self.folder,
                pass_fds=[listening.fileno()],
                preexec_fn=end_with(os.getpid()),
            )
        self.url = f"http://127.0.0.1:{self.port}"
        self.control()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def control(self, **how):
        """Tell it to fail or to be slow; the result is how many requests it has served."""
        return int(httpx.post(f"{self.url}/control", params=how, timeout=PATIENCE).json()["served"])


@pytest.fixture(scope="module")
def site(example_server):
    return example_server("gateway", fsync=False)


@pytest.fixture(scope="module")
def service(site):
    service = Service(site.folder)
    service.start()
    yield service
    service.kill()


@pytest.fixture
def client(site):
    """``client(rate, burst)``: the name of a new one."""

    def add(rate, burst):
        name = f"client-{next(NAMES)}"
        site.sql(f"INSERT INTO gateway_client VALUES ('{name}', {rate}, {burst})")
        return name

    return add


@pytest.fixture
def upstream(site, service):
    """``upstream(cool_down)``: the name of a new one, which is the service."""

    def add(cool_down="1 min", failures=3):
        name = f"upstream-{next(NAMES)}"
        site.sql(
            "INSERT INTO gateway_upstream (name, url, failures, cool_down)"
            f" VALUES ('{name}', '{service.url}', {failures}, '{cool_down}')"
        )
        return name

    yield add
    service.control(fail=0, delay=0)


@pytest.fixture
def ask(http):
    """``ask(client, upstream)``: the gateway's answer to a request."""

    def get(client, upstream, **options):
        return http.get(f"/api/{upstream}/x", headers={"X-Client": client}, **options)

    return get


@pytest.fixture
def ask_at_once(ask):
    """``ask_at_once(count, client, upstream)``: how many answers of which status."""

    def get(count, client, upstream):
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            answers = pool.map(lambda _: ask(client, upstream).status_code, range(count))
            return Counter(answers)

    return get


@pytest.fixture
def breaker(site, until):
    """``breaker(upstream)``: its state; with a mode, as soon as it has that mode."""

    def state(upstream, mode=None):
        found = (
            "SELECT state FROM djactor.actor"
            f" WHERE actor_type = 'gateway.breaker' AND actor_key = '{upstream}'"
        )
        if mode is not None:
            until(lambda: site.sql(f"{found} AND state->>'mode' = '{mode}'"))
        return json.loads(site.sql(found))

    return state


def bucket(site, client):
    return json.loads(
        site.sql(
            "SELECT state FROM djactor.actor"
            f" WHERE actor_type = 'gateway.bucket' AND actor_key = '{client}'"
        )
    )


#
# What passes
#


def test_a_request_passes_with_its_method_path_and_query(http, client, upstream):
    answer = http.post(
        f"/api/{upstream()}/a%20b/c%3Fd",
        params={"q": "ä&b", "n": "1"},
        headers={"X-Client": client(1, 5)},
        content=b"body",
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["path"] == "/a b/c?d"
    assert answer.json()["query"] == {"q": "ä&b", "n": "1"}
    assert answer.json()["method"] == "POST"


def test_each_answer_tells_the_limit_and_where_the_time_went(http, ask, client, upstream):
    answer = ask(client(ONCE, 5), upstream())
    assert answer.headers["RateLimit-Limit"] == "5"
    assert answer.headers["RateLimit-Remaining"] == "4"
    assert 990 <= int(answer.headers["RateLimit-Reset"]) <= 1000
    steps = [part.split(";")[0] for part in answer.headers["Server-Timing"].split(", ")]
    assert steps == ["bucket", "breaker", "upstream"]
    ask(client(ONCE, 5), upstream())
    assert http.get("/latency/").json()["bucket"]["p50"] > 0


@pytest.mark.parametrize("name", ["", "made-up", "x" * 51, "a b"])
def test_an_unknown_client_is_a_401_and_leaves_nothing_behind(site, ask, upstream, idle, name):
    assert ask(name, upstream()).status_code == 401
    idle(site)
    assert site.sql(f"SELECT count(*) FROM djactor.actor WHERE actor_key = '{name}'") == "0"


@pytest.mark.parametrize("name", ["made-up", "x" * 51])
def test_an_unknown_upstream_is_a_404_and_leaves_nothing_behind(site, ask, client, idle, name):
    assert ask(client(1, 5), name).status_code == 404
    idle(site)
    assert site.sql(f"SELECT count(*) FROM djactor.actor WHERE actor_key = '{name}'") == "0"


#
# Buckets
#


def test_of_many_at_once_as_many_pass_as_there_are_tokens(site, ask, ask_at_once, client, upstream):
    limited, to = client(ONCE, 10), upstream()
    assert ask_at_once(40, limited, to) == {200: 10, 429: 30}
    refused = ask(limited, to)
    assert 900 < int(refused.headers["Retry-After"]) <= 1000
    assert refused.headers["RateLimit-Remaining"] == "0"
    state = bucket(site, limited)
    assert (state["allowed"], state["refused"]) == (10, 31)


def test_whoever_waits_as_told_gets_a_token(ask, client, upstream):
    limited, to = client(0.2, 1), upstream()
    assert ask(limited, to).status_code == 200
    refused = ask(limited, to)
    assert refused.status_code == 429
    time.sleep(int(refused.headers["Retry-After"]))
    assert ask(limited, to).status_code == 200


def test_clients_do_not_share_a_bucket(ask, client, upstream):
    one, other, to = client(ONCE, 1), client(ONCE, 1), upstream()
    assert [ask(name, to).status_code for name in (one, one, other)] == [200, 429, 200]


def test_a_changed_limit_holds_from_the_next_request_on(site, ask, client, upstream):
    limited, to = client(ONCE, 1), upstream()
    assert [ask(limited, to).status_code for _ in range(2)] == [200, 429]
    site.sql(f"UPDATE gateway_client SET rate = 1000000 WHERE name = '{limited}'")
    assert ask(limited, to).status_code == 200


def test_when_the_buckets_cannot_be_asked_nothing_passes_then_or_later(
    site, ask, client, upstream, idle
):
    limited, to = client(ONCE, 5), upstream()
    assert ask(limited, to).status_code == 200
    site.sql("SELECT djactor.pause('gateway.bucket')")
    try:
        refused = ask(limited, to)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        site.sql(
            "INSERT INTO djactor.message (actor_type, actor_key)"
            f" SELECT 'gateway.bucket', '{limited}-flood' FROM generate_series(1, 100)"
        )
        site.sql(f"INSERT INTO gateway_client VALUES ('{limited}-flood', 1, 1)")
        assert ask(f"{limited}-flood", to).status_code == 429  # at once: its mailbox is full
    finally:
        site.sql("SELECT djactor.resume('gateway.bucket')")
    idle(site)
    assert bucket(site, limited)["allowed"] == 1  # the ask that nobody waits for has expired


#
# Breakers
#


def test_a_breaker_opens_after_failures_in_a_row_and_spares_the_upstream(
    service, ask, client, upstream, breaker, site, idle
):
    caller, to = client(*PLENTY), upstream()
    for fail in (1, 1, 0, 1, 1):  # two in a row are not enough
        service.control(fail=fail)
        assert ask(caller, to).status_code == (500 if fail else 200)
        idle(site)
    assert breaker(to)["failures"] == 2
    assert ask(caller, to).status_code == 500
    assert breaker(to, "open")["failures"] == 3
    served = service.control()
    refused = ask(caller, to)
    assert refused.status_code == 503
    assert 50 < int(refused.headers["Retry-After"]) <= 60
    assert service.control() == served
    assert ask(caller, upstream()).status_code == 500  # another upstream has its own breaker


def test_after_the_timer_one_probe_passes_and_its_failure_opens_again(
    site, service, ask, ask_at_once, client, upstream, breaker, until
):
    caller, to = client(*PLENTY), upstream("0.3 s", failures=1)
    service.control(fail=1)
    assert ask(caller, to).status_code == 500
    before = breaker(to, "half_open")
    # However long the twenty take, no second probe is due meanwhile.
    site.sql(f"UPDATE gateway_upstream SET cool_down = '10 min' WHERE name = '{to}'")
    served = service.control(delay=0.4)
    assert ask_at_once(20, caller, to) == {500: 1, 503: 19}
    assert service.control(delay=0) == served + 1
    until(lambda: breaker(to)["round"] > before["round"])
    assert breaker(to)["mode"] == "open"


def test_a_probe_that_succeeds_closes_it(service, ask, ask_at_once, client, upstream, breaker):
    caller, to = client(*PLENTY), upstream("0.3 s", failures=1)
    service.control(fail=1)
    assert ask(caller, to).status_code == 500
    breaker(to, "half_open")
    service.control(fail=0)
    assert ask(caller, to).status_code == 200
    assert breaker(to, "closed")["failures"] == 0
    assert ask_at_once(10, caller, to) == {200: 10}


def test_a_probe_that_is_never_heard_of_makes_room_for_another(
    site, service, ask, client, upstream, breaker, until
):
    caller, to = client(*PLENTY), upstream("0.5 s", failures=1)
    service.control(fail=1)
    assert ask(caller, to).status_code == 500
    breaker(to, "half_open")
    service.control(fail=0)
    # Somebody asks, and dies.
    lost = site.sql(f"""CALL djactor.ask('gateway.breaker', '{to}', '{{"ask": "pass"}}', '60 s')""")
    assert json.loads(lost)["pass"]
    until(lambda: not breaker(to)["probing"])
    assert ask(caller, to).status_code == 200
    breaker(to, "closed")


def test_what_is_heard_of_an_earlier_round_changes_nothing(
    site, service, ask, client, upstream, breaker, idle
):
    caller, to = client(*PLENTY), upstream(failures=1)
    service.control(fail=1)
    assert ask(caller, to).status_code == 500
    before = breaker(to, "open")
    late = json.dumps({"ok": True, "round": before["round"] - 1})
    site.sql(f"SELECT djactor.send('gateway.breaker', '{to}', '{late}')")
    idle(site)
    assert breaker(to) == before


def test_a_dead_upstream_is_a_502_and_recovers_when_it_is_back(
    service, ask, client, upstream, breaker
):
    caller, to = client(*PLENTY), upstream("0.3 s", failures=2)
    service.kill()
    assert [ask(caller, to).status_code for _ in range(2)] == [502, 502]
    service.start()
    breaker(to, "half_open")
    assert ask(caller, to).status_code == 200
    breaker(to, "closed")


def test_an_upstream_that_takes_too_long_has_failed(service, ask, client, upstream, breaker):
    caller, to = client(*PLENTY), upstream(failures=1)
    service.control(delay=3)
    assert ask(caller, to).status_code == 502
    breaker(to, "open")


def test_a_client_that_hangs_up_is_no_failure_of_the_upstream(
    site, service, ask, client, upstream, breaker, idle, until
):
    caller, to = client(*PLENTY), upstream(failures=1)
    served = service.control(delay=1)
    address = httpx.URL(site.url)
    with socket.create_connection((address.host, address.port)) as hung_up:
        request = f"GET /api/{to}/x HTTP/1.1\r\nHost: {address.host}\r\nX-Client: {caller}\r\n\r\n"
        hung_up.sendall(request.encode())
        until(lambda: service.control() == served + 1)  # the upstream has been asked
    time.sleep(1)
    idle(site)
    assert service.control(delay=0) == served + 1
    assert ask(caller, to).status_code == 200
    assert breaker(to)["mode"] == "closed"


#
# Killed
#


def test_killed_workers_give_no_token_twice(site, ask, client, upstream, kill_worker, idle, until):
    limited, to = client(ONCE, 40), upstream()
    answers = Counter()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for number, done in enumerate(
            concurrent.futures.as_completed([pool.submit(ask, limited, to) for _ in range(120)])
        ):
            answers[done.result().status_code] += 1
            if number in (10, 30):
                kill_worker(site)
    until(lambda: ask(limited, to).status_code == 429)
    idle(site)
    # A token whose request got a 503, since the server went down before it could say so, is gone.
    assert set(answers) <= {200, 429, 503}
    assert 0 < answers[200] <= 40
    assert bucket(site, limited)["allowed"] == 40
    assert ask(client(ONCE, 1), to).status_code == 200


def test_a_breaker_recovers_though_the_server_was_down_when_its_timer_was_due(
    site, service, ask, client, upstream, breaker, until
):
    caller, to = client(*PLENTY), upstream("2 s", failures=1)
    service.control(fail=1)
    until(lambda: ask(caller, to).status_code == 500)
    until(lambda: breaker(to)["round"] > 0)
    site.server.stop("immediate")
    time.sleep(2)
    site.server.start()
    breaker(to, "half_open")
    service.control(fail=0)
    until(lambda: ask(caller, to).status_code == 200)
    breaker(to, "closed")


def test_models_and_migrations_agree(site):
    site.manage("makemigrations", "--check", "--dry-run")
