"""A project with a schema for each tenant (django-tenants); SHOP_HOST names the server."""

import os

SECRET_KEY = "tests keep no secrets"
SHARED_APPS = ["django_tenants", "django.contrib.contenttypes", "firms", "djactor"]
TENANT_APPS = ["orders"]
INSTALLED_APPS = SHARED_APPS + TENANT_APPS
TENANT_MODEL = "firms.Firm"
TENANT_DOMAIN_MODEL = "firms.Domain"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "HOST": os.environ.get("SHOP_HOST", "/nowhere"),
        "NAME": "firms",
        "USER": "shop",
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
