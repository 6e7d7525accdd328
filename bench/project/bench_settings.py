"""Settings of the benchmarks' Django project, for djactor's hosts and rivals that use Django.

The environment says where the database is, whether djactor is one of the apps, and who runs tasks.
Connections stay open, as in any project that is tuned; nothing else differs from the defaults.
"""

import os

SECRET_KEY = "benchmarks keep no secrets"
INSTALLED_APPS = ["load", *(["djactor"] if "BENCH_DJACTOR" in os.environ else [])]
if "BENCH_TASKS" in os.environ:  # the backend of Django's tasks
    TASKS = {"default": {"BACKEND": os.environ["BENCH_TASKS"], "QUEUES": ["bench"]}}
    if "BENCH_DJACTOR" not in os.environ:
        INSTALLED_APPS += ["django_tasks", "django_tasks_db"]
if "BENCH_CELERY_RESULTS" in os.environ:
    INSTALLED_APPS += ["django_celery_results"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("BENCH_HOST", "/nowhere"),
        "NAME": os.environ.get("BENCH_DATABASE", "bench"),
        "USER": "bench",
        "CONN_MAX_AGE": None,
    }
}
