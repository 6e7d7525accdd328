"""Fields of the unmanaged models: keys, payloads, and columns that only the server writes.

A ``Server...Field`` takes no part in an INSERT, so a sender's statement has few columns and
needs few rights.  Django knows such fields since it has generated columns, hence ``generated``.
Reading one never asks for a row that is not there: a message may be handled, and its row gone, as
soon as it is committed.  So the model has in ``_written`` what the server gives to each new row,
and an instance that was created gets one of its own, with what only the server knew.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from math import isinf
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FullResultSet, ObjectDoesNotExist, ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import NotSupportedError, models
from django.db.models.expressions import Col, Func
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor
from django.db.models.fields.related_lookups import RelatedIn
from django.db.models.fields.tuple_lookups import TupleIn
from django.db.models.functions import Collate
from django.db.models.lookups import Exact
from django.db.models.query_utils import DeferredAttribute
from django.db.models.sql import Query
from django.db.models.sql.datastructures import BaseTable
from django.db.models.sql.where import WhereNode

from djactor import messages
from djactor.options import Key

if TYPE_CHECKING:
    from django.db.models.expressions import Combinable


def normalise_key(key: Key) -> str:
    """An actor's key as djactor stores it: a str as it is, an int or a UUID in its usual form.

    Raises:
        TypeError: For anything else, bool included.
        ValueError: For a key that is empty or has more than 512 bytes in UTF-8.
    """
    if type(key) is str and key.isascii() and 1 <= len(key) <= 512:
        return key  # at once: bulk_create() comes here for each message
    if isinstance(key, bool) or not isinstance(key, str | int | uuid.UUID):
        raise TypeError(
            f"an actor's key is a str, an int or a UUID, not {type(key).__name__}: {key!r}"
        )
    text = str(key)
    if not 1 <= len(text.encode()) <= 512:
        raise ValueError(f"an actor's key has 1 to 512 bytes, not {len(text.encode())}")
    return text


class JSONNumber(Decimal):
    """A number in JSON that is too large for Python's.

    jsonb holds numbers of up to 131,072 digits.  Python converts no text of more than 4,300 digits
    to an int (``sys.set_int_max_str_digits``), and makes an infinity of a float beyond 1.8e308.
    ``PayloadEncoder`` writes it as the number that it was, unlike other Decimals.
    """


class PayloadDecoder(json.JSONDecoder):
    """Python's JSON decoder, which reads any number that jsonb can hold.

    Those that are too large for int and float become ``JSONNumber``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"parse_int": _integer, "parse_float": _float} | options)


def _integer(text: str) -> int | JSONNumber:
    try:
        return int(text)
    except ValueError:
        return JSONNumber(text)


def _float(text: str) -> float | JSONNumber:
    value = float(text)
    return JSONNumber(text) if isinf(value) else value


