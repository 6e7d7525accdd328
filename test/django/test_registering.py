"""djactor.register(): what may be registered, and how the class of a type is found.

Nothing here needs a database; what migrate makes of it is in test_declared.py.
"""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import djactor
import hosted_classes
from djactor import registry

DJANGO = Path(__file__).parents[2] / "django"


class Order:
    """As a user writes it."""

    def __init__(self, number: int):
        self.number = number

    def handle_message(self, message: dict):
        return {"number": self.number}

    class Line:
        """One inside another."""

        async def handle_message(self, message):
            return None


class NoKey(Order):
    def __init__(self):
        pass


class TwoKeys(Order):
    def __init__(self, number, other):
        pass


class NoMessage:
    def handle_message(self):
        pass


class TwoMessages:
    def handle_message(self, message, other):
        pass


class Slots:
    __slots__ = ("number",)

    def handle_message(self, message):
        pass


class Decorated(Order):
    def handle_message(self, message, *, log=print):
        pass


@pytest.fixture(autouse=True)
def fresh():
    """No server, and what a test registers is forgotten."""
    before = dict(registry.registered())
    yield
    for name in {*registry.registered(), *registry.registered_sql()} - set(before):
        registry.unregister(name)


def test_a_class_is_registered_as_it_stands():
    assert djactor.register(Order, "t.order", hosted=True, max_attempts=3) is Order
    found = registry.registered()["t.order"]
    assert (found.name, found.cls, found.hosted) == ("t.order", Order, True)
    assert found.options == {"max_attempts": 3}
    assert found.path == f"{__name__}.Order"


def test_the_decorator_does_the_same():
    decorate = djactor.register("t.order", hosted=True, backoff=timedelta(seconds=2))
    assert "t.order" not in registry.registered()
    assert decorate(Order) is Order
    assert registry.registered()["t.order"].options == {"backoff": timedelta(seconds=2)}


def test_a_module_that_is_loaded_again_registers_the_new_class():
    djactor.register(Order, "t.order")
    again = type("Order", (Order,), {"__module__": __name__, "__qualname__": "Order"})
    djactor.register(again, "t.order", hosted=True)
    assert registry.registered()["t.order"].cls is again


def test_two_classes_of_one_name_are_refused_by_both_paths():
    djactor.register(Order, "t.order")
    with pytest.raises(ValueError, match=r"Order already, and again for .*Order\.Line"):
        djactor.register(Order.Line, "t.order")
    djactor.register(Order, "t.other")  # one class for two types is fine


def test_a_handler_of_the_database_is_registered_with_its_file():
    djactor.register_sql("t.till", "till_handle", sql="till.sql", max_attempts=3)
    found = registry.registered_sql()["t.till"]
    assert (found.name, found.handler, found.sql) == ("t.till", "till_handle", "till.sql")
    assert (found.module, found.options) == (__name__, {"max_attempts": 3})
    assert registry.is_registered("t.till") and "t.till" not in registry.registered()
    djactor.register_sql("t.till", "till_handle", sql="other.sql")  # loaded again
    with pytest.raises(ValueError, match=r"registered for till_handle of .* and again for .*Order"):
        djactor.register(Order, "t.till")
    with pytest.raises(ValueError, match=r"and again for other_handle"):
        djactor.register_sql("t.till", "other_handle")
    assert registry.unregister("t.till").sql == "other.sql"


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("t.till", Order), {}, "the handler is a text"),
        (("", "till_handle"), {}, "the name of an actor type is a text"),
        (("t.till", "till_handle"), {"sql": 7}, "the handler file of .* is a text"),
        (("t.till", "till_handle"), {"max_attempt": 7}, "no option is called max_attempt"),
    ],
)
def test_a_handler_that_cannot_be_registered_is_refused(arguments, options, words):
    with pytest.raises(TypeError, match=words):
        djactor.register_sql(*arguments, **options)
    assert not registry.is_registered("t.till")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((Order,), r"register\(cls, \"app\.name\"\)"),
        ((Order(7), "t.order"), "an actor's class is registered"),
        ((Order, ""), "the name of an actor type"),
        ((Order, 7), "the name of an actor type"),
    ],
)
def test_what_is_no_class_or_no_name_is_refused(arguments, words):
    with pytest.raises(TypeError, match=words):
        djactor.register(*arguments)


def test_an_option_that_does_not_exist_is_named():
    with pytest.raises(TypeError, match="no option is called max_atempts"):
        djactor.register(Order, "t.order", max_atempts=3)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (object, "has no method handle_message"),
        (Order(7), "is a Order, not a class"),
        (NoKey, r"NoKey\.__init__\(\) does not take the actor's key"),
        (TwoKeys, r"TwoKeys\.__init__\(\) does not take the actor's key"),
        (NoMessage, r"handle_message\(\) does not take a message"),
        (TwoMessages, r"handle_message\(\) does not take a message"),
        (Slots, "__slots__"),
    ],
)
def test_what_cannot_be_an_actor_is_told(cls, words):
    import re

    assert re.search(words, registry.wrong_with(cls))


@pytest.mark.parametrize("cls", [Order, Order.Line, Decorated, djactor.PythonActor])
def test_what_can_be_an_actor_is_not_complained_about(cls):
    assert registry.wrong_with(cls) is None


def test_the_class_of_a_type_is_the_registered_one_or_that_of_its_path():
    djactor.register(Order, "t.order")
    assert registry.resolve("t.order", "anything.Else") is Order
    assert registry.resolve("t.other", "hosted_classes.Basket") is hosted_classes.Basket
    assert registry.resolve("t.other", "hosted_classes.Outer.Inner") is hosted_classes.Outer.Inner


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (None, "is not registered, and the database names no class"),
        ("Order", "there is no module Order"),
        ("nowhere.actors.Order", "there is no module nowhere.actors"),
        ("hosted_classes.Nobody", r"hosted_classes \(.*hosted_classes.py\) has no Nobody"),
        ("hosted_classes.Outer.Nobody", "has no Outer.Nobody"),
        ("broken_syntax.Order", "SyntaxError"),
        ("broken_import.Order", "No module named 'nowhere'"),
    ],
)
def test_a_class_that_cannot_be_found_is_told_with_the_reason(
    handler, words, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_syntax.py").write_text("class Order(:\n")
    (tmp_path / "broken_import.py").write_text("import nowhere\n")
    with pytest.raises(ImportError, match=words) as caught:
        registry.resolve("t.order", handler)
    assert "actor type 't.order'" in str(caught.value)


def test_a_class_that_cannot_be_an_actor_is_not_handed_out():
    with pytest.raises(TypeError, match=r"'t\.order' cannot be used: .*WithoutKey"):
        registry.resolve("t.order", "hosted_classes.WithoutKey")


def test_the_server_needs_no_django_for_a_registered_class(tmp_path):
    (tmp_path / "actors.py").write_text(
        "import djactor\n\n\n"
        "@djactor.register('t.order', hosted=True, max_attempts=3)\n"
        "class Order(djactor.PythonActor):\n    pass\n"
    )
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; import actors; assert 'django' not in sys.modules; print(actors.Order)",
        ],
        env={"PYTHONPATH": f"{DJANGO}:{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert "actors.Order" in said.stdout, said.stderr
