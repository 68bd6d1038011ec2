"""What the OpenAPI document of this project says beside what its views do."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from messaging.rest_framework.answers import answer, error_answer
from messaging.rest_framework.described import JSON, Schema, closed, ref
from messaging.rest_framework.openapi import QueuedAutoSchema

from .access import PERSONAL, roles_for

USER = {
    "nombre": "John",
    "apellido": "Doe",
    "email": "john@example.com",
    "fecha_nacimiento": "1990-01-01T00:00:00",
    "url_foto_perfil": "http://example.com/photo.jpg",
    "biografia": "A test user",
}
STORED_USER = {
    "user_id": 1,
    **USER,
    "fecha_nacimiento": "1990-01-01T00:00:00Z",
    "fecha_creacion": "2026-01-01T12:00:00Z",
    "calificacion": 5.0,
    "numero_reportes": 0,
}
REPORT = {
    "id_usuario": 1,
    "tipo_reporte": 1,
    "descripcion": "Issue description",
    "ubicacion": "Location info",
}
STORED_REPORT = {
    "id_reporte": "7d793037-a076-4c1f-8a3b-2f1d0a5c9e11",
    **REPORT,
    "visibilidad": 1.0,
    "fecha_creacion": "2026-01-01T12:00:00Z",
}

#: By the id of an operation: its summary.
SUMMARIES = {
    "users_list": "Listar usuarios",
    "users_create": "Crear un usuario",
    "users_retrieve": "Leer un usuario",
    "users_update": "Cambiar un usuario (PUT)",
    "users_partial_update": "Cambiar un usuario",
    "users_destroy": "Eliminar un usuario",
    "reports_list": "Listar reportes",
    "reports_create": "Crear un reporte",
    "reports_retrieve": "Leer un reporte",
    "reports_partial_update": "Cambiar la visibilidad de un reporte",
    "reports_destroy": "Eliminar un reporte",
    "reports_file_retrieve": "Descargar el PDF de un reporte",
    "operations_retrieve": "Seguir una operación",
    "token_create": "Obtener un token",
    "token_refresh_create": "Renovar un token",
    "root_retrieve": "Listar las direcciones de la API",
    "health_live": "Saber si el proceso responde",
    "health_ready": "Saber si se aceptan escrituras",
    "metrics": "Leer las métricas para Prometheus",
}
#: The same: the body of a request.
BODIES: dict[str, dict[str, Any]] = {
    "users_create": USER,
    "users_update": {"nombre": "Jane", "biografia": ""},
    "users_partial_update": {"apellido": "Smith"},
    "reports_create": REPORT,
    "reports_partial_update": {"visibilidad": 0.5, "penalize_author": True},
    "token_create": {"username": "admin", "password": "admin"},
    "token_refresh_create": {"refresh": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x"},
}
#: By the name of a component: an object.
OBJECTS: dict[str, dict[str, Any]] = {
    "User": STORED_USER,
    "Report": STORED_REPORT,
    "Operation": {
        "id": "7d793037a0764c1f8a3b2f1d0a5c9e11.1vM6Xc.c2lnbmF0dXJl",
        "url": "/operations/7d793037a0764c1f8a3b2f1d0a5c9e11.1vM6Xc.c2lnbmF0dXJl/",
        "status": "done",
        "accepted_at": "2026-01-01T12:00:00Z",
        "settled_at": "2026-01-01T12:00:01Z",
        "link": "/users/1/",
        "code": None,
        "reason": None,
    },
}
#: By the name of a field that an answer 202 repeats: its value.
ECHOES = {
    "email": USER["email"],
    "user_id": STORED_USER["user_id"],
    "id_reporte": STORED_REPORT["id_reporte"],
}


NOT_FOR_ALL = "Falta si ningún rol del cliente permite verlo."
UNKNOWN_TO_SOME = "Solo para quien puede ver este campo; para los demás no existe."


class RoleSchema(QueuedAutoSchema):
    """Describes a view with the roles that its actions need."""

    def get_operation(self, *args: Any, **kwargs: Any) -> Schema | None:
        """Return the description of a method of a view, with its roles."""
        operation = super().get_operation(*args, **kwargs)
        action = getattr(self.view, "action", "get")
        roles = roles_for(getattr(self.view, "resource", ""), action)
        if operation and roles:
            text = f"Con uno de estos roles: {', '.join(f'`{one}`' for one in roles)}."
            given = operation.get("description", "")
            operation["description"] = f"{given}\n\n{text}".strip()
            operation["x-roles"] = roles
        return operation

    def _failures(self, given: Schema) -> set[int]:
        """Return the statuses of all errors, with that of a role that is missing."""
        refused = {403} if self.view.get_authenticators() else set()
        return super()._failures(given) | refused


def complete(result: Schema, **kwargs: Any) -> Schema:
    """Complete the document, for POSTPROCESSING_HOOKS."""
    result["paths"] |= {
        "/health/live": {"get": live()},
        "/health/ready": {"get": ready()},
    }
    components = result["components"]["schemas"]
    for name, schema in components.items():
        # The docstring of a serializer is for its developers.
        if schema.get("description", "").isascii():
            schema.pop("description", None)
        if name in OBJECTS:
            schema["example"] = OBJECTS[name]
        elif name.endswith("Accepted"):
            schema["example"] = accepted(schema)
    for path in result["paths"].values():
        for operation in path.values():
            name = operation["operationId"]
            operation["summary"] = SUMMARIES[name]
            if name in BODIES:
                operation["requestBody"]["content"][JSON]["example"] = BODIES[name]
    restrict(result)
    # The visibility of a report contradicts nothing that exists.
    del result["paths"]["/reports/{id_reporte}/"]["patch"]["responses"]["409"]
    file = result["paths"]["/reports/{id_reporte}/file/"]["get"]["responses"]["200"]
    file["headers"]["Content-Disposition"] = ref("Content-Disposition", "headers")
    return result


def restrict(result: Schema) -> None:
    """Describe what middlewares refuse, and what only some may see."""
    del result["paths"]["/metrics"]["get"]["parameters"]  # it ignores queries
    for path, methods in result["paths"].items():
        for method, operation in methods.items():
            if method != "get":  # from a page of another origin
                operation["responses"].setdefault("403", error_answer(403))
            if settings.THROTTLE and "/health/" not in path:
                operation["responses"].setdefault("429", error_answer(429))
    user = result["components"]["schemas"]["User"]
    for name in PERSONAL["user"]:
        user["required"].remove(name)
        user["properties"][name]["description"] = NOT_FOR_ALL
    for parameter in result["paths"]["/users/"]["get"]["parameters"]:
        if parameter["name"] in PERSONAL["user"]:
            parameter["description"] += f" {UNKNOWN_TO_SOME}"


def accepted(schema: Schema) -> dict[str, Any]:
    """Return an example of an answer 202."""
    fields = schema["properties"].items()
    return {name: one.get("const", ECHOES.get(name)) for name, one in fields}


def live() -> Schema:
    """Describe `/health/live`."""
    body = closed({"status": {"type": "string", "const": "ok"}})
    return public("health_live", {"200": answer("El proceso responde.", body)})


def ready() -> Schema:
    """Describe `/health/ready`."""
    text: Schema = {"type": "string"}
    states = ["ok", "degraded", "unavailable", "draining"]
    body = closed(
        {
            "status": {**text, "enum": states},
            "broker": {**text, "description": "`ok`, o por qué no responde."},
            "degraded": {
                "type": "array",
                "items": text,
                "description": "Las bases de datos que no responden.",
            },
        }
    )
    # Only for the role that may see them.
    body["required"] = ["status"]
    answers = {
        "200": answer("Se aceptan escrituras.", body),
        "503": answer(
            "El broker no responde, o el proceso va a terminar.", body, "X-Request-ID"
        ),
    }
    return public("health_ready", answers)


def public(name: str, answers: Schema) -> Schema:
    """Describe what anyone may read, whatever the query."""
    return {
        "operationId": name,
        "description": "Los parámetros de consulta se ignoran.",
        "tags": ["estado"],
        "security": [{}],
        "responses": answers,
    }