class PayloadEncoder(DjangoJSONEncoder):
    """Django's JSON encoder, which turns dates, UUIDs and Decimals into strings, and stricter.

    NaN and infinities, which PostgreSQL's jsonb refuses, are refused here.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"allow_nan": False})
        self._numbers: list[str] = []

    def encode(self, o: object) -> str:
        """The JSON text of an object; a typed message has the name of its type in it.

        Raises:
            TypeError: For an object that JSON has no word for.
            ValueError: For NaN, an infinity or a cycle.
        """
        if type(o) is not dict:
            o = messages.encode(o)
        return self._with_numbers(super().encode(o))

    def iterencode(self, o: object, _one_shot: bool = False) -> Iterator[str]:
        """The text in pieces; ``encode()`` takes all at once."""
        pieces = super().iterencode(o, _one_shot)
        return pieces if _one_shot else map(self._with_numbers, pieces)

    def _with_numbers(self, text: str) -> str:
        if not self._numbers:
            return text
        return re.sub(f'"{self._mark}([0-9]+)"', lambda m: self._numbers[int(m[1])], text)

    def default(self, o: object) -> Any:
        """An object that JSON can hold, instead of one that it cannot.

        Raises:
            TypeError: There is none.
        """
        if isinstance(o, JSONNumber):
            # Python's encoder takes no text for a number: a string stands for it meanwhile.
            if not self._numbers:
                self._mark = f"number {secrets.token_hex(16)} "
            self._numbers.append(str(o))
            return f"{self._mark}{len(self._numbers) - 1}"
        fields = messages.fields_of(o)
        if fields is not None:
            return fields
        try:
            return super().default(o)
        except TypeError as error:
            raise TypeError(
                f"a payload cannot hold {type(o).__name__}: {o!r}."
                " Convert it to what JSON knows; dates, UUIDs and Decimals become strings,"
                " dataclasses and pydantic models objects."
            ) from error


def dump_payload(payload: object) -> str:
    """The JSON text of a payload.

    Raises:
        TypeError: For an object that JSON has no word for.
        ValueError: For NaN, an infinity or a cycle.
    """
    return json.dumps(payload, cls=PayloadEncoder)


def load_payload(text: str) -> Any:
    """The object that a JSON text of the server means.

    Raises:
        ValueError: The text is not JSON.
    """
    return json.loads(text, cls=PayloadDecoder)


class KeyField(models.TextField):
    """An actor's key: takes int and UUID as well, in lookups too."""

    if TYPE_CHECKING:  # what the checker of Django's stubs lets a model's attribute be set to
        _pyi_private_set_type: Key | Combinable  # type: ignore[assignment]

    def get_prep_value(self, value: Any) -> Any:
        """The key as text; expressions pass."""
        if value is None or hasattr(value, "resolve_expression"):
            return value
        return normalise_key(value)

    def validate(self, value: Any, model_instance: Any) -> None:
        """Check a value, for forms and ``full_clean()``.

        Raises:
            ValidationError: The value cannot be a key.
        """
        super().validate(value, model_instance)
        try:
            self.get_prep_value(value)
        except (TypeError, ValueError) as error:
            raise ValidationError(str(error)) from error


class Interval(timedelta):
    """A span of time with months in it, which are no number of days; else it is a timedelta.

    ``str()`` has it as PostgreSQL keeps it, ``1 mon 2 days 03:00:00``.  As a timedelta it counts 30
    days for each month, which are in ``months``; ``rest`` is what there is besides.
    """

    months: int
    rest: timedelta

    @classmethod
    def of(cls, months: int, rest: timedelta) -> timedelta:
        """So many months and a rest; a plain timedelta if there are no months."""
        if months == 0:
            return rest
        sum_ = timedelta(days=30 * months) + rest
        span = cls(sum_.days, sum_.seconds, sum_.microseconds)
        span.months, span.rest = months, rest
        return span

    @classmethod
    def parse(cls, text: str) -> timedelta:
        """What ``to_char(..., INTERVAL_FORMAT)`` says."""
        years, months, days, hours, minutes, seconds, microseconds = map(int, text.split())
        rest = timedelta(
            days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=microseconds
        )
        return cls.of(12 * years + months, rest)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Interval.of, (self.months, self.rest))

    def __str__(self) -> str:
        years, months = divmod(abs(self.months), 12)
        sign = "-" if self.months < 0 else ""
        parts = [
            f"{sign}{number} {unit if number == 1 else unit + 's'}"
            for number, unit in ((years, "year"), (months, "mon"))
            if number
        ]
        return " ".join([*parts, *([str(self.rest)] if self.rest else [])])


INTERVAL_FORMAT = "YYYY MM DD HH24 MI SS US"


class IntervalField(models.DurationField):
    """A span of time of the server: a timedelta, and an ``Interval`` if it has months."""

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        """As text, since the driver would make 30 days of each month."""
        if compiler.query.subquery:
            return sql, params
        return f"to_char({sql}, '{INTERVAL_FORMAT}')", params

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """What ``select_format`` has made text of."""
        return Interval.parse(value) if isinstance(value, str) else value


