"""OpenTelemetry: what is sent carries the sender's context, and turns are spans."""

import io
import json
import subprocess
import sys
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import djactor
import task_settings
from djactor import declared, following, registry, spans, tracing
from djactor.models import Actor, DeadLetter, Journal, Message
from djactor.test import drain, wait_idle
from hosting_worker import DJANGO, Worker, define, drop, query
from waiting import until, until_visible

TYPE = "shop.counter"
HOSTED = {
    "host.counter": ("Counter", {"max_attempts": 2, "backoff": "10 ms"}),
    "host.acounter": ("AsyncCounter", {"max_attempts": 2, "backoff": "10 ms"}),
    "host.seller": ("Seller", {}),
    "host.aseller": ("AsyncSeller", {}),
    "host.forwarder": ("Forwarder", {}),
    "host.careless": ("Careless", {"max_attempts": 1, "handler_timeout": "300 ms"}),
}
BOTH = pytest.mark.parametrize("counter", ["host.counter", "host.acounter"])
exporter = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def provider():
    """That of this process, until the last test of this file."""
    found = TracerProvider()
    found.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_TRACER_PROVIDER", found)  # it can be set only once
        yield found


@pytest.fixture
def request_span(fresh):
    """A span that is current, as that of a request is."""
    exporter.clear()
    with trace.get_tracer("test").start_as_current_span("request") as span:
        yield span.get_span_context()


def parent_in(headers):
    """The trace and the span that headers name."""
    version, trace_id, span_id, flags = headers["traceparent"].split("-")
    assert version == "00" and int(flags, 16) & trace.TraceFlags.SAMPLED
    return int(trace_id, 16), int(span_id, 16)


# ---------- sending ----------


def test_what_is_sent_carries_the_current_span(paused, request_span):
    here = request_span.trace_id, request_span.span_id
    actor = djactor.actor(TYPE, 1)
    actor.send({"add": 1}, headers={"tenant": "a"})
    actor.send_many([{"add": 1}, {"add": 2}])
    Message.objects.create(actor_type=TYPE, actor_key="1", payload={"add": 1})
    Message.objects.bulk_create([Message(actor_type=TYPE, actor_key="1", headers={"tenant": "b"})])
    with pytest.raises(djactor.AskTimeout):
        actor.ask({"add": 1}, timeout=0.01, headers={"tenant": "c"})
    sent = [message.headers for message in Message.objects.order_by("id")]
    assert [parent_in(headers) for headers in sent] == [here] * 6
    assert [headers.get("tenant") for headers in sent] == ["a", None, None, None, "b", "c"]


def test_the_headers_that_were_given_are_left_as_they_are(paused, request_span):
    given = {"tenant": "a"}
    djactor.actor(TYPE, 1).send({"add": 1}, headers=given)
    djactor.actor(TYPE, 1).send_many([{"add": 1}] * 2, headers=given)
    assert given == {"tenant": "a"}


def test_without_a_span_nothing_is_added(paused):
    djactor.actor(TYPE, 1).send({"add": 1})
    djactor.actor(TYPE, 1).send_many([{"add": 1}], headers={"tenant": "a"})
    sent = [message.headers for message in Message.objects.order_by("id")]
    assert sent == [None, {"tenant": "a"}]


def test_a_task_carries_the_span_that_enqueues_it(request_span):
    with override_settings(TASKS=task_settings.TASKS):
        with connection.schema_editor() as editor:
            declared.define_registered("default", ("default",), editor)
        import task_functions

        try:
            with transaction.atomic():
                task_functions.add.enqueue(1, 2)
                (message,) = Message.objects.all()
                assert parent_in(message.headers)[1] == request_span.span_id
                transaction.set_rollback(True)
        finally:
            registry.unregister("default")
            drop("default")


# ---------- hosted turns ----------


@pytest.fixture(scope="module")
def hosts(project, tmp_path_factory):
    """A worker that writes spans; what is yielded reads those of one type."""
    file = tmp_path_factory.mktemp("spans") / "spans"
    file.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_SPANS", str(file))
        for name, (cls, options) in HOSTED.items():
            define(name, cls, **options)
        worker = Worker(
            project, "--types", *HOSTED, "--threads", 2, "--grace", 5, settings="otel_settings"
        )
    try:
        worker.wait_ready(2)

        def of(name, count=1):
            def read():
                found = [json.loads(line) for line in file.read_text().splitlines()]
                return [one for one in found if one["name"] == f"process {name}"]

            until(lambda: len(read()) >= count)
            assert len(read()) == count
            return read()

        yield of, file
        assert worker.end() == 0, worker.log()
    finally:
        worker.kill()
        for name in HOSTED:
            drop(name)


