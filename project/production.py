"""What must be set in production, where settings have no defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from urllib.parse import parse_qs, unquote, urlsplit

from django.contrib.auth.password_validation import CommonPasswordValidator

from .environment import escaped

MAKE_ONE = "`openssl rand -base64 48` prints a strong one."
#: Bytes of the shortest key: as long as the digest of HMAC-SHA256.
SHORTEST_KEY = 32
#: Different characters of the shortest key; Django's own check asks for as many.
FEWEST_CHARACTERS = 5
#: Characters of the longest text that is no key if it is repeated.
LONGEST_REPEATED = 10
#: Words of keys that are to be replaced.
PLACEHOLDERS = ("insecure", "changeme", "change-me", "password")
#: Passwords that everybody tries first, beside the 20,000 that Django knows.
KNOWN = {"", "toor", "mysql", "mariadb", "rabbitmq", "mongo", "mongodb"}
#: What surrounds a password by mistake, or the place for one in an example.
AROUND = " \t\r\n\"'<>[]{}"
#: A variable that nothing has replaced by its value.
VARIABLE = re.compile(r"\$\{\w+\}|\$\(\w+\)|%\(\w+\)s|\{\{.*\}\}")
#: Between several addresses; whatever may be meant to be.
NEXT_ADDRESS = re.compile(r"[,;\s]+(?=[\w+.-]+://)")
KNOWN_BY_ALL = "everybody knows its password"
#: What signs, and what recognises repeated requests.
KEYS = ("SECRET_KEY", "IDEMPOTENCY_KEY")
#: The servers, and an example of each address.
SERVERS = {
    "RABBITMQ_URL": "amqps://project:<password>@broker.example.com:5671/",
    "DATABASE_URL": "mysql://project:<password>@db.example.com:3306/messaging",
    "MONGODB_URL": "mongodb://project:<password>@mongo.example.com:27017/reports",
}
#: All that must be strong if it is set; some must be set.
EXAMINED = (
    *KEYS,
    "SECRET_KEY_FALLBACKS",
    "ALLOWED_HOSTS",
    *SERVERS,
    "CSRF_TRUSTED_ORIGINS",
    "EMAIL_URL",
)
#: Options by which a client shows a certificate instead, by the scheme of the address;
#: None for any value. Those of another server are ignored, or mean nothing.
CERTIFICATES: Mapping[str, Mapping[str, str | None]] = {
    "amqps": {"auth_mechanism": "external"},
    "mysql": {"ssl_cert": None},
    "mongodb": {"tlscertificatekeyfile": None, "authmechanism": "mongodb-x509"},
}


def problems(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each setting that is missing or weak, and how to set it."""
    for name in KEYS:
        yield from _problems_of_key(name, environment.get(name, ""))
    former = environment.get("SECRET_KEY_FALLBACKS", "").split(",")
    for key in filter(None, former):
        yield from _problems_of_key("SECRET_KEY_FALLBACKS", key)
    signing = {key.strip() for key in (environment.get("SECRET_KEY", ""), *former)}
    if environment.get("IDEMPOTENCY_KEY", "").strip() in signing - {""}:
        yield f"IDEMPOTENCY_KEY is weak: it is a SECRET_KEY, too. {MAKE_ONE}"
    hosts = environment.get("ALLOWED_HOSTS", "").replace(" ", "").split(",")
    if not any(hosts):
        yield "ALLOWED_HOSTS is missing: names of the API's host, like api.example.com."
    elif any("*" in one or re.fullmatch(r"\.[^.]*", one) for one in hosts):
        yield "ALLOWED_HOSTS is weak: it allows hosts of others. Name your own."
    for name, example in SERVERS.items():
        url = environment.get(name, "")
        if not url:
            yield f"{name} is missing: an address like {example}"
            continue
        weak = {weakness_of(escaped(one)) for one in NEXT_ADDRESS.split(url)} - {""}
        if weak:
            yield f"{name} is weak: {min(weak)}."
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
    elif (
        len(set(key)) < FEWEST_CHARACTERS
        or any(
            (key[:n] * len(key)).startswith(key) for n in range(1, LONGEST_REPEATED + 1)
        )
        or any(word in key.lower() for word in PLACEHOLDERS)
    ):
        yield f"{name} is weak: anyone could guess it. {MAKE_ONE}"


def weakness_of(url: str) -> str:
    """Return why strangers could log in to a server; "" if they could not."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""  # its own client explains it better
    credentials, _, host = parts.netloc.rpartition("@")
    user, _, password = (unquote(one) for one in credentials.partition(":"))
    if (
        parts.scheme.startswith("sqlite")
        # Unix sockets, whose folders decide who comes in.
        or all(one.lower().startswith("%2f") for one in host.split(","))
        or has_certificate(parts.scheme, parts.query)
    ):
        return ""
    if not password:
        return "it has no password"
    bare = password.strip(AROUND).lower()
    if (
        VARIABLE.fullmatch(password)
        or bare in KNOWN | {user.lower()}
        or bare in common_passwords()
    ):
        return KNOWN_BY_ALL
    return ""


def has_certificate(scheme: str, query: str) -> bool:
    """Return whether options say that a client shows a certificate to log in."""
    options = parse_qs(query.lower())  # an option may be there twice
    certificates = CERTIFICATES.get(scheme.removesuffix("+srv"), {})
    return any(
        name in options and (value is None or set(options[name]) == {value})
        for name, value in certificates.items()
    )


@cache
def common_passwords() -> set[str]:
    """Return the passwords that Django refuses for accounts, in lower case."""
    return CommonPasswordValidator().passwords
