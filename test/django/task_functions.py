"""Tasks.  They are bound to a backend when this is imported, so TASKS must be set before."""

import asyncio
import os
import signal
import time
from pathlib import Path

from asgiref.sync import sync_to_async
from django.db import transaction

from djactor.tasks.compat import PACKAGE
from shop.models import Sale

if PACKAGE == "django.tasks":
    from django.tasks import task
else:
    from django_tasks import task


@task()
def add(a, b=1):
    return a + b


@task()
def sell(product, amount=1):
    Sale.objects.create(product=product, amount=amount)


@task()
def sell_and_fail(product):
    Sale.objects.create(product=product, amount=1)
    add.enqueue(product)
    raise ValueError("no more of it")


@task()
def sell_twice(product):
    """Enqueues another one, in its own transaction."""
    Sale.objects.create(product=product, amount=1)
    return sell.enqueue(product, amount=2).id


@task()
async def sell_later(product):
    await Sale.objects.acreate(product=product, amount=3)
    return await sync_to_async(lambda: transaction.get_connection().in_atomic_block)()


@task(backend="http", queue_name="http")
async def fetch(number):
    await asyncio.sleep(0.001)
    if number < 0:
        raise LookupError(f"no page {number}")
    return {"page": number}


@task(backend="http", queue_name="http")
def fetch_sync(product):
    Sale.objects.create(product=product, amount=4)
    return "sold"


@task(backend="http", queue_name="http")
async def wait_for_file(path):
    while not Path(path).exists():
        await asyncio.sleep(0.01)
    return "seen"


@task()
def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.01)
    return "seen"


@task(takes_context=True)
def about(context, *words):
    context.task_result.refresh()
    return [
        context.attempt,
        context.task_result.id,
        str(context.task_result.status),
        context.task_result.worker_ids,
        list(words),
    ]


@task(backend="stubborn", queue_name="stubborn", takes_context=True)
def third_time(context, path=None):
    if path is not None:
        Path(path).write_text(str(context.attempt))
    if context.attempt < 3:
        raise ConnectionError(f"attempt {context.attempt}")
    return context.attempt


@task(backend="stubborn", queue_name="stubborn")
def never(words="never"):
    raise RuntimeError(words)


@task()
def die():
    os.kill(os.getpid(), signal.SIGKILL)


@task()
def give(kind):
    return {
        "none": None,
        "nan": float("nan"),
        "object": object(),
        "bytes": b"\xff",
        "nul": "a\x00b",
        "surrogate": "\ud800",
        "tuple": (1, 2),
        "text": "äö\\'\"{}",
    }[kind]


@task()
def note(path, word):
    with Path(path).open("a") as file:
        file.write(f"{word}\n")


@task()
def note_on_commit(path, word):
    transaction.on_commit(lambda: note.func(path, word))
    if word == "fails":
        raise ValueError(word)


@task()
def sell_and_wait(product, path):
    Sale.objects.create(product=product, amount=1)
    return wait_for.func(path)


@task()
def nap(path, word):
    with Path(path).open("a") as file:
        file.write(f"begin {word}\n")
    time.sleep(0.05)
    with Path(path).open("a") as file:
        file.write(f"end {word}\n")


def not_a_task():
    raise AssertionError("somebody called it")
