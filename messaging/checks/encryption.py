"""Whether connections to databases and mail servers are encrypted, and to whom."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

#: Options of MongoDB that accept a server which cannot prove who it is.
UNSAFE = ("tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames")


def is_local(host: str) -> bool:
    """Whether a host is this machine: a Unix socket, or a loopback address."""
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def problem_of(vendor: str, values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what is wrong with the settings of a database, and the remedy."""
    host, options = str(values.get("HOST") or ""), values.get("OPTIONS") or {}
    if vendor == "mongodb":
        return _of_mongodb(host, options)
    if vendor not in REMEDIES or is_local(host):
        return None
    option, best, encrypted, remedy = REMEDIES[vendor]
    mode = options.get(option)
    if mode == best:
        return None
    problem = UNVERIFIED if mode in encrypted else PLAIN
    return problem, remedy


def is_plain_mail(settings: Any) -> bool:
    """Whether Django sends e-mails to another host without TLS."""
    is_smtp = settings.EMAIL_BACKEND == "django.core.mail.backends.smtp.EmailBackend"
    is_encrypted = settings.EMAIL_USE_TLS or settings.EMAIL_USE_SSL
    return is_smtp and not (is_encrypted or is_local(settings.EMAIL_HOST))


PLAIN = "it need not be encrypted"
UNVERIFIED = "any server may pretend to be this one"
#: By kind of database the option, its value that verifies the name in a certificate,
#: those that only encrypt, and the remedy.
REMEDIES = {
    "mysql": (
        "ssl_mode",
        "VERIFY_IDENTITY",
        ("REQUIRED", "VERIFY_CA"),
        "Set ssl_mode to VERIFY_IDENTITY, and ca in ssl",
    ),
    "postgresql": (
        "sslmode",
        "verify-full",
        ("require", "verify-ca"),
        "Set sslmode to verify-full and sslrootcert",
    ),
}


def _of_mongodb(host: str, options: Mapping[str, Any]) -> tuple[str, str] | None:
    url = urlsplit(host if "://" in host else f"mongodb://{host}")
    # The options of the dictionary win.
    given = dict(parse_qsl(url.query)) | {k: str(v) for k, v in options.items()}
    chosen = {name.lower(): value.lower() for name, value in given.items()}
    with_srv = "true" if url.scheme == "mongodb+srv" else "false"
    hosts = url.netloc.rpartition("@")[2].split(",")
    if all(is_local(_without_port(one)) for one in hosts):
        return None
    if "true" not in (chosen.get("tls", with_srv), chosen.get("ssl")):
        return PLAIN, "Set tls=true and tlsCAFile"
    if any(chosen.get(name) == "true" for name in UNSAFE):
        return UNVERIFIED, f"Remove {', '.join(UNSAFE)}"
    return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return unquote(host.partition(":")[0])
