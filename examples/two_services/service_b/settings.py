"""Service B handles notes, stores them and serves calls."""

import environ

env = environ.Env()
DEBUG = True
SECRET_KEY = "for a demonstration on one machine only"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "examples.two_services.service_b.urls"
INSTALLED_APPS = ["messaging", "examples.two_services.service_b"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {"default": env.db_url("SERVICE_B_DATABASE_URL")}
MESSAGING = {"URL": env.str("RABBITMQ_URL"), "APP_ID": "service-b"}
