"""djactor's own errors are Django's errors, of a class that tells them apart, with a hint."""

import pickle

import pytest
from django.db import (
    DatabaseError,
    OperationalError,
    ProgrammingError,
    connection,
    connections,
    transaction,
)

import djactor
from djactor.models import Actor, Message
from djactor.operations import DefineActorType, DefinePythonActorType
from elsewhere import elsewhere

TYPE = "shop.counter"


def nothing():
    return djactor.actor("shop.nothing", 1)


@pytest.mark.parametrize(
    "send",
    [
        lambda: nothing().send(),
        lambda: nothing().ask(),
        lambda: Message.objects.create(actor_type="shop.nothing", actor_key=1),
        lambda: Message.objects.bulk_create([Message(actor_type="shop.nothing", actor_key=1)]),
    ],
)
def test_an_unknown_type_says_how_types_are_defined(send):
    with pytest.raises(djactor.UnknownActorType, match="DefineActorType defines it") as raised:
        send()
    assert "shop.nothing" in str(raised.value)
    assert isinstance(raised.value, ProgrammingError)
    assert raised.value.__cause__.sqlstate == "42704"


def test_it_breaks_a_transaction_as_any_other_error_does():
    with transaction.atomic():
        with pytest.raises(djactor.UnknownActorType), transaction.atomic():
            nothing().send()
        djactor.actor(TYPE, 1).send({"add": 1})  # the savepoint has saved the rest
    with transaction.atomic():
        with pytest.raises(djactor.UnknownActorType):
            nothing().send()
        with pytest.raises(transaction.TransactionManagementError):
            Message.objects.count()
        transaction.set_rollback(True)
    assert djactor.actor(TYPE, 1).ask({"add": 1}) == {"n": 2}


def test_a_full_mailbox(paused):
    before = DefineActorType(TYPE, "counter_handle", initial_state={"n": 0}, max_attempts=3)
    limited = DefineActorType(TYPE, "counter_handle", mailbox_limit=1, previous=before)
    with connection.schema_editor() as editor:
        limited.forwards("shop", editor)
    try:
        with pytest.raises(djactor.MailboxFull, match="higher mailbox_limit"):
            for _ in range(100):  # the limit is approximate
                djactor.actor(TYPE, 1).send({"add": 1})
    finally:
        with connection.schema_editor() as editor:
            limited.backwards("shop", editor)


@pytest.mark.parametrize(
    "use", [nothing().send, nothing().ask, nothing().state, Actor.objects.count]
)
def test_a_database_without_the_extension_says_how_it_gets_there(fresh, use):
    with elsewhere(NAME="template1"), pytest.raises(djactor.NotInstalled, match="Run migrate"):
        use()


def test_a_server_without_the_extension_says_how_it_gets_there():
    with (
        connections["admin"].cursor() as cursor,
        pytest.raises(djactor.NotInstalled, match="Install it on the machine"),
    ):
        cursor.execute("CREATE EXTENSION djactor_is_not_here")


def test_an_extension_that_is_older_says_how_it_is_updated(old):
    with pytest.raises(djactor.WrongVersion, match="UpdateDjactor") as raised:
        nothing().send()
    assert isinstance(raised.value, DatabaseError)


def test_a_function_that_the_extension_does_not_have_yet_is_the_same_case():
    with (
        connection.cursor() as cursor,
        pytest.raises(djactor.WrongVersion, match="UpdateDjactor"),
    ):
        cursor.execute("SELECT djactor.of_a_later_version()")


def test_a_database_without_python_actors_says_how_they_get_there():
    python = DefinePythonActorType("shop.notification", "shop.actors.NotificationActor")
    with (
        connection.schema_editor() as editor,
        pytest.raises(djactor.NotInstalled, match=r"CREATE EXTENSION djactor_python.*TEMPLATE"),
        transaction.atomic(),
    ):
        python.forwards("shop", editor)


def test_asking_in_a_transaction_names_the_setting_that_opens_one():
    with transaction.atomic(), pytest.raises(djactor.AskInTransaction, match="ATOMIC_REQUESTS"):
        djactor.actor(TYPE, 1).ask()


def test_a_server_that_does_not_load_djactor_says_what_to_set(without_preload):
    with elsewhere(HOST=without_preload.host):
        with pytest.raises(djactor.NotPreloaded, match="Add djactor to shared_preload_libraries"):
            nothing().send()
        assert issubclass(djactor.NotPreloaded, OperationalError)


def test_other_errors_stay_as_they_are():
    with pytest.raises(ProgrammingError) as raised, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM no_such_table")
    assert type(raised.value) is ProgrammingError


@pytest.mark.parametrize(
    "error",
    [djactor.AskTimeout(7, 0.5), djactor.AskFailed(7, {"a": 1}), djactor.MailboxFull("full")],
)
def test_errors_pass_from_process_to_process(error):
    """As those of a parallel test run do."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
