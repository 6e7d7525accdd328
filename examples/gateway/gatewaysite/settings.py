"""Settings of the gateway example.

The database is named by the environment.  On a server of your own: add djactor to
``shared_preload_libraries``, and name the database here.  Its owner needs no special
rights.
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "an example keeps no secrets"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["gateway", "djactor", "django.contrib.staticfiles"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
ROOT_URLCONF = "gatewaysite.urls"
ASGI_APPLICATION = "gatewaysite.asgi.application"
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("GATEWAY_DB_HOST", ""),
        "PORT": os.environ.get("GATEWAY_DB_PORT", ""),
        "NAME": os.environ.get("GATEWAY_DB_NAME", "gateway"),
        "USER": os.environ.get("GATEWAY_DB_USER", ""),
        # Under ASGI each request is a thread of its own: without a pool, a connection of its own.
        # Lost ones are noticed, and new ones not long waited for.
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 10, "timeout": 2, "reconnect_timeout": 1}},
        "CONN_HEALTH_CHECKS": True,
    }
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
