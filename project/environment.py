"""Reading settings from the environment and `.env`, without showing what they are."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import environ
from django.core.exceptions import ImproperlyConfigured

#: Lines of `.env` that set something or say nothing.
LINE = re.compile(r"(export )?\w+=.*|#.*|\s*", re.ASCII)
#: Between the URLs of several nodes.
SEVERAL = re.compile(r",(?=[\w+.-]+://)")
#: User and password of a URL, and its hosts.
URL = re.compile(r"([\w+.-]+://)(.*)@([\w.:,%\[\]-]*([/?].*)?)", re.DOTALL)
#: What stands before the path of a URL without a password.
HOSTS = re.compile(r"[\w.,-]*(:\d*)?(,[\w.-]+(:\d*)?)*|\[[\da-fA-F:]+\](:\d*)?")
#: Characters of a user and a password that mean themselves.
PLAIN = "!$&'()*,;=%-._~"
#: Options of the address of MySQL, and their names in mysqlclient's `ssl`.
TLS_FILES = {
    "ssl_ca": "ca",
    "ssl_capath": "capath",
    "ssl_cert": "cert",
    "ssl_key": "key",
}


class Environment(environ.Env):
    """
    Variables, each of which may have any value.

    environ takes a value that begins with "$" for the name of another variable, and
    shows it if there is none. No error of this class shows a value.

    `NAME_FILE` may name a file with the value of `NAME`, as Docker and Kubernetes
    mount secrets.
    """

    EMAIL_SCHEMES = environ.Env.EMAIL_SCHEMES | {
        "filemail": "project.private_files.EmailBackend"
    }

    def get_value(
        self,
        var: str,
        cast: Any = None,
        default: Any = environ.Env.NOTSET,
        parse_default: bool = False,
    ) -> Any:
        """Return a value, or the default if the variable is not set."""
        value = text_of(var)
        if value is None:
            return self.parse_value(default, cast) if parse_default else default
        if var.endswith("_URL"):
            value = ",".join(map(escaped, SEVERAL.split(value)))
        return read(var, lambda: self.parse_value(value, cast))

    def db_url(self, var: str, default: str, engine: str | None = None) -> Any:
        """Return the settings of a database, with TLS as mysqlclient expects it."""
        parse = super().db_url
        result = read(var, lambda: parse(var, default, engine))
        if result["ENGINE"].endswith("mysql"):
            secure(result.setdefault("OPTIONS", {}))
        return result

    def db_urls(self, var: str) -> list[dict[str, Any]]:
        """Return the settings of any number of databases, separated by commas."""
        urls = [escaped(url) for url in SEVERAL.split(text_of(var) or "") if url]
        several: list[dict[str, Any]]
        several = read(var, lambda: [self.db_url_config(url) for url in urls])
        for one in several:
            if one["ENGINE"].endswith("mysql"):
                secure(one.setdefault("OPTIONS", {}))
        return several

    def email_url(self, var: str, default: str, backend: str | None = None) -> Any:
        """Return the settings of a mail server."""
        parse = super().email_url
        return read(var, lambda: parse(var, default, backend))

    def read_file(self, path: Path) -> None:
        """Set the variables of a file that are not set yet."""
        try:
            text = path.read_text()
        except OSError:
            return
        lines = []
        for number, line in enumerate(text.splitlines(), 1):
            if LINE.fullmatch(line):
                lines.append(line)
                continue
            problem = f"Line {number} of {path} is ignored: it is not NAME=value."
            logging.getLogger(__name__).warning(problem)
        self.read_env(StringIO("\n".join(lines)))


def text_of(name: str) -> str | None:
    """Return a variable, or the text of the file that `NAME_FILE` names."""
    value, path = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if not path:
        return value
    if value:
        raise ImproperlyConfigured(f"{name} and {name}_FILE are both set: unset one.")
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
    raise ImproperlyConfigured(f"{name}_FILE cannot be read: {reason}.")


def secure(options: dict[str, Any]) -> None:
    """
    Pass files with certificates to mysqlclient, which must verify the server's.

    With files alone, Debian's client library takes the certificate of any host, and
    goes on without TLS if the server has none.
    """
    names = [name for name in options if name in TLS_FILES]
    if names:
        options["ssl"] = {TLS_FILES[name]: options.pop(name) for name in names}
        options.setdefault("ssl_mode", "VERIFY_IDENTITY")


def read(name: str, function: Callable[[], Any]) -> Any:
    """Return what a function makes of a variable; raise `ImproperlyConfigured`."""
    text_of(name)  # its own errors say more
    try:
        with warnings.catch_warnings():
            # They show the value.
            warnings.simplefilter("error")
            return function()
    except Exception:  # noqa: BLE001 its text and its traceback may have the value
        problem = f"{name} has a value that cannot be read: see .env.example."
    raise ImproperlyConfigured(problem)


def escaped(url: str) -> str:
    """
    Return a URL with a user and a password that are percent-encoded.

    A password may have been written as it is, with characters like # and /.
    """
    parts = URL.fullmatch(url)
    if parts is None:
        return url
    scheme, user, hosts = parts[1], parts[2], parts[3]
    before_path = re.split("[/?]", user, maxsplit=1)[0]
    if before_path != user and HOSTS.fullmatch(before_path):
        return url  # the @ is somewhere behind the hosts
    name, colon, password = user.partition(":")
    return f"{scheme}{_quoted(name)}{colon}{_quoted(password)}@{hosts}"


def _quoted(text: str) -> str:
    """Percent-encode what is not yet."""
    return re.sub("%(?![0-9a-fA-F]{2})", "%25", quote(text, safe=PLAIN))
