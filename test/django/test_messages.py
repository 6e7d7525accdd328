"""Typed messages: what becomes of objects, and of JSON, and which classes are refused.

Nothing here needs a database; what becomes of messages in turns is in test_typed_turns.py.
"""

import dataclasses
import enum
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, TypedDict
from uuid import UUID

import pydantic
import pytest

import djactor
from djactor import messages, registry
from djactor.fields import dump_payload
from djactor.messages import InvalidMessage, encode, receiver_of
from message_classes import (
    AddItem,
    AsyncWish,
    Cart,
    Color,
    Everything,
    Line,
    RemoveItem,
    Rename,
    Wish,
)

DJANGO = Path(__file__).parents[2] / "django"
Sku = NewType("Sku", str)
NOW = datetime(2026, 1, 2, 3, 4, 5, 123456, timezone.utc)
ALL = Everything(
    text="é",
    number=7,
    price=Decimal("9.990"),
    at=NOW,
    day=date(2026, 1, 2),
    id=UUID(int=7),
    color=Color.BLUE,
    lines=[Line("a"), Line("b", 2)],
    by_name={"x": 1.5, "y": 2.0},
    pair=(1, "one"),
    maybe=3,
    either=Line("c"),
    anything={"any": [1]},
    many=(1, 2),
    yes=True,
)


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    sku: str = pydantic.Field(alias="SKU")
    n: int = pydantic.Field(ge=1)
    at: datetime
    lines: list[Line] = []


@pydantic.dataclasses.dataclass
class Checked:
    n: pydantic.PositiveInt
    price: Decimal = Decimal(1)


def takes(*kinds: Any, name="Taker") -> Any:
    """A class with a handler for each."""

    def method(kind):
        @djactor.handles(kind)
        def handle(self, message):
            return message

        return handle

    return type(name, (), {f"on_{at}": method(kind) for at, kind in enumerate(kinds)})


def read(cls, payload):
    return receiver_of(cls).read(payload)


def over_the_wire(message):
    return read(takes(type(message)), json.loads(dump_payload(message)))[1]


# ---------- to JSON and back ----------


def test_an_object_is_its_fields_and_the_name_of_its_type():
    assert encode(AddItem("x", 2)) == {"@type": "AddItem", "sku": "x", "n": 2}
    assert json.loads(dump_payload(AddItem("x"))) == {"@type": "AddItem", "sku": "x", "n": 1}
    assert encode(Model(SKU="x", n=2, at=NOW, lines=[Line("a")])) == {
        "@type": "Model",
        "SKU": "x",
        "n": 2,
        "at": "2026-01-02T03:04:05.123456Z",
        "lines": [{"sku": "a", "n": 1}],
    }
    assert encode(Checked(2, Decimal("1.50"))) == {"@type": "Checked", "n": 2, "price": "1.50"}


@pytest.mark.parametrize("plain", [{}, {"a": 1}, [1], "x", None, 7, Rename(op="rename", name="n")])
def test_everything_else_is_sent_as_it_is(plain):
    assert encode(plain) is plain


def test_an_object_inside_a_dict_is_its_fields():
    assert json.loads(dump_payload({"lines": [Line("a")]})) == {"lines": [{"sku": "a", "n": 1}]}
    with pytest.raises(TypeError, match="cannot hold object"):
        dump_payload({"a": object()})


@pytest.mark.parametrize(
    "message",
    [
        ALL,
        dataclasses.replace(ALL, parent=ALL, either="text", maybe=None),
        Model(SKU="x", n=2, at=NOW),
        Checked(2, Decimal("1.50")),
        AddItem("x"),
    ],
)
def test_an_object_comes_back_as_it_was(message):
    back = over_the_wire(message)
    assert back == message and type(back) is type(message)