class TextsField(models.Field):
    """A list of texts that the server writes.

    Django's ``ArrayField`` would want ``django.contrib.postgres`` in INSTALLED_APPS.
    """

    def db_type(self, connection: Any) -> str:
        """An array."""
        return "text[]"


class _OrNone(ForwardManyToOneDescriptor):
    """``product.counter`` is None, not an error, while the actor has had no turn yet.

    It is None, too, while the name of the actor is to be generated by the database.
    """

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        if (
            instance is not None
            and instance._state.adding
            and any(field.generated for field in self.field.local_related_fields)
        ):
            return None
        return super().__get__(instance, cls)

    def get_object(self, instance: models.Model) -> Any:
        try:
            return super().get_object(instance)
        except (ObjectDoesNotExist, TypeError, ValueError):  # the latter two: no key at all
            return None


class ActorRelation(models.ForeignObject):
    """From a model of yours to the ``Actor`` that two of its fields name: a join both ways.

    There is no constraint: the actor need not exist yet, and then the relation is None; such rows
    are found by ``<relation>__id__isnull=True``.  Fields that are the same in all rows, or follow
    from others, may be ``GeneratedField``.  Whatever collations the two have, names are compared
    byte by byte, as djactor does it.

    Args:
        actor_type: Name of the field with the actor's type.
        actor_key: Name of the field with its key, a ``KeyField``.
        **options: As those of Django's relations, such as ``related_name``, the way back from
            ``Actor``.
    """

    forward_related_accessor_class = _OrNone

    def __init__(
        self, actor_type: str = "actor_type", actor_key: str = "actor_key", **options: Any
    ) -> None:
        self.names = (actor_type, actor_key)
        options |= {
            "to": "djactor.Actor",
            "on_delete": models.DO_NOTHING,
            "from_fields": [actor_type, actor_key],
            "to_fields": ["actor_type", "actor_key"],
            "null": True,
            "blank": True,
        }
        super().__init__(**options)

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        """For migrations: the names of the two fields, and what else is not fixed."""
        name, path, _, options = super().deconstruct()
        for fixed in ("to", "on_delete", "from_fields", "to_fields", "null", "blank"):
            options.pop(fixed, None)
        return name, path, self.names, options

    def get_joining_fields(self, reverse_join: bool = False) -> tuple[Any, ...]:
        """None: the columns are compared by ``get_extra_restriction()``."""
        return ()

    def get_extra_restriction(self, alias: str | None, related_alias: str | None) -> Any:
        """The condition of a join, between ``Actor`` (``alias``) and the model it is a field of.

        Without ``alias`` it is a condition for a subquery that Django has made of ``exclude()``.
        """
        if alias is None:
            return _SameActor(self, related_alias)
        return _Joined(self, alias, related_alias)


# ``ActorRelation`` in SQL.  Two things are different from what Django does with a relation of two
# columns.  PostgreSQL compares no columns of two collations, so who compares them says which one.
# And an ``exclude()`` by the way back from an actor becomes a subquery, ``NOT EXISTS (...)``, that
# Django binds to the outer query by the first of the two columns, the type, alone: then it is bound
# by the second one, too, or refused.


def _has_collation(field: Any, connection: Any) -> bool:
    return field.db_parameters(connection).get("collation") not in (None, "C")


def _by_bytes(column: Any, field: Any, connection: Any) -> Any:
    """A column of that field, to be compared with one of djactor's."""
    return Collate(column, "C") if _has_collation(field, connection) else column


def _refuse_exclude(relation: ActorRelation) -> Any:
    model = relation.model._meta.object_name
    raise NotSupportedError(
        f"exclude() cannot be used here across the way from an actor to {model}: Django would"
        " compare the types of the actors alone. Look for the actors first: Actor.objects.filter("
        f"~Exists({model}.objects.filter({relation.name}__id=OuterRef('pk'), ...)))"
    )


