"""The demo: Django sends, PostgreSQL handles, and the books are checked.

``make demo`` runs this on a PostgreSQL of its own, which it removes afterwards.
Several processes post to chat rooms with plain ORM inserts while djactor's
workers run the rooms' and users' handlers; at the end every post that was
committed must have been handled exactly once, in order, and none that was rolled
back.  The exit status is 0 only if that holds.

Meanwhile the site is served, to be looked at: the chat, and the live page of the admin.
``make demo ARGS=--stay`` keeps it after the end, with some people chatting, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx

from chat import senders
from django_site import DjangoSite
from private_server import PrivateServer, ServerError


class Progress:
    """A line that shows what is going on, rewritten on a terminal."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._interval = 0.2 if self._live else 1.0
        self._last_time = self._start = time.monotonic()
        self._last_turns = 0

    def show(self, sent: int, *, last: bool = False) -> None:
        """Look at the database and print, if it is time to; the last line gives the mean rate."""
        from django.db.models import Sum

        from djactor.models import Actor, Message

        now = time.monotonic()
        elapsed = now - self._last_time
        if elapsed < self._interval and not last:
            return
        turns = Actor.objects.aggregate(Sum("turns"))["turns__sum"] or 0
        waiting = Message.objects.count()
        rate = turns / (now - self._start) if last else (turns - self._last_turns) / elapsed
        self._last_time, self._last_turns = now, turns
        line = (
            f"{now - self._start:6.1f} s   posts sent {sent:>9,}   turns handled {turns:>9,}"
            f"   waiting {waiting:>7,}   {rate:>8,.0f} turns/s"
            f"{' on average' if last else ''}"
        )
        print(f"\r{line}\x1b[K" if self._live else line, end="", flush=True)
        if not self._live or last:
            print()


class Checks:
    """Prints one PASS or FAIL for each claim and remembers whether all held."""

    def __init__(self) -> None:
        self.passed = True

    def check(self, claim: str, holds: bool) -> None:
        """Note whether a claim holds."""
        self.passed = self.passed and holds
        print(f"{'PASS' if holds else 'FAIL'}  {claim}")


def parse_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=20_000, help="posts to commit in total")
    parser.add_argument("--senders", type=int, default=4, help="processes that send")
    parser.add_argument("--rooms", type=int, default=20)
    parser.add_argument("--users", type=int, default=10, help="per sender")
    parser.add_argument("--rollback", type=float, default=0.1, help="share of transactions")
    parser.add_argument(
        "--seed", type=int, default=1, help="of who posts what, and what rolls back"
    )
    parser.add_argument("--timeout", type=float, default=120, help="seconds to wait for the end")
    parser.add_argument("--stay", action="store_true", help="keep the site until Ctrl-C")
    arguments = parser.parse_args()
    if min(arguments.messages, arguments.senders, arguments.rooms, arguments.users) < 1:
        parser.error("counts start at 1")
    if not 0 <= arguments.rollback < 1:
        parser.error("--rollback is a share, below 1")
    return arguments


def set_up_django(site: DjangoSite) -> str:
    """Make this process one of the project's; the result is the password of ``operator``."""
    os.environ |= site.environment

    import django

    django.setup()
    from django.contrib.auth.models import User

    password = secrets.token_hex(4)
    User.objects.create_superuser("operator", password=password)
    return password


@contextmanager
def sender_processes(
    arguments: argparse.Namespace,
) -> Iterator[tuple[list[tuple[BaseProcess, Connection]], senders.Synchronized[int]]]:
    """The senders at work, and their common count of committed posts."""
    context = multiprocessing.get_context("spawn")
    committed = context.Value("q", 0)
    workers: list[tuple[BaseProcess, Connection]] = []
    try:
        for number in range(arguments.senders):
            share = arguments.messages // arguments.senders
            extra = number < arguments.messages % arguments.senders
            plan = senders.Plan(
                number=number,
                posts=share + extra,
                rooms=arguments.rooms,
                users=arguments.users,
                rollback_share=arguments.rollback,
                seed=arguments.seed,
            )
            receiving, sending = context.Pipe(duplex=False)
            process = context.Process(
                target=senders.run, args=(plan, committed, sending), daemon=True
            )
            process.start()
            sending.close()  # the child has its own end; ours would hide its death
            workers.append((process, receiving))
        yield workers, committed
    finally:
        for process, receiving in workers:
            process.terminate()
            process.join()
            receiving.close()


