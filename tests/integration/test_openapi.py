"""What the OpenAPI document describes can be sent, as its examples have it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.contrib.auth.models import User as Account

from messaging.operations import operation_id
from tests.support.openapi import document_of
from tests.support.processes import API

DOCUMENT = document_of("1", None)
WAIT = {"Prefer": "wait=5"}
JSON = "application/json"
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, method, operation in DOCUMENT.operations()
}
#: What may be sent for a parameter without an example.
VALUES: dict[str, Any] = {
    "apellido": "Doe",
    "email": "john@example.com",
    "format": "json",
    "search": "john",
    "Prefer": "wait=5",
    "Idempotency-Key": "una clave",
    "If-None-Match": '"3"',
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


class Stored:
    """A user, a report and an account, in place of those of the examples."""

    def __init__(self, api: API) -> None:
        self.api = api
        self.ids: dict[str, Any] = {}
        user = self.send("users_create", headers=WAIT).json()
        self.ids["user_id"] = user["user_id"]
        report = self.send("reports_create", headers=WAIT).json()
        self.ids["id_reporte"] = report["id_reporte"]
        never_sent = operation_id("6ba7b810-9dad-41d1-80b4-00c04fd430c8")
        self.ids["id"] = never_sent

    def send(self, name: str, **options: Any) -> requests.Response:
        """Send the example of an operation."""
        method, path, operation = OPERATIONS[name]
        if body := operation.get("requestBody"):
            example = dict(body["content"][JSON]["example"])
            if "refresh" in example:
                example = {"refresh": self.send("token_create").json()["refresh"]}
            if "id_usuario" in example:
                example["id_usuario"] = self.ids["user_id"]
            options["json"] = example
        path = re.sub(r"\{(\w+)\}", lambda match: str(self.ids[match[1]]), path)
        return self.api(method, path, **options)


@pytest.fixture
def stored(api: API, consumers: None) -> Stored:
    """What the examples are about."""
    Account.objects.create_user("admin", password="admin")
    return Stored(api)


def is_write(name: str) -> bool:
    """Return whether an operation is answered with 202."""
    return "202" in OPERATIONS[name][2]["responses"]


#: Reads first: a write may delete what they read. There is no file without a consumer
#: that makes it.
IN_ORDER = sorted((name for name in OPERATIONS if "file" not in name), key=is_write)


def test_each_example_of_a_request_is_accepted(stored: Stored) -> None:
    for name in IN_ORDER:
        answer = stored.send(name)

        assert answer.status_code == (202 if is_write(name) else 200), answer.text
        if is_write(name):
            example = example_of(OPERATIONS[name][2]["responses"]["202"])
            assert answer.json().keys() == example.keys()
            assert answer.json()["message"] == example["message"]


def example_of(response: dict[str, Any]) -> Any:
    """Return the example of the schema of an answer."""
    name = response["content"][JSON]["schema"]["$ref"].rpartition("/")[2]
    return DOCUMENT.content["components"]["schemas"][name]["example"]


@pytest.mark.parametrize("name", [name for name in IN_ORDER if is_write(name)])
def test_each_example_of_a_write_is_applied(stored: Stored, name: str) -> None:
    # The user of the example exists already.
    if name == "users_create":
        stored.api.delete(f"/users/{stored.ids['user_id']}/", headers=WAIT)

    answer = stored.send(name, headers=WAIT)

    assert answer.status_code in (200, 201, 204), answer.text
    assert answer.headers["Preference-Applied"] == "wait"


def test_each_parameter_is_accepted(stored: Stored) -> None:
    count = 0
    for name in IN_ORDER:
        for parameter in OPERATIONS[name][2].get("parameters", []):
            if parameter["in"] == "path" or parameter["name"] in ("cursor", "If-Match"):
                continue
            for value in values_of(parameter):
                place = "params" if parameter["in"] == "query" else "headers"
                answer = stored.send(name, **{place: {parameter["name"]: value}})
                # With `Prefer`, what was deleted before is not found.
                is_accepted = answer.ok or "Preference-Applied" in answer.headers
                assert is_accepted, (name, parameter["name"], answer.text)
                count += 1

    assert count > 50


def values_of(parameter: dict[str, Any]) -> list[Any]:
    """Return values that a parameter may have."""
    values = [parameter.get("example") or value_of(parameter)]
    return [*values, ""] if parameter.get("allowEmptyValue") else values


def value_of(parameter: dict[str, Any]) -> Any:
    """Return a value that a parameter may have."""
    schema = parameter["schema"]
    match schema["type"], schema.get("format"):
        case "array", _:
            return ",".join(schema["items"]["enum"])
        case "string", "date-time":
            return "2024-01-01T00:00:00Z"
        case "string", _:
            return VALUES[parameter["name"]]
    return max(schema.get("minimum", 1), 1)


def test_a_cursor_and_an_etag_are_accepted_where_they_came_from(stored: Stored) -> None:
    api = stored.api
    other = {"nombre": "Z", "apellido": "Z", "email": "z@example.com"}
    api.post("/users/", other, headers=WAIT)
    page = api.get("/users/?page_size=1").json()
    following = urlsplit(page["next"])

    answer = api.get(f"{following.path}?{following.query}")
    tag = api.get(f"/users/{stored.ids['user_id']}/").headers["ETag"]
    changed = stored.send("users_update", headers=WAIT | {"If-Match": tag})

    assert answer.status_code == 200
    assert [row["email"] for row in answer.json()["results"]] == ["z@example.com"]
    assert changed.status_code == 200


def test_the_document_is_served_as_it_is_written(api: API) -> None:
    answer = api.get("/api/schema/?format=json")

    assert answer.json() == DOCUMENT.content


def test_where_the_api_begins_links_to_all_else(api: API) -> None:
    links = api.get("/").json()

    assert {"users", "reports", "docs", "admin"} <= links.keys()
    assert {name for name, url in links.items() if is_broken(api, url)} == set()


def is_broken(api: API, url: str) -> bool:
    """Return whether nothing is served at an address of the API."""
    return not api.get(url.removeprefix(api.url)).ok