@pytest.fixture
def of(hosts, fresh):
    """``of("host.counter", 2)``: its two spans of this test."""
    read, file = hosts
    wait_idle(60)
    with file.open("r+") as opened:
        opened.truncate()
    exporter.clear()
    return read


def number(text):
    return int(text, 16)


@BOTH
def test_a_turn_is_a_span_below_its_sender(of, counter):
    with trace.get_tracer("test").start_as_current_span("request") as span:
        djactor.actor(counter, 7).ask({"add": 1}, timeout=60)
    (turn,) = of(counter)
    above = span.get_span_context()
    assert number(turn["context"]["trace_id"]) == above.trace_id
    assert number(turn["parent_id"]) == above.span_id
    assert turn["kind"] == "SpanKind.CONSUMER" and turn["status"]["status_code"] == "UNSET"
    said = turn["attributes"]
    assert said["messaging.system"] == "djactor"
    assert said["messaging.operation.type"] == said["messaging.operation.name"] == "process"
    assert said["messaging.destination.name"] == counter
    assert int(said["messaging.message.id"]) > 0
    assert uuid.UUID(said["messaging.message.conversation_id"])
    assert said["djactor.actor.key"] == "7" and said["djactor.message.kind"] == "user"
    assert said["djactor.message.attempt"] == 1
    assert turn["start_time"] < turn["end_time"]


@BOTH
def test_a_message_without_a_span_begins_a_trace(of, counter):
    djactor.actor(counter, 7).ask({"add": 1}, timeout=60)
    (turn,) = of(counter)
    assert turn["parent_id"] is None


@pytest.mark.parametrize(
    ("sender", "message", "headers"),
    [
        ("host.seller", {"product": 1, "send": 9}, {"tenant": "a"}),  # by the ORM
        ("host.aseller", {"product": 9}, {"tenant": "a"}),  # in in_commit()
        ("host.forwarder", {"to": 9}, {"tenant": "x"}),  # with headers of its own, and as inside
    ],
)
def test_what_a_turn_sends_is_below_the_turn(of, paused, sender, message, headers):
    with trace.get_tracer("test").start_as_current_span("request") as span:
        djactor.actor(sender, 1).ask(message, headers={"tenant": "a"}, timeout=60)
    (turn,) = of(sender)
    wait_idle(60, sender)
    sent = [one.headers for one in Message.objects.filter(actor_type=TYPE).order_by("id")]
    above = span.get_span_context().trace_id, number(turn["context"]["span_id"])
    assert sent and [parent_in(one) for one in sent] == [above] * len(sent)
    assert sent[0]["tenant"] == headers["tenant"]


@BOTH
def test_each_attempt_that_fails_is_a_span_with_the_exception(of, counter):
    djactor.actor(counter, 1).send({"fail": True})
    turns = of(counter, 2)
    assert [one["attributes"]["djactor.message.attempt"] for one in turns] == [1, 2]
    for one in turns:
        assert one["status"] == {
            "status_code": "ERROR",
            "description": "ValueError: told to fail",
        }
        (event,) = one["events"]
        assert event["attributes"]["exception.type"] == "ValueError"
        assert "hosting_classes.py" in event["attributes"]["exception.stacktrace"]


@BOTH
def test_a_reject_is_no_error(of, counter):
    djactor.actor(counter, 1).send({"reject": True})
    (turn,) = of(counter)
    assert turn["status"]["status_code"] == "UNSET" and turn["events"] == []
    assert turn["attributes"]["djactor.rejected"] == "not today"


def test_a_turn_that_takes_too_long_is_an_error(of):
    djactor.actor("host.careless", 1).send({"sleep": 300})
    (turn,) = of("host.careless")
    assert turn["status"]["status_code"] == "ERROR"
    assert "time limit" in turn["status"]["description"]


@BOTH
@pytest.mark.parametrize("nonsense", [5, "nonsense", ["00"], {"a": 1}, None])
def test_nonsense_in_the_headers_does_no_harm(of, counter, nonsense):
    headers = {"traceparent": nonsense, "tracestate": nonsense, "baggage": nonsense}
    assert djactor.actor(counter, 1).ask({"add": 1}, headers=headers, timeout=60) == {"n": 1}
    (turn,) = of(counter)
    assert turn["parent_id"] is None


# ---------- tests of users, and projects without OpenTelemetry ----------