def send_and_watch(arguments: argparse.Namespace, progress: Progress) -> senders.Report:
    """Let the senders send; the result is what all of them did."""
    total = senders.Report()
    with sender_processes(arguments) as (workers, committed):
        waiting = {receiving for _, receiving in workers}
        while waiting:
            progress.show(committed.value)
            for receiving in multiprocessing.connection.wait(waiting, timeout=0.1):
                try:
                    report: senders.Report = receiving.recv()
                except EOFError:
                    raise ServerError("a sender died") from None
                waiting.remove(receiving)
                total.ids += report.ids
                total.by_room.update(report.by_room)
                total.by_author.update(report.by_author)
                total.rolled_back += report.rolled_back
    return total


def wait_until_idle(timeout: float, sent: int, progress: Progress) -> bool:
    """Wait until nothing is left to handle."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if query("SELECT djactor.wait_idle('0.2 s')")[0][0]:
            progress.show(sent, last=True)
            return True
        progress.show(sent)
    progress.show(sent, last=True)
    return False


def query(statement: str) -> list[tuple]:
    """Rows of a query written in SQL."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def print_states() -> None:
    """Some actors' states: read with the ORM, and with SQL."""
    from djactor.models import Actor

    print(
        "\nThe busiest rooms, with the ORM:\n"
        '  Actor.objects.filter(actor_type="chat.room", state__count__gt=0)'
        '.order_by("-state__count", "actor_key")[:3]'
    )
    rooms = Actor.objects.filter(actor_type="chat.room", state__count__gt=0)
    for room in rooms.order_by("-state__count", "actor_key")[:3]:
        print(
            f"  {room.actor_key:<10} {room.state['count']:>7,} posts"
            f" by {len(room.state['members'])} members, the last by {room.state['last_author']}"
        )

    statement = (
        "SELECT actor_key, state -> 'posts', state ->> 'last_room' FROM djactor.actor\n"
        "  WHERE actor_type = 'chat.user' ORDER BY state -> 'posts' DESC, actor_key LIMIT 3"
    )
    print(f"\nThe busiest users, with SQL:\n  {statement}")
    for key, posts, room in query(statement):
        print(f"  {key:<10} {int(posts):>7,} posts, the last in {room}")


def check_books(sent: senders.Report, idle: bool, checks: Checks) -> None:
    """Compare what the senders committed with what the actors made of it."""
    from django.db.models import Count, Max

    from chat.models import ChatMessage
    from djactor.models import Actor, Message

    print()
    history = list(ChatMessage.objects.values_list("message_id", flat=True))
    rooms = dict(Actor.objects.filter(actor_type="chat.room").values_list("actor_key", "state"))
    users = dict(Actor.objects.filter(actor_type="chat.user").values_list("actor_key", "state"))
    by_room = dict(ChatMessage.objects.values_list("room").annotate(Count("id")))
    numbered = dict(ChatMessage.objects.values_list("room").annotate(Max("number")))
    members: Counter[str] = Counter()
    for state in rooms.values():
        members.update(state["members"])
    ((dead,),) = query("SELECT count(*) FROM djactor.dead_letter")
    ((overtaken,),) = query(
        "SELECT count(*) FROM ("
        "  SELECT message_id < lag(message_id) OVER (PARTITION BY room, author ORDER BY number)"
        "    AS overtaken FROM chat_chatmessage) AS pair WHERE overtaken"
    )
    rolled_back = ChatMessage.objects.filter(text=senders.ROLLED_BACK).count()

    checks.check(
        "all messages are handled, and none is a dead letter",
        idle and not Message.objects.exists() and dead == 0,
    )
    checks.check(
        f"each of the {len(sent.ids):,} committed posts is in the history exactly once",
        sorted(history) == sorted(sent.ids),
    )
    checks.check(f"none of the {sent.rolled_back:,} rolled-back posts is", rolled_back == 0)
    checks.check(
        "each room's state counts its posts",
        {key: state["count"] for key, state in rooms.items()} == dict(sent.by_room) == by_room,
    )
    checks.check(
        "each room numbered its posts without a gap, so it had one turn at a time",
        numbered == by_room,
    )
    checks.check("each author's posts to a room came in the order they were sent", overtaken == 0)
    checks.check(
        "the rooms' member counts add up to each author's posts", members == sent.by_author
    )
    checks.check(
        "each user's actor, to which the rooms sent, counts the author's posts",
        {key: state["posts"] for key, state in users.items()} == dict(sent.by_author),
    )


