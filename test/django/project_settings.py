"""Settings of the test project; SHOP_HOST names the server's socket directory."""

import os

SECRET_KEY = "tests keep no secrets"
INSTALLED_APPS = ["djactor", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("SHOP_HOST", "/nowhere"),
        "NAME": "shop",
        "USER": "shop",
    }
}
