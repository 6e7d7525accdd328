"""Two tenants send to the same type; each finds its own orders, in its own schema."""

import asyncio

import django

django.setup()

from asgiref.sync import sync_to_async  # noqa: E402
from django.core.checks import run_checks  # noqa: E402
from django.db import connection, connections, transaction  # noqa: E402
from django_tenants.utils import schema_context  # noqa: E402
from firms.models import Firm  # noqa: E402
from orders.models import Order  # noqa: E402

import djactor  # noqa: E402
from djactor.models import Actor  # noqa: E402
from djactor.test import drain, wait_idle  # noqa: E402


def customer(name: str) -> djactor.ActorRef:
    """This customer's actor, of the tenant at hand."""
    return djactor.actor("firms.customer", f"{connection.schema_name}/{name}")


def order(name: str, amount: int) -> None:
    """Sent from a view of the tenant."""
    customer(name).send(
        {"customer": name, "amount": amount}, headers={"tenant": connection.schema_name}
    )


assert [m.id for m in run_checks(databases=["default"]) if m.id.startswith("djactor")] == []
for schema in ("acme", "globex"):
    Firm.objects.create(schema_name=schema, name=schema)  # makes the schema, migrates it

for round_ in range(50):  # both in one batch, in turns
    for schema, amount in (("acme", 1), ("globex", 2)):
        with schema_context(schema):
            order("ann", amount + round_)
wait_idle(30)
for schema, amount in (("acme", 1), ("globex", 2)):
    with schema_context(schema):
        assert [o.amount for o in Order.objects.order_by("id")] == [
            amount + round_ for round_ in range(50)
        ]
        assert customer("ann").state() == {"n": 50}

with schema_context("acme"):
    with transaction.atomic():
        order("bob", 5)
        assert drain() == 1
        assert Order.objects.filter(customer="bob").exists()
        assert connection.schema_name == "acme"
        transaction.set_rollback(True)
    assert not Order.objects.filter(customer="bob").exists()
    assert Actor.objects.filter(actor_key__startswith=f"{connection.schema_name}/").count() == 1


async def ask(schema: str) -> object:
    """As an async view would, which has the schema from ``request.tenant``."""
    ann = djactor.actor("firms.customer", f"{schema}/ann")
    payload = {"customer": "ann", "amount": 0}
    answer = await ann.aask(payload, headers={"tenant": schema}, timeout=30)
    await sync_to_async(connections.close_all)()
    return answer


assert asyncio.run(ask("globex")) == {"n": 51}
with schema_context("globex"):
    assert Order.objects.count() == 51
print("tenants: ok")