def test_a_typed_dict_comes_back_with_what_it_has():
    sent = {"op": "rename", "name": "n", "more": 1}
    assert read(takes(Rename), sent) == ("on_0", sent)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05.1234Z",
        "2026-01-02T03:04:05.1234+00:00",
        "2026-01-02 03:04:05.1234+00",
        "2026-01-02 05:04:05.123400000+02",
    ],
)
def test_times_are_read_as_postgresql_and_others_write_them(text):
    @dataclass
    class At:
        at: datetime

    found = read(takes(At), {"at": text})[1].at
    assert found == NOW.replace(microsecond=123400)


def test_numbers_of_sql_are_decimals_and_floats():
    @dataclass
    class Numbers:
        price: Decimal
        weight: float
        either: float | int

    found = read(takes(Numbers), {"price": 9.99, "weight": 2, "either": 3})[1]
    assert (found.price, found.weight, found.either) == (Decimal("9.99"), 2.0, 3)
    assert type(found.weight) is float and type(found.either) is int


def test_names_of_types_are_seen_through():
    class Part(TypedDict, total=False):
        sku: Sku

    @dataclass
    class Named:
        sku: Sku
        n: Annotated[int, "a number"]
        part: Part

    sent = {"sku": "x", "n": 1, "part": {}}
    assert read(takes(Named), sent)[1] == Named(Sku("x"), 1, {})
    with pytest.raises(InvalidMessage, match=r"part\.sku: 1 is not a str"):
        read(takes(Named), {**sent, "part": {"sku": 1}})


# ---------- what does not fit ----------

GOOD = json.loads(dump_payload(ALL))


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"text": 1}, "text: 1 is not a str"),
        ({"number": True}, "number: True is not an int"),
        ({"number": 1.5}, "number: 1.5 is not an int"),
        ({"yes": 1}, "yes: 1 is not a bool"),
        ({"price": "dear"}, "price: 'dear' is not a Decimal"),
        ({"price": "NaN"}, "price: 'NaN' is not a Decimal"),
        ({"price": None}, "price: None is not a Decimal"),
        ({"price": [1]}, "price: [1] is not a Decimal"),
        ({"at": "noon"}, "at: 'noon' is not a datetime"),
        ({"at": "2026-01-02"}, "at: '2026-01-02' is not a datetime"),
        ({"at": 1}, "at: 1 is not a datetime"),
        ({"day": "2026-13-01"}, "day: '2026-13-01' is not a date"),
        ({"id": "7"}, "id: '7' is not a UUID"),
        ({"color": "green"}, "color: 'green' is not 'red' or 'blue'"),
        ({"color": ["red"]}, "color: ['red'] is not 'red' or 'blue'"),
        ({"size": "xl"}, "size: 'xl' is not 's' or 'm'"),
        ({"lines": {}}, "lines: {} is not a list"),
        ({"lines": [1]}, "lines[0]: 1 is not an object"),
        ({"lines": [{"sku": "a"}, {"n": "x"}]}, "lines[1].sku: is missing; lines[1].n: 'x' is"),
        ({"by_name": {"x": "y"}}, "by_name['x']: 'y' is not a float"),
        ({"pair": [1]}, "pair: [1] is not a list of 2"),
        ({"pair": [1, 2]}, "pair[1]: 2 is not a str"),
        ({"many": ["x"]}, "many[0]: 'x' is not an int"),
        ({"maybe": "x"}, "maybe: 'x' is not of type int | None"),
        ({"either": 7}, "either: 7 is not of type Line | str | None"),
        ({"either": {"n": 1}}, "either.sku: is missing"),
        ({"parent": {}}, "parent.text: is missing"),
    ],
)
def test_a_field_that_does_not_fit_is_named(wrong, fault):
    with pytest.raises(InvalidMessage) as caught:
        read(takes(Everything), {**GOOD, **wrong})
    assert str(caught.value).startswith(f"Everything: {fault}")
    assert isinstance(caught.value, djactor.Reject)


def test_a_missing_field_is_named_and_faults_are_counted():
    with pytest.raises(InvalidMessage, match=r"^AddItem: sku: is missing; n: 'x' is not an int$"):
        read(takes(AddItem), {"n": "x"})
    with pytest.raises(InvalidMessage, match=r"; and 1 more$") as caught:
        read(takes(Everything), {"size": 1})
    assert len(caught.value.faults) == 11


