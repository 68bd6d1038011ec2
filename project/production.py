"""What must be set in production, where settings have no defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from .environment import SEVERAL, escaped

MAKE_ONE = "`openssl rand -base64 48` prints a strong one."
#: Bytes of the shortest key: as long as the digest of HMAC-SHA256.
SHORTEST_KEY = 32
#: Different characters of the shortest key; Django's own check asks for as many.
FEWEST_CHARACTERS = 5
#: Passwords that everybody tries first.
KNOWN = {"", "guest", "root", "admin", "password", "changeme", "secret"}
KNOWN_BY_ALL = "everybody knows its password"
#: What signs, and what recognises repeated requests.
KEYS = ("SECRET_KEY", "IDEMPOTENCY_KEY")
#: The servers, and an example of each address.
SERVERS = {
    "RABBITMQ_URL": "amqps://project:<password>@broker.example.com:5671/",
    "DATABASE_URL": "mysql://project:<password>@db.example.com:3306/messaging",
    "MONGODB_URL": "mongodb://project:<password>@mongo.example.com:27017/reports",
}
#: Further servers, if any.
OTHERS = "DATABASE_REPLICA_URL"
#: All that must be set, or must be strong if it is set.
EXAMINED = (
    *KEYS,
    "SECRET_KEY_FALLBACKS",
    "ALLOWED_HOSTS",
    *SERVERS,
    OTHERS,
    "CSRF_TRUSTED_ORIGINS",
    "EMAIL_URL",
)
#: Options by which a client shows a certificate instead; None for any value.
CERTIFICATES = {
    "tlscertificatekeyfile": None,
    "ssl_cert": None,
    "authmechanism": "mongodb-x509",
    "auth_mechanism": "external",
}


def problems(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each setting that is missing or weak, and how to set it."""
    for name in KEYS:
        yield from _problems_of_key(name, environment.get(name, ""))
    if environment.get("SECRET_KEY") == environment.get("IDEMPOTENCY_KEY") != "":
        yield f"IDEMPOTENCY_KEY is weak: it is the SECRET_KEY. {MAKE_ONE}"
    for key in filter(None, environment.get("SECRET_KEY_FALLBACKS", "").split(",")):
        yield from _problems_of_key("SECRET_KEY_FALLBACKS", key)
    hosts = environment.get("ALLOWED_HOSTS", "").replace(" ", "").split(",")
    if not any(hosts):
        yield "ALLOWED_HOSTS is missing: names of the API's host, like api.example.com."
    elif "*" in hosts:
        yield "ALLOWED_HOSTS is weak: it allows every host."
    for name in (*SERVERS, OTHERS):
        url = environment.get(name, "")
        weak = {weakness_of(escaped(one)) for one in SEVERAL.split(url) if one} - {""}
        if weak:
            yield f"{name} is weak: {min(weak)}."
        elif not url and name in SERVERS:
            yield f"{name} is missing: an address like {SERVERS[name]}"
    if "*" in environment.get("CSRF_TRUSTED_ORIGINS", ""):
        yield "CSRF_TRUSTED_ORIGINS is weak: it has a wildcard. Name each origin."
    # Without a password it may be a server that asks for none.
    if weakness_of(escaped(environment.get("EMAIL_URL", ""))) == KNOWN_BY_ALL:
        yield f"EMAIL_URL is weak: {KNOWN_BY_ALL}."


def _problems_of_key(name: str, key: str) -> Iterator[str]:
    if not key:
        yield (
            f"There is no {name}. To try the project, run `make run`; to set it up, "
            "copy .env.example to .env and fill it in."
        )
    elif len(key.encode()) < SHORTEST_KEY:
        yield f"{name} is weak: it has less than {SHORTEST_KEY} bytes. {MAKE_ONE}"
    elif len(set(key)) < FEWEST_CHARACTERS or "insecure" in key:
        yield f"{name} is weak: anyone could guess it. {MAKE_ONE}"


def weakness_of(url: str) -> str:
    """Return why strangers could log in to a server; "" if they could not."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""  # its own client explains it better
    credentials, _, host = parts.netloc.rpartition("@")
    user, _, password = (unquote(one) for one in credentials.partition(":"))
    options = {name.lower(): value.lower() for name, value in parse_qsl(parts.query)}
    if (
        parts.scheme.startswith("sqlite")
        # A Unix socket, whose folder decides who comes in.
        or host.lower().startswith("%2f")
        or any(
            name in options and value in (None, options[name])
            for name, value in CERTIFICATES.items()
        )
    ):
        return ""
    if not password:
        return "it has no password"
    if password.lower() in KNOWN or password == user:
        return KNOWN_BY_ALL
    return ""
