"""
All settings.

Open `base.py` to see where they come from; `access.py`, `api.py`, `headers.py` and
`logs.py` have those of one subject each.
"""

from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from .access import *  # noqa: F403
from .api import *  # noqa: F403
from .base import *  # noqa: F403
from .base import BASE_DIR, DEBUG, IDEMPOTENCY_KEY, env
from .headers import *  # noqa: F403
from .logs import *  # noqa: F403

# A page elsewhere could give its own host name this machine's address.
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "csp",
    "django_filters",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "messaging",
    "users",
    "reports",
    "project",  # for its commands and static files
    "examples.tutorial",  # manage.py tutorial
]

MIDDLEWARE = [
    "messaging.logs.middleware.RequestMiddleware",
    "project.headers.safe_headers",
    "csp.middleware.CSPMiddleware",
    "project.hosts.known_host",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "project.middleware.throttle",
    "project.middleware.SameOrigin",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "project.languages.admin_language",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "project.pages.OutagePages",
    "axes.middleware.AxesMiddleware",  # answers who is locked out
]
CSRF_FAILURE_VIEW = "project.missing.csrf_failure"

# Pages and mails about errors, without secrets.
DEFAULT_EXCEPTION_REPORTER = "project.error_reports.Report"
DEFAULT_EXCEPTION_REPORTER_FILTER = "project.error_reports.Filter"

ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"
WSGI_APPLICATION = "project.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # First, so that they may extend those of apps under the same name.
        "DIRS": [BASE_DIR / "project" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

MONGODB_URL = env.str("MONGODB_URL", default="mongodb://127.0.0.1:27017/reports")
DATABASES = {
    "default": env.db_url(
        "DATABASE_URL", default="mysql://root@127.0.0.1:3306/messaging"
    ),
    "reports": {
        "ENGINE": env.str("MONGODB_ENGINE", default="django_mongodb_backend"),
        "HOST": MONGODB_URL,
        "NAME": urlsplit(MONGODB_URL).path.strip("/") or "reports",
        "OPTIONS": {
            # Milliseconds; a hung server must not hold a consumer past its stop.
            "serverSelectionTimeoutMS": 3000,
            "connectTimeoutMS": 3000,
            "socketTimeoutMS": 15000,
        },
        "TEST": {"DEPENDENCIES": []},
    },
}
if DATABASES["default"]["ENGINE"].endswith("mysql"):
    DATABASES["default"].setdefault("OPTIONS", {}).update(
        charset="utf8mb4",
        # Seconds; a hung server must not hold a consumer past its stop deadline.
        connect_timeout=5,
        read_timeout=15,
        write_timeout=15,
        # By default the server keeps the transaction of a client that vanishes, with
        # all its locks, for eight hours. A client that waits for a lock must give up
        # before its read times out, or its statement would continue without it.
        init_command="SET SESSION wait_timeout = 30, innodb_lock_wait_timeout = 10",
    )
DATABASES["default"]["CONN_MAX_AGE"] = 60
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DATABASE_ROUTERS = ["reports.router.ReportsRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Errors shown to people are in the language of the contract.
LANGUAGE_CODE = "es"
LANGUAGES = [("es", "español"), ("en", "English")]
# Before the catalogues of apps, Django's included.
LOCALE_PATHS = [BASE_DIR / "project" / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = "project.formats"

LOGIN_URL = "rest_framework:login"
LOGIN_REDIRECT_URL = "/"

SILENCED_SYSTEM_CHECKS = [
    # These concern other hosts of the domain, which this project does not know.
    "security.W005",  # HSTS for subdomains
    "security.W021",  # HSTS preloading
]

STATIC_URL = "static/"
#: Where `collectstatic` puts its files.
STATIC_ROOT = env.str("STATIC_ROOT", default="")
# No other user may enter `.local`.
STATIC_OPTIONS = {} if STATIC_ROOT else {"directory_permissions_mode": 0o700}
STATIC_ROOT = STATIC_ROOT or str(BASE_DIR / ".local" / "static")
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = DEBUG

#: Files of reports; API and consumers must share it.
MEDIA_ROOT = env.str("MEDIA_ROOT", default=str(BASE_DIR / ".local" / "media"))
STATIC_FILES = "django.contrib.staticfiles.storage.StaticFilesStorage"
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        # API and consumers must run as one user.
        "OPTIONS": {
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
    "staticfiles": {"BACKEND": STATIC_FILES, "OPTIONS": STATIC_OPTIONS},
}
#: Days for which `reports prune` keeps the files of reports, 0 as long as the report;
#: and e-mails that are files.
REPORT_FILE_DAYS = env.int("REPORT_FILE_DAYS", default=0)
MAIL_FILE_DAYS = env.int("MAIL_FILE_DAYS", default=7)
#: TrueType fonts of these files; a letter the first lacks is taken from the next.
REPORT_FONTS = env.list(
    "REPORT_FONTS", default=["/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"]
)
#: Seconds and megabytes of memory that the layout of one file may take.
REPORT_FILE_SECONDS = env.float("REPORT_FILE_SECONDS", default=10.0)
REPORT_FILE_MEGABYTES = env.int("REPORT_FILE_MEGABYTES", default=512)
# For development, files with the messages that would have been sent.
vars().update(
    env.email_url(
        "EMAIL_URL",
        default=f"filemail:///{BASE_DIR / '.local' / 'mail'}"
        if DEBUG
        else "smtp://localhost:25",
    )
)
#: Seconds for each answer of the mail server.
EMAIL_TIMEOUT = env.int("EMAIL_TIMEOUT", default=5)
#: E-mails about reports to one recipient, and of one author, on one day in UTC.
NOTIFICATIONS_PER_DAY = env.int("NOTIFICATIONS_PER_DAY", default=20)
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="reportes@localhost")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
#: Addresses to which `doctor --mail` writes.
ADMINS = [("", address) for address in env.list("ADMINS", default=[])]

#: Settings of messaging/conf.py as JSON, which override the following.
OF_MESSAGING = env.json("MESSAGING", default={})
if {"URL", "IDEMPOTENCY_KEY"} & OF_MESSAGING.keys():
    raise ImproperlyConfigured(
        "MESSAGING has URL or IDEMPOTENCY_KEY: set RABBITMQ_URL or IDEMPOTENCY_KEY."
    )
MESSAGING = {
    "ASYNCAPI_INFO": {"title": "Usuarios y reportes"},
    "URL": env.str("RABBITMQ_URL", default="amqp://guest:guest@127.0.0.1:5672/"),
    "CONFIRM_TIMEOUT": env.float("CONFIRM_TIMEOUT", default=5.0),
    "IDEMPOTENCY_KEY": IDEMPOTENCY_KEY,
    **OF_MESSAGING,
    "QUEUES": {
        "notifications_queue": {
            # E-mails should leave soon after a mail server is back.
            "RETRY_PAUSE": (0.5, 30.0),
            # Seconds; a server that answers byte by byte holds up the others so long.
            "TIME_LIMIT": 60.0,
            "ATTEMPTS_OF": {
                "messaging.exceptions.Retry": None,
                "messaging.exceptions.TimeLimitExceeded": 3,
                # Three hours or so: some servers take minutes to trust a sender.
                "smtplib.SMTPException": 500,
            },
        },
        **OF_MESSAGING.get("QUEUES", {}),
    },
}

#: By how much a penalty lowers an author's rating, which never falls below 0.
AUTHOR_PENALTY = env.float("AUTHOR_PENALTY", default=0.5)
#: Penalties of one author on one day, in UTC; what exceeds them changes no rating.
AUTHOR_PENALTIES_PER_DAY = env.int("AUTHOR_PENALTIES_PER_DAY", default=4)
#: What happens to the reports of a deleted user: "keep" or "anonymise".
DELETED_AUTHORS = env.str("DELETED_AUTHORS", default="keep")
if DELETED_AUTHORS not in ("keep", "anonymise"):
    raise ImproperlyConfigured('DELETED_AUTHORS must be "keep" or "anonymise".')