def test_a_long_value_is_cut_short():
    with pytest.raises(InvalidMessage) as caught:
        read(takes(AddItem), {"sku": 1, "n": "x" * 10_000})
    assert len(str(caught.value)) < 100


def test_pydantic_names_the_fields_in_its_own_words():
    good = encode(Model(SKU="x", n=2, at=NOW))
    with pytest.raises(InvalidMessage, match=r"^Model: n: Input should be greater than or equal"):
        read(takes(Model), {**good, "n": 0})
    with pytest.raises(InvalidMessage, match=r"SKU: Field required; lines\[0\]\.sku: Field req"):
        read(takes(Model), {"n": 1, "at": good["at"], "lines": [{}]})
    with pytest.raises(InvalidMessage, match=r"^Checked: n: Input should be greater than 0"):
        read(takes(Checked), {"n": -1})


def test_what_post_init_refuses_is_refused():
    @dataclass
    class Positive:
        n: int

        def __post_init__(self):
            if self.n < 1:
                raise ValueError("n must be positive")

    with pytest.raises(InvalidMessage, match=r"^Positive: n must be positive$"):
        read(takes(Positive), {"n": 0})


def test_a_deep_message_does_not_break_the_process():
    value: Any = None
    for _ in range(10_000):
        value = {"parent": value}
    with pytest.raises(InvalidMessage):
        read(takes(Everything), value)


# ---------- which handler ----------


def test_one_type_needs_no_name_and_takes_no_other():
    assert read(Wish, {"sku": "x"}) == ("handle_message", AddItem("x"))
    assert read(Wish, {"@type": "AddItem", "sku": "x"}) == ("handle_message", AddItem("x"))
    with pytest.raises(InvalidMessage, match=r"^Wish takes AddItem: the message has the @type 'No"):
        read(Wish, {"@type": "No", "sku": "x"})
    with pytest.raises(InvalidMessage, match="the message is not an object"):
        read(Wish, ["x"])


def test_several_types_are_told_apart_by_name_or_by_literals():
    assert read(Cart, {"@type": "RemoveItem", "sku": "x"}) == ("remove", RemoveItem("x"))
    assert read(Cart, {"op": "rename", "name": "n"})[0] == "rename"
    for wrong in ({"sku": "x"}, {"op": "other", "name": "n"}, {"@type": None}, {}):
        with pytest.raises(InvalidMessage, match=r"^Cart takes .*: the message has no @type"):
            read(Cart, wrong)
    for wrong in ([], {}, "cart", 7):
        with pytest.raises(InvalidMessage, match="the message has the @type"):
            read(Cart, {"@type": wrong})


def test_literals_of_models_tell_them_apart():
    class On(pydantic.BaseModel):
        op: Literal["on"] = pydantic.Field("on", alias="Op")

    class Off(pydantic.BaseModel):
        op: Literal["off"] = "off"

    assert read(takes(On, Off), {"Op": "on"})[0] == "on_0"
    assert read(takes(On, Off), {"op": "off"})[0] == "on_1"


def test_what_has_no_type_goes_to_handle_message_if_that_takes_a_dict():
    assert read(AsyncWish, {"@type": "AddItem", "sku": "x"}) == ("add", AddItem("x"))
    for plain in ({"sku": "x"}, {"@type": "Other"}, [1], None):
        assert read(AsyncWish, plain) == ("handle_message", plain)
    with pytest.raises(InvalidMessage, match="sku: is missing"):
        read(AsyncWish, {"@type": "AddItem"})


def test_an_annotation_may_be_a_union():
    class Both:
        def handle_message(self, message: AddItem | RemoveItem | dict): ...

    assert read(Both, {"@type": "RemoveItem", "sku": "x"})[1] == RemoveItem("x")
    assert read(Both, {"sku": "x"})[1] == {"sku": "x"}


