"""The OpenAPI document of the API, and whether answers are as it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any
from urllib.parse import urlsplit

import requests
from jsonschema import Draft202012Validator

from . import BASE

#: Headers that any answer over HTTP may have.
USUAL = {
    "connection", "content-length", "content-type", "content-language", "date",
    "server", "set-cookie", "transfer-encoding", "vary", "x-frame-options",
    "x-content-type-options", "referrer-policy", "cross-origin-opener-policy",
    "strict-transport-security", "content-security-policy", "permissions-policy",
    "cache-control",
}  # fmt: skip


@cache
def document_of(open_access: str, throttle: str | None) -> Document:
    """Return the document of an API with these settings."""
    settings = {"DEBUG": "1", "OPEN_ACCESS": open_access, "THROTTLE": throttle or ""}
    command = ("manage.py", "spectacular", "--format", "openapi-json")
    written = subprocess.run(
        [sys.executable, *command, "--fail-on-warn", "--validate"],
        cwd=BASE,
        env=os.environ | settings,
        check=True,
        capture_output=True,
    )
    return Document(json.loads(written.stdout))


class Document:
    """An OpenAPI document."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self._validators: dict[str, Draft202012Validator] = {}

    @cached_property
    def _paths(self) -> list[tuple[re.Pattern[str], dict[str, Any]]]:
        return [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), methods)
            for path, methods in self.content["paths"].items()
        ]

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield path, method and description of each operation."""
        for path, methods in self.content["paths"].items():
            for method, operation in methods.items():
                yield path, method.upper(), operation

    def check(self, answer: requests.Response) -> None:
        """Fail unless an answer to a request that is described is described, too."""
        method = str(answer.request.method)
        described = self._described(urlsplit(answer.url).path, method)
        is_redirect = 300 <= answer.status_code < 400 and answer.status_code != 304
        if described is None or is_redirect:
            return
        place = f"{method} {answer.url}: {answer.status_code}"
        responses = described["responses"]
        assert str(answer.status_code) in responses, f"{place} is not described"
        response = responses[str(answer.status_code)]
        headers = {name.lower() for name in answer.headers} - USUAL
        unknown = headers - {name.lower() for name in response.get("headers", {})}
        assert not unknown, f"{place} has headers {unknown}"
        if method != "HEAD" and answer.status_code not in (204, 304):
            self._check_body(place, response, answer)

    def _described(self, path: str, method: str) -> dict[str, Any] | None:
        for pattern, methods in self._paths:
            if pattern.fullmatch(path):
                name = "get" if method == "HEAD" else method.lower()
                found: dict[str, Any] | None = methods.get(name)
                return found
        return None

    def _check_body(
        self, place: str, response: dict[str, Any], answer: requests.Response
    ) -> None:
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        assert kind in response.get("content", {}), f"{place} is {kind!r}"
        if kind == "application/json":
            self.validate(response["content"][kind]["schema"], answer.json(), place)

    def validate(self, schema: dict[str, Any], value: Any, place: str) -> None:
        """Fail unless a value is valid by a schema of the document."""
        key = json.dumps(schema)
        if key not in self._validators:
            components = {"components": self.content["components"]}
            whole = {"allOf": [schema]} | components
            self._validators[key] = Draft202012Validator(whole)
        errors = [error.message for error in self._validators[key].iter_errors(value)]
        assert not errors, f"{place}: {errors}"
