"""Settings for Django's own tests (tests/runtests.py), on the server of peers.py."""

import os

_SERVER = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": os.environ["DJACTOR_PEERS_HOST"],
    "PORT": os.environ["DJACTOR_PEERS_PORT"],
    "USER": os.environ["DJACTOR_PEERS_USER"],
}
DATABASES = {
    "default": {**_SERVER, "NAME": "django"},
    "other": {**_SERVER, "NAME": "django_other"},
}
SECRET_KEY = "known to everybody"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "django_recorder.Recorder"