def test_a_handler_may_be_overridden_without_being_marked_again():
    class Other(Cart):
        def add(self, message):
            return {"other": message.sku}

    cart = Other(7)
    assert cart.handle_message(AddItem("x")) == {"other": "x"}
    assert cart.handle_message({"@type": "AddItem", "sku": "y"}) == {"other": "y"}
    with pytest.raises(InvalidMessage):
        cart.handle_message({})


@pytest.mark.parametrize(
    "annotation",
    [dict, dict[str, Any], "dict[str, Nothing]", Any, object, None, list, "Unknown", int | None],
)
def test_plain_handlers_take_all_as_it_is(annotation):
    class Plain:
        def handle_message(self, message): ...

    Plain.handle_message.__annotations__["message"] = annotation
    assert receiver_of(Plain) is None


def test_a_base_without_types_takes_all_as_it_is():
    class Plain(djactor.PythonActor):
        def handle_message(self, message: dict): ...

    class Bare(djactor.PythonActor[AddItem]):
        def handle_message(self, message): ...

    assert receiver_of(Plain) is None
    assert read(Bare, {"sku": "x"}) == ("handle_message", AddItem("x"))


# ---------- classes that are refused ----------


@dataclass
class WithThread:
    wait: timedelta


@dataclass
class IntKeys:
    names: dict[int, str]


@dataclass
class Unclear:
    what: AddItem | RemoveItem


@dataclass
class Nowhere:
    what: "Nothing"  # noqa: F821


@dataclass
class Init:
    n: dataclasses.InitVar[int]


class Root(pydantic.RootModel):
    root: list[int]


class Two:
    @djactor.handles(AddItem)
    def one(self, message): ...

    @djactor.handles(AddItem)
    def two(self, message): ...


class Mixed:
    @djactor.handles(AddItem)
    def one(self, message): ...

    async def handle_message(self, message: dict): ...


class NoType:
    @djactor.handles
    def one(self, message): ...


class Odd:
    def handle_message(self, message: Path): ...


class TooMany:
    @djactor.handles(AddItem)
    def one(self, message, other): ...


class Less(djactor.PythonActor[AddItem | RemoveItem]):
    @djactor.handles(AddItem)
    def one(self, message): ...


class More(djactor.PythonActor[RemoveItem]):
    @djactor.handles(AddItem)
    def one(self, message): ...

    @djactor.handles(RemoveItem)
    def two(self, message): ...


WRONG = [
    (takes(WithThread), r"WithThread\.wait is of type timedelta, as which no JSON value is read"),
    (takes(IntKeys), r"IntKeys\.names has keys of type int"),
    (takes(Unclear), r"Unclear\.what is of type AddItem \| RemoveItem, whose members cannot be"),
    (takes(Nowhere), "the annotations of Nowhere cannot be read: name 'Nothing' is not defined"),
    (takes(Init), r"Init\.n is an InitVar"),
    (takes(Root), "Root is a RootModel"),
    (takes(int), r"Taker\.on_0\(\) handles no message type"),
    (takes(Path), r"Taker\.on_0\(\) takes Path, which is no dataclass, pydantic model or Typed"),
    (takes(AddItem, type("AddItem", (AddItem,), {})), "takes two types that are called AddItem"),
    (Two, r"Two has two handlers of AddItem: one\(\) and two\(\)"),
    (Mixed, "some handlers of Mixed are async, and others are not"),
    (NoType, r"NoType\.one\(\) handles no message type"),
    (Odd, r"Odd\.handle_message\(\) takes Path, which is no dataclass"),
    (TooMany, r"TooMany\.one\(\) does not take a message and nothing else"),
    (Less, "Less declares RemoveItem, and has no handler of it"),
    (More, "More handles AddItem, and its base does not name that"),
]


@pytest.mark.parametrize(("cls", "words"), WRONG, ids=[words[:30] for _, words in WRONG])
def test_a_wrong_class_is_refused(cls, words):
    for _ in range(2):
        with pytest.raises(TypeError, match=words):
            receiver_of(cls)
    assert registry.wrong_with(cls) is not None


