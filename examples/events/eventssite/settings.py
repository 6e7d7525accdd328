"""Settings of the events example.

The database is named by the environment.  On a server of your own: add djactor to
``shared_preload_libraries``, and name the database here.  Its owner needs no special
rights.
"""

import os

SECRET_KEY = "an example keeps no secrets"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["events", "djactor", "django.contrib.staticfiles"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
ROOT_URLCONF = "eventssite.urls"
ASGI_APPLICATION = "eventssite.asgi.application"
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("EVENTS_DB_HOST", ""),
        "PORT": os.environ.get("EVENTS_DB_PORT", ""),
        "NAME": os.environ.get("EVENTS_DB_NAME", "events"),
        "USER": os.environ.get("EVENTS_DB_USER", ""),
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
