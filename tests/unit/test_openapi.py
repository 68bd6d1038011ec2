"""The OpenAPI document is valid, in Spanish, and names all that views may answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import patched_settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from rest_framework.routers import SimpleRouter

from messaging.rest_framework.openapi import QueuedAutoSchema
from tests.support.odd_viewsets import Burst, Notes
from tests.support.openapi import document_of
from users.models import User
from users.serializers import UserSerializer

OPEN = document_of("1", None)
#: As in production, with a limit of requests.
CLOSED = document_of("0", "10/min")
ENGLISH = re.compile(r"\b(the|this|that|is|are|of|and|with|not|must|for|a)\b", re.I)

READ = {"200", "400", "401", "403", "406", "429", "503"}
WRITE = READ - {"200"} | {"202", "408", "413", "415", "422"}
#: All answers of each operation.
ANSWERS = {
    "GET /": READ,
    "GET /users/": READ,
    "GET /users/{user_id}/": READ | {"304", "404"},
    "POST /users/": WRITE | {"201", "409"},
    "PUT /users/{user_id}/": WRITE | {"200", "404", "409", "412"},
    "PATCH /users/{user_id}/": WRITE | {"200", "404", "409", "412"},
    "DELETE /users/{user_id}/": WRITE | {"200", "204", "404", "412"},
    "GET /reports/": READ,
    "GET /reports/{id_reporte}/": READ | {"304", "404"},
    "GET /reports/{id_reporte}/file/": READ - {"406"} | {"404"},
    "POST /reports/": WRITE | {"201", "409"},
    "PATCH /reports/{id_reporte}/": WRITE | {"200", "404", "412"},
    "DELETE /reports/{id_reporte}/": WRITE | {"200", "204", "404", "412"},
    "POST /token/": READ | {"408", "413", "415"},
    "POST /token/refresh/": READ | {"408", "413", "415"},
    "GET /operations/{id}/": {"200", "400", "404", "410", "429", "503"},
    "GET /health/live": {"200"},
    "GET /health/ready": {"200", "503"},
    "GET /metrics": READ - {"406"},
}


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each operation of a closed API by its request line."""
    for path, method, operation in CLOSED.operations():
        yield f"{method} {path}", operation


def texts(part: Any) -> Iterator[str]:
    """Yield all summaries and descriptions of a part of a document."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name in ("summary", "description") and isinstance(value, str):
                yield value
            else:
                yield from texts(value)
    elif isinstance(part, list):
        for value in part:
            yield from texts(value)


@pytest.mark.parametrize("document", [OPEN, CLOSED], ids=["open", "closed"])
def test_the_document_is_valid(document: Any) -> None:
    assert document.content["openapi"].startswith("3.1")

    OpenAPIV31SpecValidator(document.content).validate()


def test_each_answer_of_each_operation_is_described() -> None:
    described = {name: set(one["responses"]) for name, one in operations()}

    assert described == ANSWERS


def test_who_may_write_without_a_token_is_not_asked_for_one() -> None:
    described = {
        status
        for path, _method, one in OPEN.operations()
        for status in one["responses"]
        if not path.startswith("/token/")
    }

    assert not described & {"401", "429"}
    assert "jwtAuth" not in str(OPEN.content)


def test_the_roles_of_each_action_are_described() -> None:
    found = {
        name: set(one["x-roles"]) for name, one in operations() if "x-roles" in one
    }

    assert found["POST /users/"] == {"editor"}
    assert found["DELETE /reports/{id_reporte}/"] == {"moderator"}
    assert found["GET /users/"] == {"reader", "editor", "moderator"}
    assert found["GET /metrics"] == {"operator"}
    public = {name for name, _ in operations()} - found.keys()
    assert public == {
        "POST /token/",
        "POST /token/refresh/",
        "GET /operations/{id}/",
        "GET /health/live",
        "GET /health/ready",
    }
    for name, one in operations():
        for role in one.get("x-roles", ()):
            assert f"`{role}`" in one["description"], name


def test_all_texts_are_in_spanish() -> None:
    found = set(texts(CLOSED.content))

    assert len(found) > 60
    assert {text for text in found if ENGLISH.search(text.replace(" a ", " "))} == set()


def test_each_operation_has_a_summary_and_all_that_it_reads_a_text() -> None:
    for name, operation in operations():
        assert operation["summary"], name
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (name, parameter["name"])
        for answer in operation["responses"].values():
            assert answer["description"], name


def test_each_example_is_valid_by_its_schema() -> None:
    count = 0
    for name, operation in operations():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for media in body.get("content", {}).values():
                if "example" in media:
                    count += 1
                    CLOSED.validate(media["schema"], media["example"], name)
    for name, schema in CLOSED.content["components"]["schemas"].items():
        if "example" in schema:
            count += 1
            CLOSED.validate(schema, schema["example"], name)

    assert count > 100


def test_what_answers_202_says_is_what_the_contract_says() -> None:
    schemas = CLOSED.content["components"]["schemas"]
    examples = {
        name: schema["example"]
        for name, schema in schemas.items()
        if name.endswith("Accepted")
    }

    assert len(examples) == 6
    assert examples["UserCreateAccepted"] == {
        "status": "queued",
        "message": "Usuario enviado a cola para procesamiento",
        "email": "john@example.com",
    }


def test_limits_of_fields_are_those_of_the_messages() -> None:
    schemas = CLOSED.content["components"]["schemas"]
    created, changed = schemas["UserCreate"], schemas["UserUpdate"]["properties"]

    assert created["required"] == ["nombre", "apellido", "email"]
    assert created["properties"]["nombre"]["maxLength"] == 100
    assert changed["biografia"]["type"] == ["string", "null"]
    assert changed["biografia"]["maxLength"] == 5000
    assert "calificacion" not in changed
    visibility = schemas["ReportVisibility"]["properties"]["visibilidad"]
    limits = {"type": "number", "minimum": 0, "maximum": 1000}
    assert visibility.items() >= limits.items()


class PublicNotes(Notes):
    """Notes that can be read, too, in any order."""

    queryset = User.objects.all()
    serializer_class = UserSerializer
    throttle_classes = [Burst]
    schema = QueuedAutoSchema()


def test_a_viewset_of_another_project_is_described() -> None:
    router = SimpleRouter()
    router.register("notes", PublicNotes, basename="notes")
    hook = "messaging.rest_framework.openapi.add_operations"

    with patched_settings({"POSTPROCESSING_HOOKS": [hook]}):
        document = SchemaGenerator(patterns=router.urls).get_schema(public=True)

    OpenAPIV31SpecValidator(document).validate()
    saved = document["paths"]["/notes/"]["post"]
    assert {"201", "202", "400", "422", "503"} <= saved["responses"].keys()
    assert {"401", "403"}.isdisjoint(saved["responses"])
    assert "Retry-After" in saved["responses"]["429"]["headers"]
    assert document["components"]["schemas"]["Note"]["required"] == ["text"]
    read = document["paths"]["/notes/"]["get"]["parameters"]
    assert {"ordering", "page_size", "format"} <= {one["name"] for one in read}
