"""Settings of the project whose tasks djactor runs; imported with Django 5.2 and 6."""

from datetime import timedelta

from project_settings import *  # noqa: F403

TASKS = {
    "default": {
        "BACKEND": "djactor.tasks.DjactorBackend",
        "QUEUES": ["default", "mail"],
    },
    "stubborn": {
        "BACKEND": "djactor.tasks.DjactorBackend",
        "QUEUES": ["stubborn"],
        "OPTIONS": {
            "max_attempts": 3,
            "backoff": timedelta(seconds=1),
            "handler_timeout": timedelta(seconds=20),
            "result_retention": timedelta(hours=2),
        },
    },
    "http": {
        "BACKEND": "djactor.tasks.DjactorBackend",
        "QUEUES": ["http"],
        "OPTIONS": {"async_queues": ["http"], "rate": "100000/s"},
    },
}