def test_a_turn_of_drain_is_a_span_too(request_span):
    define("host.drained", "Counter")
    try:
        with transaction.atomic():
            djactor.actor("host.drained", 1).send({"add": 1})
            drain()
            assert trace.get_current_span().get_span_context() == request_span
            transaction.set_rollback(True)
    finally:
        drop("host.drained")
    (turn,) = exporter.get_finished_spans()
    assert turn.name == "process host.drained"
    assert turn.parent.span_id == request_span.span_id


def test_without_opentelemetry_nothing_happens():
    program = """
import sys
sys.modules["opentelemetry"] = None
from djactor import tracing
from djactor.hosting.context import Turn
assert tracing.trace is None
given = {"tenant": "a"}
assert tracing.headers(given) is given and tracing.headers(None) is None
tracing.stamp([object()])
with tracing.turn(Turn(())):
    pass
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(DJANGO)})


# ---------- turns inside the server ----------

CHAIN = """
CREATE OR REPLACE FUNCTION spans_chain(state jsonb, message jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'fail' THEN
		RAISE EXCEPTION 'told to fail';
	END IF;
	IF message ? 'wait' THEN
		PERFORM pg_sleep(300);
	END IF;
	IF (message ->> 'more')::int > 0 THEN
		PERFORM djactor.send('span.chain', (message ->> 'more'),
			jsonb_build_object('more', (message ->> 'more')::int - 1));
	END IF;
	RETURN state;
END $$;
"""


@pytest.fixture
def chain(fresh):
    """A type inside the server, with a journal, whose turns send to others of it."""
    with connection.cursor() as cursor:
        cursor.execute(CHAIN)
        cursor.execute(
            "SELECT djactor.define_actor_type('span.chain', 'spans_chain', max_attempts => 1,"
            " journal => '1 hour')"
        )
    yield djactor.actor("span.chain", "first")
    drop("span.chain")
    query_nothing("DROP FUNCTION spans_chain")


def query_nothing(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


def exported(**options):
    """What the command exports, in the order of the turns."""
    until_visible()
    exporter.clear()
    out = io.StringIO()
    call_command("djactor_spans", types=["span.chain"], lag=0.0, stdout=out, **options)
    found = exporter.get_finished_spans()
    assert out.getvalue() == f"{len(found)} exported\n"
    return sorted(
        found, key=lambda span: (span.start_time, span.attributes["messaging.message.id"])
    )


def test_turns_inside_are_spans_below_each_other(chain):
    before = datetime.now(timezone.utc)
    with trace.get_tracer("test").start_as_current_span("request") as span:
        chain.send({"more": 2})
    wait_idle(60)
    found = exported()
    above = span.get_span_context()
    assert [one.context.trace_id for one in found] == [above.trace_id] * 3
    assert [one.parent.span_id for one in found] == [
        above.span_id,
        found[0].context.span_id,
        found[1].context.span_id,
    ]
    for one, row in zip(found, Journal.objects.order_by("id"), strict=True):
        assert one.name == "process span.chain" and one.kind is trace.SpanKind.CONSUMER
        assert one.attributes["messaging.message.id"] == str(row.id)
        assert one.attributes["djactor.actor.key"] == row.actor_key
        assert one.attributes["djactor.outcome"] == "handled"
        assert 0 <= one.attributes["djactor.wait_seconds"] < 600
        micros = (row.started_at - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(
            microseconds=1
        )
        assert one.start_time == micros * 1000 and row.started_at > before - timedelta(minutes=1)
        assert one.end_time >= one.start_time
        assert one.status.is_unset


def test_without_a_span_above_the_trace_is_that_of_djactor(chain):
    chain.send({"more": 1})
    wait_idle(60)
    first, second = exported()
    (trace_id,) = {row.trace_id for row in Journal.objects.all()}
    assert first.context.trace_id == second.context.trace_id == trace_id.int
    assert first.parent is None and second.parent.span_id == first.context.span_id


def test_what_was_given_up_is_a_span_with_the_error(chain):
    with trace.get_tracer("test").start_as_current_span("request") as span:
        chain.send({"fail": True})
    wait_idle(60)
    (one,) = exported()
    letter = DeadLetter.objects.get()
    assert one.parent.span_id == span.get_span_context().span_id
    assert one.status.status_code is trace.StatusCode.ERROR
    assert "told to fail" in one.status.description
    (event,) = one.events
    assert event.attributes["exception.type"] == "P0001"
    assert "spans_chain" in event.attributes["exception.stacktrace"]
    assert one.attributes["messaging.message.id"] == str(letter.id)


def test_what_the_sender_has_not_sampled_is_not_exported(chain):
    chain.send({"more": 1}, headers={"traceparent": f"00-{'1' * 32}-{'2' * 16}-00"})
    chain.send({}, headers={"traceparent": f"00-{'3' * 32}-{'4' * 16}-01"})
    wait_idle(60)
    until_visible()
    call_command("djactor_spans", types=["span.chain"], lag=0.0, stdout=io.StringIO())
    (one,) = [
        span for span in exporter.get_finished_spans() if span.parent.span_id == int("4" * 16, 16)
    ]
    assert one.context.trace_id == int("3" * 32, 16)
    assert not any(
        span.context.trace_id == int("1" * 32, 16) for span in exporter.get_finished_spans()
    )


def test_it_goes_on_where_it_was_and_twice_is_the_same(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(following, "PAGE", 3)
    for i in range(10):
        djactor.actor("span.chain", i).send({})
    wait_idle(60)
    file = tmp_path / "position"
    first = exported(position=file)
    assert len({span.context.span_id for span in first}) == 10
    assert exported(position=file) == []
    chain.send({"more": 1})
    wait_idle(60)
    assert len(exported(position=file)) == 2
    again = exported()
    assert len(again) == 12
    assert {span.context.span_id for span in first} <= {span.context.span_id for span in again}


def test_a_page_that_is_not_exported_is_exported_again(chain, tmp_path, monkeypatch):
    chain.send({})
    wait_idle(60)
    file = tmp_path / "position"
    with monkeypatch.context() as patch:
        patch.setattr(spans.Spans, "flush", lambda self: False)
        with pytest.raises(CommandError, match="not taken the spans"):
            exported(position=file)
    assert len(exported(position=file)) == 1


def test_since_a_time(chain):
    chain.send({})
    wait_idle(60)
    assert len(exported(since="1 hour")) == 1
    assert exported(since="0 s") == []
    assert exported(since="2999-01-01T00:00Z") == []
    for wrong, words in (("yesterday noon", "neither a time"), ("2026-01-01", "a time zone")):
        with pytest.raises(CommandError, match=words):
            exported(since=wrong)


def test_rows_of_a_worker_that_has_not_committed_are_waited_for(chain):
    waiting = chain.send({"wait": True})
    until(lambda: query("SELECT FROM djactor.worker WHERE message_id = %s", waiting))
    try:
        with connection.cursor() as cursor:
            cursor.execute(following._HORIZON, [0.0])
            (horizon,) = cursor.fetchone()
        ((began, now),) = query(
            "SELECT a.xact_start, clock_timestamp() FROM pg_stat_activity a"
            " JOIN djactor.worker w USING (pid) WHERE w.message_id = %s",
            waiting,
        )
        assert horizon <= began < now
    finally:
        djactor.cancel(waiting, running=True)
        wait_idle(60)


def test_a_damaged_file_of_positions_is_named(chain, tmp_path):
    file = tmp_path / "position"
    file.write_text('{"journal span.chain": 5}')
    with pytest.raises(CommandError, match="cannot be read from"):
        exported(position=file)
    with pytest.raises(CommandError, match="cannot be written to"):
        chain.send({})
        wait_idle(60)
        exported(position=tmp_path / "no" / "position")


def test_it_says_what_is_missing(chain, monkeypatch):
    with pytest.raises(CommandError, match=r"no actor type that runs inside: shop\.nobody"):
        call_command("djactor_spans", types=["shop.nobody"])
    with monkeypatch.context() as patch:
        patch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
        with pytest.raises(CommandError, match="no TracerProvider is set"):
            call_command("djactor_spans")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(CommandError, match="pip install opentelemetry-sdk"):
        call_command("djactor_spans")


def test_following_it_exports_what_comes(chain, monkeypatch):
    sent = []

    def sleep(seconds):
        if sent:
            raise KeyboardInterrupt
        sent.append(chain.send({}))
        wait_idle(60)
        until_visible()

    monkeypatch.setattr(following.time, "sleep", sleep)
    chain.send({})
    wait_idle(60)
    found = exported(follow=True)
    assert [span.attributes["messaging.message.id"] for span in found] == [str(sent[0])]
    assert Actor.objects.filter(actor_type="span.chain").exists()


def test_the_span_of_a_turn_has_a_name_and_an_id():
    assert tracing.span_name("shop.order") == "process shop.order"
    ids = {spans.span_id(number) for number in range(1000)}
    assert len(ids) == 1000 and all(0 < one < 2**64 for one in ids)
