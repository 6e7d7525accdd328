"""Settings of the chat example, as small as Django lets them be.

The database is named by the environment, so that the demo can point them at
the private server that it starts.  On a server of your own: add djactor to
``shared_preload_libraries``, and name the database here.  Its owner needs no
special rights.
"""

import os

SECRET_KEY = "an example keeps no secrets"
INSTALLED_APPS = ["chat"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("CHAT_DB_HOST", ""),
        "PORT": os.environ.get("CHAT_DB_PORT", ""),
        "NAME": os.environ.get("CHAT_DB_NAME", "chat"),
        "USER": os.environ.get("CHAT_DB_USER", ""),
    }
}
