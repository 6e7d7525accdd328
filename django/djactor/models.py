"""djactor's tables and views as unmanaged models.

Sending is creating a ``Message``, alone or with ``bulk_create()``; it is part of the
transaction at hand like any other insert, and so is seen by nobody before the commit.
Everything else is for reading, but for the few writes that djactor allows: the ``state`` of an
``Actor``, and deleting from ``DeadLetter``, ``Journal`` and ``Reply``.

The quotes inside ``db_table`` are meant: they name a table of another schema.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, TypeVar, cast

from asgiref.sync import sync_to_async
from django.db import connections, models, router, transaction

from djactor import cluster, conf, fields, schedules, tracing
from djactor.exceptions import DjactorError, MessageSent, StateChanged


def _written_in(row: models.Model) -> str:
    """The alias to write a row by: not always the one that it was read by, as of a replica."""
    if row._state.db is None:
        return str(conf.get("DATABASE"))
    return router.db_for_write(type(row), instance=row)


def _node_of(row: models.Model) -> str:
    """The alias to do something by that concerns one message: in a cluster that of its node."""
    return cluster.alias_of_row(row, _written_in(row))


class ActorQuerySet(models.QuerySet["Actor"]):
    """Actors; ``exclude()`` works across relations, too."""

    def __init__(self, model: Any = None, query: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, query or fields.ActorQuery(model), *args, **kwargs)


class Actor(models.Model):
    """An actor and its state, as of its last committed turn."""

    id = models.BigIntegerField(primary_key=True)
    actor_type = models.TextField()
    actor_key = fields.KeyField()
    state = models.JSONField(
        blank=True, encoder=fields.PayloadEncoder, decoder=fields.PayloadDecoder
    )
    state_version = models.IntegerField()
    status = models.TextField()
    paused = models.BooleanField()
    turns = models.BigIntegerField()
    failures = models.BigIntegerField()
    last_error = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    objects = ActorQuerySet.as_manager()

    class Meta:
        managed = False
        db_table = '"djactor"."actor"'
        # True in the database by other means (djactor.actor_identity); said here for joins.
        constraints = [
            models.UniqueConstraint(fields=["actor_type", "actor_key"], name="djactor_actor_key")
        ]

    def __str__(self) -> str:
        return f"{self.actor_type} {self.actor_key}"

    # The turns that it had when its state was read; None: created here, or read without them.
    _turns_read: int | None = None
    _forced = False

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Actor:
        """An actor that was read."""
        actor = super().from_db(*args, **kwargs)
        actor._turns_read = actor.__dict__.get("turns")
        return actor

    def refresh_from_db(
        self, using: str | None = None, fields: Iterable[str] | None = None, *args: Any, **kw: Any
    ) -> None:
        """Read it again; with the state always the turns, too, which say how old it is."""
        if fields is not None and "state" in fields:
            fields = {*fields, "turns"}
        super().refresh_from_db(using, fields, *args, **kw)
        if fields is None or "turns" in fields:
            self._turns_read = self.__dict__.get("turns")

    def save(self, *args: Any, force: bool = False, **kwargs: Any) -> None:
        """Write the state, the only column that may be changed by hand.

        Args:
            *args: As those of Django's ``save()``.
            force: Overwrite what turns have made of the state since it was read.
            **kwargs: As those of Django's ``save()``.

        Raises:
            StateChanged: The actor has had a turn since it was read, or was read without its
                turns, or has stopped.  Like any error of a save it ends an ``atomic()`` around it.
            DjactorError: The actor was not read from the database; an actor comes into being by
                its first message.
        """
        if self._state.adding:
            raise DjactorError("actors are not created by hand: send a message to the key")
        if self._turns_read is None and not force:
            raise StateChanged(
                f"the actor {self} was read without its turns, so nobody knows whether its state"
                " has changed since: read them, too, or save(force=True)"
            )
        kwargs["update_fields"] = ["state"]
        self._forced = force
        alias = kwargs.get("using") or _written_in(self)
        if cluster.on():
            kwargs["using"] = alias = cluster.alias_of_key(self.actor_key, alias)
        try:
            with cluster.writing("actor", alias):
                super().save(*args, **kwargs)
        finally:
            self._forced = False

    async def asave(self, *args: Any, force: bool = False, **kwargs: Any) -> None:
        """``save()`` for async code."""
        await sync_to_async(self.save)(*args, force=force, **kwargs)

    def _do_update(self, base_qs: Any, *args: Any) -> Any:
        as_read = base_qs if self._forced else base_qs.filter(turns=self._turns_read)
        updated = super()._do_update(as_read, *args)
        if not updated:
            raise StateChanged(
                f"the actor {self} has had turns since it was read, or has stopped:"
                " read it again, or save(force=True) if what they did may be overwritten"
            )
        return updated


# The plugin of Django's stubs takes a query set whose model comes later for one of any model, so
# ``bulk_create()`` cannot name Message.
_Sent = TypeVar("_Sent", bound=models.Model)


def _used(fields: Iterable[Any], messages: Collection[Any]) -> list[Any]:
    """Those of the columns of an INSERT that some message uses.

    Few messages have a coalesce key, or a trace that their sender has named.  The others are sent
    quicker without these, and by senders that have no right to them.
    """
    fields = [*fields]
    if any(message.__dict__.get("trace_id") is not None for message in messages):
        fields.append(Message._meta.get_field("trace_id"))
    seldom = {
        name
        for name in ("coalesce_key", "coalesce_mode", "coalesce_until")
        if all(getattr(message, name) is None for message in messages)
    }
    return [field for field in fields if field.attname not in seldom]


class MessageQuerySet(models.QuerySet["Message"]):
    """Messages; ``bulk_create()`` sends many at once."""

    def bulk_create(
        self,
        objs: Iterable[_Sent],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[_Sent]:
        """Send them all with one statement; afterwards each has what the server has given it.

        Args:
            objs: The messages.
            batch_size: How many one statement sends at most (default: all).
            ignore_conflicts: As that of Django's ``bulk_create()``; messages have no conflicts.
            update_conflicts: The same.
            update_fields: The same.
            unique_fields: The same.

        Raises:
            MailboxFull: A mailbox is full; none of these messages has been sent.
            UnknownActorType: Nobody has defined one of the types.
        """
        # Trace and time are those of the transaction, so they are asked for once: to have them
        # returned with each row would make sending 15 % slower.
        self._for_write = True
        with transaction.atomic(using=self.db, savepoint=False):
            sent: list[Any] = super().bulk_create(
                cast("Any", objs),
                batch_size,
                ignore_conflicts,
                update_conflicts,
                update_fields,
                unique_fields,
            )
            if sent:
                with connections[self.db].cursor() as cursor:
                    cursor.execute("SELECT djactor.current_trace(), now()")
                    told = dict(zip(("trace_id", "sent_at"), cursor.fetchone(), strict=True))
                written = Message._written | told
                for message in sent:
                    message._written = written
        return sent

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def _batched_insert(self, objs: Any, fields: Any, *args: Any, **kwargs: Any) -> Any:
        tracing.stamp(objs)
        with cluster.sending(self.db):
            return super()._batched_insert(objs, _used(fields, objs), *args, **kwargs)  # type: ignore[misc]


class Message(models.Model):
    """A message that waits.  Creating one sends it; the row is gone once it has been handled.

    One that was created, with ``bulk_create()`` too, has all its fields without another query:
    the row may be gone as soon as it is committed.
    """

    actor_type = models.TextField()
    actor_key = fields.KeyField()
    payload = models.JSONField(
        default=dict, blank=True, encoder=fields.PayloadEncoder, decoder=fields.PayloadDecoder
    )
    headers = models.JSONField(
        null=True, blank=True, encoder=fields.PayloadEncoder, decoder=fields.PayloadDecoder
    )
    priority = models.SmallIntegerField(default=0)
    deliver_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    idempotency_key = models.TextField(null=True, blank=True)
    wants_reply = models.BooleanField(default=False)
    coalesce_key = models.TextField(null=True, blank=True)
    coalesce_mode = models.TextField(null=True, blank=True)
    coalesce_until = models.DateTimeField(null=True, blank=True)

    in_reply_to = fields.ServerIntegerField(null=True)
    trace_id = fields.TraceField()
    kind = fields.ServerTextField()
    meta = fields.ServerJSONField(null=True, decoder=fields.PayloadDecoder)
    sender_type = fields.ServerTextField(null=True)
    sender_key = fields.ServerTextField(null=True)
    cause_id = fields.ServerIntegerField(null=True)
    attempts = fields.ServerIntegerField()
    put_offs = fields.ServerIntegerField()
    retry_at = fields.ServerDateTimeField(null=True)
    last_error = fields.ServerTextField(null=True)
    sent_at = fields.ServerDateTimeField()
    actor = fields.ActorRelation(related_name="messages")

    # What the server writes is the same for all messages that a client sends, but for the last two;
    # in a turn nothing is sent by way of Django.
    _written: dict[str, Any] = {
        "in_reply_to": None,
        "kind": "user",
        "meta": None,
        "sender_type": None,
        "sender_key": None,
        "cause_id": None,
        "attempts": 0,
        "put_offs": 0,
        "retry_at": None,
        "last_error": None,
        "trace_id": None,
        "sent_at": None,
    }

    objects = MessageQuerySet.as_manager()

    class Meta:
        managed = False
        db_table = '"djactor"."message"'

    def __str__(self) -> str:
        return f"{self.pk} to {self.actor_type} {self.actor_key}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Send it.

        Raises:
            MessageSent: The message has an id already.
            MailboxFull: The actor has as much mail as its type allows.
            UnknownActorType: Nobody has defined the type.
        """
        if self.pk is not None:
            raise MessageSent(
                f"message {self.pk} has been sent; a message cannot be changed, nor sent twice."
                " Create a new one, or cancel() this one."
            )
        super().save(*args, **kwargs)

    def _do_insert(
        self, manager: Any, using: str, fields: Any, returning_fields: Any, raw: bool
    ) -> Any:
        tracing.stamp([self])
        fields = _used(fields, [self])
        told = [self._meta.get_field(name) for name in ("trace_id", "sent_at")]
        with cluster.sending(using):
            rows = super()._do_insert(manager, using, fields, [*returning_fields, *told], raw)  # type: ignore[misc]
        self._written = self._written | dict(
            zip(("trace_id", "sent_at"), rows[0][-2:], strict=True)
        )
        return [row[:-2] for row in rows]

    def get_deferred_fields(self) -> set[str]:
        """Names of the fields that reading loads; of one that was created, none."""
        return set() if "_written" in self.__dict__ else super().get_deferred_fields()

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Refused.

        Raises:
            MessageSent: Always.
        """
        raise MessageSent("messages are not deleted: cancel() takes one back that still waits")

    def cancel(self, using: str | None = None, *, running: bool = False) -> bool:
        """Take it back.

        Args:
            using: Alias of the database (default: where routers have it written; in a cluster the
                node that its id names).
            running: Whether a turn that handles it is broken off; ``djactor.cancel()`` tells
                where the message was.

        Returns:
            Whether it was still there, to be taken back.
        """
        with connections[using or _node_of(self)].cursor() as cursor:
            if running:
                cursor.execute("SELECT djactor.cancel(%s, true) <> 'gone'", [self.pk])
            else:
                cursor.execute("SELECT djactor.cancel(%s)", [self.pk])
            return bool(cursor.fetchone()[0])


class _Kept(models.Model):
    """The columns that a message keeps in ``DeadLetter`` and ``Journal``."""

    id = models.BigIntegerField(primary_key=True)
    actor_type = models.TextField()
    actor_key = fields.KeyField()
    payload = models.JSONField(decoder=fields.PayloadDecoder)
    headers = models.JSONField(null=True, decoder=fields.PayloadDecoder)
    priority = models.SmallIntegerField()
    deliver_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    idempotency_key = models.TextField(null=True)
    wants_reply = models.BooleanField()
    in_reply_to = models.BigIntegerField(null=True)
    trace_id = models.UUIDField()
    kind = models.TextField()
    meta = models.JSONField(null=True, decoder=fields.PayloadDecoder)
    sender_type = models.TextField(null=True)
    sender_key = models.TextField(null=True)
    cause_id = models.BigIntegerField(null=True)
    attempts = models.IntegerField()
    retry_at = models.DateTimeField(null=True)
    last_error = models.TextField(null=True)
    sent_at = models.DateTimeField()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Refused.

        Raises:
            DjactorError: Always.
        """
        raise DjactorError(f"{self._meta.verbose_name} rows are written by djactor alone")


