"""djactor's backend as the tests of other backends expect theirs: see test_tasks_suites.py."""

from django.db import connection
from django.test import SimpleTestCase, TestCase

from djactor.models import DeadLetter, Journal, Message
from djactor.tasks import DjactorBackend
from djactor.test import drain, reset


class Queued(DjactorBackend):
    """Instead of the dummy: what was enqueued can be listed."""

    @property
    def results(self):
        ids = Message.objects.order_by("pk").values_list("pk", flat=True)
        return [self.get_result(str(pk)) for pk in ids]

    def clear(self):
        for message in Message.objects.all():
            message.cancel()


class Drained(DjactorBackend):
    """Instead of the immediate one: runs a task when it was enqueued."""

    def enqueue(self, task, args, kwargs):
        result = super().enqueue(task, args, kwargs)
        drain(on_error="retry")
        result.refresh()
        return result


class InTransaction(TestCase):
    """Instead of SimpleTestCase, which may not use a database."""

    databases = {"default"}


class Committing(SimpleTestCase):
    """Instead of TransactionTestCase, whose flush does not know this project's fixtures."""

    databases = {"default"}

    def _fixture_setup(self):
        pass

    def tearDown(self):
        super().tearDown()
        reset()


class _Rows:
    """A query set of the results of django-tasks-db, as far as its tests ask for it."""

    def __init__(self, *places):
        self.places = places

    def count(self):
        return sum(place() for place in self.places)

    def exists(self):
        return self.count() > 0


def _ready():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM djactor.message WHERE deliver_at IS NULL OR deliver_at <= now()"
        )
        return cursor.fetchone()[0]


class _Manager(_Rows):
    def __init__(self):
        super().__init__(Message.objects.count, Journal.objects.count, DeadLetter.objects.count)

    def ready(self):
        return _Rows(_ready)

    def successful(self):
        return _Rows(Journal.objects.count)

    def failed(self):
        return _Rows(DeadLetter.objects.count)

    def finished(self):
        return _Rows(Journal.objects.count, DeadLetter.objects.count)


class Results:
    """Instead of the model of django-tasks-db."""

    objects = _Manager()


def run_worker(**options):
    """Instead of its command."""
    drain(max=options.get("max_tasks"), on_error="retry")
