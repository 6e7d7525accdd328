"""django-tenants: a schema for each tenant, one djactor for all; see the manual's page."""

from pathlib import Path

from test_runners import run

TENANTS = Path(__file__).resolve().parent / "tenants"


def test_tenants_share_the_types_and_keep_their_tables_apart(project, monkeypatch):
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "settings")
    project.createdb("firms", owner="shop")
    run(project, "django", "migrate_schemas", "--shared", "-v0", folder=TENANTS)
    assert "tenants: ok" in run(project, "try_it", folder=TENANTS)
    project.sql("DROP DATABASE firms")