@pytest.mark.parametrize("wrong", ["AddItem", 7, None])
def test_handles_takes_types_and_methods(wrong):
    with pytest.raises(TypeError, match="@handles takes a message type, or a method"):
        djactor.handles(wrong)


def test_a_field_that_is_called_like_the_name_of_the_type_is_refused():
    class Linked(pydantic.BaseModel):
        type: str = pydantic.Field(alias="@type")

    with pytest.raises(TypeError, match="a field of Linked is called @type"):
        encode(Linked(**{"@type": "x"}))


# ---------- sending ----------


@pytest.fixture
def registered_cart():
    registry.register(Cart, "t.cart")
    registry.register(AsyncWish, "t.wish")
    registry.register(AsyncWish, "t.wish2")
    yield
    for name in ("t.cart", "t.wish", "t.wish2"):
        registry.unregister(name)


class Special(AddItem):
    pass


def test_a_class_stands_for_its_name(registered_cart):
    ref = djactor.actor(Cart, 7)
    assert ref == djactor.actor("t.cart", 7) and hash(ref) == hash(djactor.actor("t.cart", 7))
    assert messages.addressed(Cart, RemoveItem("x")) == (
        "t.cart",
        {"@type": "RemoveItem", "sku": "x"},
    )
    with pytest.raises(LookupError, match=r"is registered as t\.wish and as t\.wish2: name the"):
        djactor.actor(AsyncWish, 7)
    with pytest.raises(LookupError, match=r"message_classes\.Wish is not registered"):
        djactor.actor(Wish, 7)
    with pytest.raises(LookupError, match="7 is not registered"):
        djactor.actor(7, 7)


def test_what_a_class_does_not_take_is_not_sent(registered_cart):
    ref = djactor.actor(Cart, 7)
    for send in (ref.send, lambda message: ref.schedule("x", payload=message, after="1 h")):
        with pytest.raises(TypeError, match=r"^Cart takes AddItem, RemoveItem, Rename, not Line$"):
            send(Line("x"))
    with pytest.raises(ValueError, match="would be one message"):
        ref.send_many([AddItem("x")], idempotency_key="k")


def test_an_object_of_a_derived_type_is_sent_as_the_type_that_is_taken(registered_cart):
    assert messages.outgoing(Cart, Special("x")) == {"@type": "AddItem", "sku": "x", "n": 1}
    assert messages.outgoing(AsyncWish, Line("x"))["@type"] == "Line"  # to handle_message()


# ---------- other interpreters ----------


def test_pydantic_is_not_imported_unless_a_class_is_a_model():
    code = (
        "import sys, message_classes as m, djactor\nfrom djactor.messages import *\n"
        "receiver_of(m.Cart).read(encode(m.AddItem('x')))\n"
        "assert 'pydantic' not in sys.modules and 'django' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{DJANGO}:{Path(__file__).parent}"},
        check=True,
        timeout=60,
    )


def test_without_the_package_plain_classes_run_and_typed_ones_say_what_is_missing(tmp_path):
    (tmp_path / "djactor_python.py").symlink_to(DJANGO / "djactor_python.py")
    (tmp_path / "classes.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Add:\n    n: int\n"
        "class Typed:\n    def handle_message(self, message: Add): ...\n"
        "class Plain:\n    def handle_message(self, message: dict[str, Unknown]): ...\n"
    )
    code = (
        "import classes, djactor_python as d\nassert d.receiver_of(classes.Plain) is None\n"
        "try:\n    d.receiver_of(classes.Typed)\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("Typed takes typed messages: these need the package djactor")


def test_an_enum_of_numbers_is_its_numbers():
    class Level(enum.IntEnum):
        LOW = 1
        HIGH = 2

    @dataclass
    class Alarm:
        level: Level

    assert encode(Alarm(Level.HIGH)) == {"@type": "Alarm", "level": 2}
    assert read(takes(Alarm), {"level": 2})[1] == Alarm(Level.HIGH)
    with pytest.raises(InvalidMessage, match="level: 3 is not 1 or 2"):
        read(takes(Alarm), {"level": 3})