def check_pages(site: DjangoSite, password: str, sent: senders.Report, checks: Checks) -> None:
    """Look at the site over HTTP, as a browser does."""
    turns = 2 * len(sent.ids)
    ((busiest, _),) = sent.by_room.most_common(1)
    with httpx.Client(base_url=site.url, follow_redirects=True) as client:
        rooms = client.get("/")
        checks.check("the chat's page lists the busiest room", busiest in rooms.text)
        client.get("/admin/login/")
        login = {
            "username": "operator",
            "password": password,
            "csrfmiddlewaretoken": client.cookies["csrftoken"],
        }
        client.post("/admin/login/", data=login)
        live = client.get("/admin/djactor/actortype/live.json")
        checks.check(
            f"the live page counts {turns:,} turns, and nothing that waits",
            live.status_code == 200
            and (live.json()["handled"], live.json()["waiting"]) == (turns, 0),
        )


def chat_until_interrupted(arguments: argparse.Namespace) -> None:
    """Some people go on chatting, slowly, through the ORM."""
    import djactor

    chance = random.Random(arguments.seed)
    greetings = ("Good morning", "Anybody here?", "Yes", "One turn at a time", "See you", "Thanks!")
    while True:
        author = f"user-{chance.randrange(arguments.senders)}-{chance.randrange(arguments.users)}"
        room = djactor.actor("chat.room", f"room-{chance.randrange(arguments.rooms)}")
        room.send({"author": author, "text": chance.choice(greetings)})
        time.sleep(chance.uniform(0, 0.2))


def main() -> int:
    """Run the demo; the result is the exit status."""
    arguments = parse_arguments()
    folder = Path(__file__).resolve().parent
    with PrivateServer() as server, DjangoSite(folder, "chatsite", "CHAT_DB", server) as site:
        password = set_up_django(site)
        live = (
            f"  {site.url}/admin/djactor/actortype/live/\n"
            f"      the admin's live page; log in as operator, password {password}"
        )
        print(
            "A private PostgreSQL with djactor runs, and a Django site with it. To look at,"
            f" {'until Ctrl-C' if arguments.stay else 'as long as this lasts'}:\n{live}"
        )
        if not arguments.stay:
            print("  (make demo ARGS=--stay keeps it, and has a chat to take part in)")
        print()
        print(
            f"{arguments.senders} processes post {arguments.messages:,} messages to"
            f" {arguments.rooms} rooms. A post is two turns: the room's and its author's."
        )
        progress = Progress()
        sent = send_and_watch(arguments, progress)
        idle = wait_until_idle(arguments.timeout, len(sent.ids), progress)
        print_states()
        checks = Checks()
        check_books(sent, idle, checks)
        check_pages(site, password, sent, checks)
        if not checks.passed:
            print(f"\nThe server's log ends with\n{server.log_tail()}", file=sys.stderr)
        elif arguments.stay:
            # Not before: what a visitor says is not in the books.
            print(
                f"\nSome people go on chatting, until Ctrl-C. To look at:\n{live}\n  {site.url}/\n"
                "      the chat; join them",
                flush=True,
            )
            with suppress(KeyboardInterrupt):
                chat_until_interrupted(arguments)
            print()
    return 0 if checks.passed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted")
        sys.exit(130)
    except ServerError as error:
        sys.exit(f"demo: {error}")
