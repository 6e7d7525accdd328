"""Settings of the shop example.

The database is named by the environment.  On a server of your own: add djactor to
``shared_preload_libraries``, and name the database here.  Its owner needs no special
rights.
"""

import os
from datetime import timedelta
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "an example keeps no secrets"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = [
    "shop",
    "djactor",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "shopsite.urls"
ASGI_APPLICATION = "shopsite.asgi.application"
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("SHOP_DB_HOST", ""),
        "PORT": os.environ.get("SHOP_DB_PORT", ""),
        "NAME": os.environ.get("SHOP_DB_NAME", "shop"),
        "USER": os.environ.get("SHOP_DB_USER", ""),
        # Under ASGI each request is a thread of its own: without a pool, a connection of its own.
        # Lost ones are noticed, and new ones not long waited for.
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 10, "timeout": 2, "reconnect_timeout": 1}},
        "CONN_HEALTH_CHECKS": True,
    }
}

# Mail goes to files, if there is a place for them, and to the terminal of djactor_worker.
EMAIL_FILE_PATH = os.environ.get("SHOP_MAIL_DIR", "")
MAIL_TO = "filebased" if EMAIL_FILE_PATH else "console"
EMAIL_BACKEND = f"django.core.mail.backends.{MAIL_TO}.EmailBackend"
DEFAULT_FROM_EMAIL = "shop@example.org"

# The shop's own.
SHOP_BANK_URL = os.environ.get("SHOP_BANK_URL", "http://127.0.0.1:8010")
# An order that is not paid by then is given up ...
SHOP_DEADLINE = timedelta(seconds=float(os.environ.get("SHOP_DEADLINE", "60")))
# ... and what it has reserved goes back by then, whatever has become of the order.
SHOP_HOLD = timedelta(seconds=float(os.environ.get("SHOP_HOLD", "120")))

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