class DeadLetterQuerySet(models.QuerySet["DeadLetter"]):
    """Dead letters; in a cluster each is deleted on its node."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """Discard them.

        Returns:
            How many, as Django's ``delete()`` does.
        """
        if not cluster.on():
            return super().delete()
        deleted = sum(letter.delete()[0] for letter in self)
        return deleted, {self.model._meta.label: deleted}

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


_SAME: Any = object()  # the payload that a dead letter has


class DeadLetter(_Kept):
    """A message that was given up, and why."""

    reason = models.TextField()
    sqlstate = models.TextField(null=True)
    error = models.TextField(null=True)
    context = models.TextField(null=True)
    failed_at = models.DateTimeField()
    actor = fields.ActorRelation(related_name="dead_letters")

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        managed = False
        db_table = '"djactor"."dead_letter"'

    def __str__(self) -> str:
        return f"{self.pk} to {self.actor_type} {self.actor_key}: {self.reason}"

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """Discard it.

        Args:
            using: As that of ``Message.cancel()``.
            keep_parents: As that of Django's ``delete()``; it has no parents.

        Returns:
            How many were deleted, as Django's ``delete()`` does.
        """
        alias = using or _node_of(self)
        with cluster.writing("dead_letter", alias):
            return super().delete(alias, keep_parents)

    def redrive(self, using: str | None = None, *, payload: Any = _SAME) -> int:
        """Send it again, under the id it had.

        Args:
            using: As that of ``Message.cancel()``.
            payload: Another payload than it had, as that of ``send()``.

        Returns:
            That id.

        Raises:
            TypeError: For a payload that JSON cannot hold.
            ValueError: For NaN, an infinity or a cycle in the payload.
            DatabaseError: The role may not do it.
        """
        with connections[using or _node_of(self)].cursor() as cursor:
            if payload is _SAME:
                cursor.execute("SELECT djactor.redrive(%s)", [self.pk])
            else:
                text = fields.dump_payload(payload)
                cursor.execute("SELECT djactor.redrive(%s, %s::jsonb)", [self.pk, text])
            return int(cursor.fetchone()[0])


class Journal(_Kept):
    """A message that was handled, of a type that keeps a journal."""

    turn = models.BigIntegerField(null=True)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    outcome = models.TextField()
    reply = models.JSONField(null=True, decoder=fields.PayloadDecoder)
    worker_pid = models.IntegerField()
    actor = fields.ActorRelation(related_name="journal")

    class Meta:
        managed = False
        db_table = '"djactor"."journal"'
        verbose_name_plural = "journal"

    def __str__(self) -> str:
        return f"{self.pk} to {self.actor_type} {self.actor_key}: {self.outcome}"


class ActorType(models.Model):
    """A kind of actor; ``djactor.register()`` and ``DefineActorType`` write it.

    The handler is a function of the database.  For a hosted type, whose turns run in processes of
    Django, it is the dotted path of the class, or None.
    """

    name = models.TextField(primary_key=True)
    handler = models.TextField(null=True)
    hosted = models.BooleanField()
    stateless = models.BooleanField()
    owner = models.TextField()
    initial_state = models.JSONField(decoder=fields.PayloadDecoder)
    state_version = models.IntegerField()
    upgrade_handler = models.TextField(null=True)
    max_attempts = models.IntegerField()
    backoff = fields.IntervalField()
    backoff_max = fields.IntervalField()
    retry_order = models.TextField()
    on_exhausted = models.TextField()
    handler_timeout = fields.IntervalField()
    batch_size = models.IntegerField(null=True)
    concurrency = models.IntegerField(null=True)
    rate = models.TextField(null=True)
    rate_by = models.TextField(null=True)
    fair_by = models.TextField(null=True)
    mailbox_limit = models.IntegerField(null=True)
    on_full = models.TextField()
    breaker_failures = models.IntegerField(null=True)
    breaker_window = fields.IntervalField()
    journal = fields.IntervalField(null=True)
    idle_ttl = fields.IntervalField(null=True)
    wait_target = fields.IntervalField(null=True)
    settings = models.JSONField()
    paused = models.BooleanField()
    paused_reason = models.TextField(null=True)
    problem = models.TextField(null=True)

    class Meta:
        managed = False
        db_table = '"djactor"."actor_type"'

    def __str__(self) -> str:
        return self.name


class Reply(models.Model):
    """The answer to an ask from outside."""

    message_id = models.BigIntegerField(primary_key=True)
    payload = models.JSONField(null=True, decoder=fields.PayloadDecoder)
    error = models.JSONField(null=True, decoder=fields.PayloadDecoder)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = '"djactor"."reply"'
        verbose_name_plural = "replies"

    def __str__(self) -> str:
        return f"to {self.message_id}"


class Timer(models.Model):
    """A pending timer of an actor, with its rule as it was given.

    Of ``every``, ``cron`` and neither (it fires once) there is one.
    """

    pk = models.CompositePrimaryKey("actor_type", "actor_key", "name")
    actor_type = models.TextField()
    actor_key = fields.KeyField()
    name = models.TextField()
    due_at = models.DateTimeField()
    every = fields.IntervalField(null=True)
    anchor = models.DateTimeField(null=True)
    cron = models.TextField(null=True)
    time_zone = models.TextField(null=True)
    catch_up = models.TextField()
    payload = models.JSONField(decoder=fields.PayloadDecoder)
    message_id = models.BigIntegerField(null=True)
    paused_at = models.DateTimeField(null=True)
    last_fired_at = models.DateTimeField(null=True)
    last_outcome = models.TextField(null=True)

    class Meta:
        managed = False
        db_table = '"djactor"."timer"'

    def __str__(self) -> str:
        return f"{self.name} of {self.actor_type} {self.actor_key}"

    def next_times(self, count: int = 1, using: str | None = None) -> list[datetime]:
        """When it fires next.

        Args:
            count: How many times at most.
            using: Alias of the database (default: where it was read).

        Returns:
            The times, the soonest first; none while it is paused.
        """
        alias = using or self._state.db or conf.get("DATABASE")
        return schedules.next_times(alias, *self._named(), count)

    def run_now(self, using: str | None = None) -> int:
        """Have it fire now, even if it is paused; its rule stays as it is.

        Args:
            using: Alias of the database (default: where routers have it written).

        Returns:
            The id of the message.

        Raises:
            UnknownTimer: It is gone.
        """
        return int(schedules.call(using or _written_in(self), "run_now", *self._named()))

    def pause(self, using: str | None = None) -> None:
        """Keep it from firing until ``resume()``.

        Args:
            using: As that of ``run_now()``.

        Raises:
            UnknownTimer: It is gone.
        """
        schedules.call(using or _written_in(self), "pause", *self._named())

    def resume(self, using: str | None = None) -> None:
        """Have it go on with the next time of its rule.

        Args:
            using: As that of ``run_now()``.

        Raises:
            UnknownTimer: It is gone.
        """
        schedules.call(using or _written_in(self), "resume", *self._named())

    def unschedule(self, using: str | None = None) -> bool:
        """End it.

        Args:
            using: As that of ``run_now()``.

        Returns:
            Whether it was still there.
        """
        return bool(schedules.call(using or _written_in(self), "unschedule", *self._named()))

    def _named(self) -> tuple[str, str, str]:
        return self.actor_type, self.actor_key, self.name


class Mailbox(models.Model):
    """How much waits for an actor, for how long, and why if it was put off."""

    pk = models.CompositePrimaryKey("actor_type", "actor_key")
    actor_type = models.TextField()
    actor_key = fields.KeyField()
    depth = models.BigIntegerField()
    oldest_sent_at = models.DateTimeField()
    oldest_age = models.DurationField()
    put_offs = models.IntegerField()
    last_error = models.TextField(null=True)
    waits_for = models.TextField(null=True)
    waits_until = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = '"djactor"."mailbox"'
        verbose_name_plural = "mailboxes"

    def __str__(self) -> str:
        return f"{self.actor_type} {self.actor_key}: {self.depth}"


class Stat(models.Model):
    """What became of a type's messages since the server's start, from shared memory."""

    actor_type = models.TextField(primary_key=True)
    handled = models.BigIntegerField()
    failed = models.BigIntegerField()
    retried = models.BigIntegerField()
    dead = models.BigIntegerField()
    duplicates = models.BigIntegerField()
    expired = models.BigIntegerField()
    turns_per_second = models.FloatField()
    wait_p50 = models.DurationField(null=True)
    wait_p95 = models.DurationField(null=True)
    wait_p99 = models.DurationField(null=True)
    run_p50 = models.DurationField(null=True)
    run_p95 = models.DurationField(null=True)
    run_p99 = models.DurationField(null=True)
    since = models.DateTimeField(null=True)
    conflicts = models.BigIntegerField()
    batch_limit = models.IntegerField(null=True)
    worker_limit = models.IntegerField(null=True)
    coalesced = models.BigIntegerField()
    wait_target = models.DurationField(null=True)

    class Meta:
        managed = False
        db_table = '"djactor"."stat"'

    def __str__(self) -> str:
        return self.actor_type


class Worker(models.Model):
    """A live worker, and what it runs."""

    pid = models.IntegerField(primary_key=True)
    role = models.TextField()
    state = models.TextField()
    resident = models.BooleanField()
    actor_type = models.TextField(null=True)
    message_id = models.BigIntegerField(null=True)
    since = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = '"djactor"."worker"'

    def __str__(self) -> str:
        return f"{self.pid} {self.state}"


class Host(models.Model):
    """A live process outside the server that runs turns of hosted types: ``djactor_worker``."""

    id = models.BigIntegerField(primary_key=True)
    pid = models.IntegerField()
    role = models.TextField()
    name = models.TextField()
    version = models.TextField()
    types = fields.TextsField()
    claims = models.IntegerField()
    state = models.TextField()
    since = models.DateTimeField()
    lease_until = models.DateTimeField()

    class Meta:
        managed = False
        db_table = '"djactor"."host"'

    def __str__(self) -> str:
        return f"{self.name} {self.pid}".strip()
