"""State of Python actors: what JSON would change is refused, by the name of its attribute."""

import collections
import datetime
import enum
import itertools
import json
import re
import sys
import uuid
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "django"))

import djactor_python
from djactor_python import StateError, check_class, dump_state, key_converter, load_state


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


Point = collections.namedtuple("Point", "x y")
CIRCLE: list = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64,
        1.5,
        1e-300,
        -0.25,
        9.9e15,
        "",
        "grün",
        "\U0001f600",
        "\x01\n",
        [],
        {},
        [[1, {"a": [None, False]}], "x"],
        {"": {"b": 2.0}},
    ],
)
def test_what_json_gives_back_as_it_was_is_kept(value):
    assert load_state(dump_state({"a": value}, "A")) == {"a": value}


@pytest.mark.parametrize(
    ("value", "where", "why"),
    [
        ({1: "x"}, "a", "dict key 1 is an int"),
        ({None: "x"}, "a", "dict key None is a NoneType"),
        ({True: "x"}, "a", "dict key True is a bool"),
        ({(1, 2): "x"}, "a", "dict key (1, 2) is a tuple"),
        ({Text("k"): "x"}, "a", "dict key 'k' is a Text"),
        ([{"deep": {2.5: 0}}], "a[0]['deep']", "dict key 2.5 is a float"),
        ((1, 2), "a", "value is of type tuple"),
        ([1, (2,)], "a[1]", "value is of type tuple"),
        (Point(1, 2), "a", f"value is of type {__name__}.Point"),
        ({1, 2}, "a", "value is of type set"),
        (b"x", "a", "value is of type bytes"),
        (collections.defaultdict(int), "a", "value is of type collections.defaultdict"),
        (collections.OrderedDict(), "a", "value is of type collections.OrderedDict"),
        (Colour.RED, "a", f"value is of type {__name__}.Colour"),
        (Text("x"), "a", f"value is of type {__name__}.Text"),
        (datetime.date(2026, 1, 1), "a", "value is of type datetime.date"),
        (uuid.UUID(int=0), "a", "value is of type uuid.UUID"),
        (object(), "a", "value is of type object"),
        (float("nan"), "a", "nan is not a number that JSON knows"),
        ([float("-inf")], "a[0]", "-inf is not a number that JSON knows"),
        (1e16, "a", "float 1e+16 would come back as an int"),
        (10**5000, "a", "int has too many digits"),
        ("a\0b", "a", "str contains a NUL character, which PostgreSQL cannot store"),
        ("\ud800", "a", "str contains half of a surrogate pair, which PostgreSQL cannot store"),
        (CIRCLE, "a", "value is nested too deeply, or contains itself"),
    ],
    ids=itertools.count(),
)
def test_what_json_would_change_is_refused_by_its_attribute(value, where, why):
    with pytest.raises(StateError) as caught:
        dump_state({"fine": 1, "a": value}, "Room")
    assert str(caught.value) == f'attribute "{where}" of Room: {why}'


def test_a_key_that_cannot_be_shown_is_shown_in_short():
    """Python's words for an int of too many digits are of its version; 3.11 has none."""
    with pytest.raises(StateError) as caught:
        dump_state({"a": {10**5000: "x"}}, "Room")
    assert re.fullmatch(r'attribute "a" of Room: dict key .{3,100} is an int', str(caught.value))


def test_an_attribute_that_is_no_str_is_refused():
    with pytest.raises(StateError, match=r"^attribute 1 of Room: dict key 1 is an int$"):
        dump_state({1: 2}, "Room")


def test_a_state_that_is_no_object_is_refused():
    with pytest.raises(StateError, match="must be a JSON object"):
        load_state("[1]")


def taking(annotation):
    def __init__(self, key):
        pass

    __init__.__annotations__["key"] = annotation
    return type("Taking", (), {"__init__": __init__})


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        (int, 7),
        ("int", 7),
        (str, "7"),
        ("str", "7"),
        ("int | None", "7"),
        ("NotImportedHere", "7"),
        (float, "7"),
    ],
)
def test_the_key_is_converted_as_annotated(annotation, wanted):
    assert key_converter(taking(annotation))("7") == wanted


@pytest.mark.parametrize("annotation", [uuid.UUID, "uuid.UUID", "UUID"])
def test_a_key_can_be_a_uuid(annotation):
    key = "00000000-0000-0000-0000-000000000007"
    assert key_converter(taking(annotation))(key) == uuid.UUID(key)


def test_a_key_without_annotation_is_a_str():
    class Plain:
        def __init__(self, key):
            pass

    assert key_converter(Plain)("7") == "7"


class NoHandler:
    pass


class Slots:
    __slots__ = ("a",)

    def handle_message(self, message):
        pass


class SomeSlots(Slots):
    pass


class TwoArguments:
    def __init__(self, key, other):
        pass

    def handle_message(self, message):
        pass


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (NoHandler, "class NoHandler has no method handle_message"),
        (Slots, "class Slots uses __slots__"),
        (SomeSlots, "class SomeSlots uses __slots__"),
        (TwoArguments, "TwoArguments.__init__ must take the actor's key and nothing else"),
        (len, "not a class"),
    ],
)
def test_a_class_that_cannot_be_an_actor_is_refused(cls, why):
    with pytest.raises((TypeError, AttributeError), match=why):
        check_class(cls)


def test_spans_and_times():
    assert djactor_python._span(1.5) == "1500000 microseconds"
    assert djactor_python._span(datetime.timedelta(days=1)) == "86400000000 microseconds"
    with pytest.raises(ValueError, match="time zone"):
        djactor_python._when(datetime.datetime(2026, 1, 1))


def test_json_errors_say_what_is_not_json():
    with pytest.raises(TypeError, match=r"^reply is not JSON: "):
        djactor_python._json({"a": object()}, "reply")
    assert json.loads(djactor_python._json({"a": (1, 2)}, "reply")) == {"a": [1, 2]}