class _Joined:
    """The condition of a join."""

    def __init__(self, relation: ActorRelation, actor: str, ours: str | None) -> None:
        self.relation, self.actor, self.ours = relation, actor, ours

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        query = compiler.query
        table = query.alias_map.get(self.actor)
        # Django has left out what leads to the actors, and bound them by their type
        if (
            isinstance(table, BaseTable)
            and query.model._meta.concrete_model is not self.relation.related_model
        ):
            _refuse_exclude(self.relation)
        conditions: list[Any] = []
        for ours, theirs in self.relation.related_fields:
            right, left = connection.ops.prepare_join_on_clause(self.actor, theirs, self.ours, ours)
            conditions.append(Exact(_by_bytes(left, ours, connection), right))
        return WhereNode(conditions).as_sql(compiler, connection)


class _SameActor(Exact):
    """In the subquery of an ``exclude()``: the key is that of the actor whose type is compared."""

    def __init__(self, relation: ActorRelation, alias: Any) -> None:
        self.relation = relation
        (type_, _), (key, _) = relation.related_fields
        super().__init__(key.get_col(alias), type_.get_col(alias))

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        (type_, their_type), (key, their_key) = self.relation.related_fields
        for bound in reversed(compiler.query.where.children):  # Django has added its own last
            if not isinstance(bound, Exact) or bound is self or bound.lhs != self.rhs:
                continue
            outer = bound.rhs
            if not isinstance(outer, Col):
                continue
            if outer.target != their_type or _has_collation(type_, connection):
                _refuse_exclude(self.relation)
            same = Exact(_by_bytes(self.lhs, key, connection), Col(outer.alias, their_key))
            return compiler.compile(same)
        raise FullResultSet  # bound by the primary key


@ActorRelation.register_lookup
class _OneOf(RelatedIn):
    """``counter__in=<query>``."""

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        ours = self.lhs.output_field.local_related_fields
        if self.rhs_is_direct_value() or not any(_has_collation(f, connection) for f in ours):
            return super().as_sql(compiler, connection)
        columns = tuple(
            _by_bytes(column, field, connection)
            for column, field in zip(self.lhs.get_cols(), ours, strict=True)
        )
        return compiler.compile(TupleIn(columns, self.rhs))


class ActorQuery(Query):
    """A query for actors."""

    def split_exclude(self, filter_expr: Any, can_reuse: Any, names_with_path: Any) -> Any:
        """As Django's; a subquery that has to have the actors in it is bound by their id."""
        reuse = (can_reuse or set()) | {self.get_initial_alias()}
        return super().split_exclude(filter_expr, reuse, names_with_path)


class _WithoutARow(DeferredAttribute):
    """What the server wrote: known to who has created the row, loaded from a row that was read.

    What ``only()`` or ``defer()`` has left out is None when the row is gone.
    """

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        if instance is not None and self.field.attname not in instance.__dict__:
            if "_written" in instance.__dict__ or instance.pk is None:
                return instance._written[self.field.attname]
            try:
                return super().__get__(instance, cls)
            except ObjectDoesNotExist:
                return None
        return super().__get__(instance, cls)


class _WrittenByServer:
    generated = True
    # Django 6.1 asks, for an UPDATE, which fields a generated one is computed from.
    referenced_fields: frozenset[models.Field[Any, Any]] = frozenset()
    descriptor_class: Any = _WithoutARow


class ServerTextField(_WrittenByServer, models.TextField):
    """Text that the server writes."""


class ServerJSONField(_WrittenByServer, models.JSONField):
    """JSON that the server writes."""


class ServerIntegerField(_WrittenByServer, models.BigIntegerField):
    """A number that the server writes."""


class ServerDateTimeField(_WrittenByServer, models.DateTimeField):
    """A time that the server writes."""


class ServerUUIDField(_WrittenByServer, models.UUIDField):
    """A UUID that the server writes."""


class TraceField(ServerUUIDField):
    """The trace of a message: that of its transaction or turn, unless its sender names another."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """What the sender has said, as a UUID, else what the server says.

        Raises:
            ValidationError: It is no UUID.
        """
        given = self.to_python(model_instance.__dict__.get(self.attname))
        if given is None:
            return Func(function="djactor.current_trace")
        setattr(model_instance, self.attname, given)
        return given
