"""The project's settings, as in production, with what fails."""

from project.settings import *  # noqa: F403 all of them
from project.settings import INSTALLED_APPS

ROOT_URLCONF = "tests.support.logged.urls"
INSTALLED_APPS = [*INSTALLED_APPS, "tests.support.logged"]
