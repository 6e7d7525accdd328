"""What users of pytest-django write who run no migrations in their tests."""

import pytest

from djactor.test import define_types
from shop.pytest_suite import test_in_one_transaction, test_with_workers  # noqa: F401


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock():
        define_types()
