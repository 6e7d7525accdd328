"""Settings of a project of users, whose app has hosted actors."""

from project_settings import *  # noqa: F403
from project_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "desk"]
