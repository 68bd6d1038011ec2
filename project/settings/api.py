"""Settings of the API and of its documentation."""

from .access import BEHIND_PROXY, LOGIN_THROTTLE, THROTTLE
from .base import OPEN_ACCESS

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": []
    if OPEN_ACCESS
    else [
        # First, so that a request with a token touches no database.
        "project.tokens.BearerToken",
        "project.access.BrowserSession",
    ],
    "DEFAULT_PERMISSION_CLASSES": [
        "rest_framework.permissions.AllowAny"
        if OPEN_ACCESS
        else "project.access.HasRole"
    ],
    "DEFAULT_PARSER_CLASSES": [
        "messaging.rest_framework.parsers.StrictJSONParser",
        "rest_framework.parsers.FormParser",
        "messaging.rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "messaging.rest_framework.renderers.FormsRenderer",
    ],
    "DEFAULT_FILTER_BACKENDS": [
        "django_filters.rest_framework.DjangoFilterBackend",
        "messaging.rest_framework.filters.SearchFilter",
        "messaging.rest_framework.filters.OrderingFilter",
    ],
    "DEFAULT_PAGINATION_CLASS": "project.pagination.KeysetPagination",
    "DEFAULT_SCHEMA_CLASS": "project.openapi.RoleSchema",
    "VIEW_NAME_FUNCTION": "messaging.rest_framework.renderers.view_name",
    "EXCEPTION_HANDLER": "messaging.rest_framework.exceptions.exception_handler",
    "DEFAULT_THROTTLE_CLASSES": ["project.throttling.Throttle"] if THROTTLE else [],
    "DEFAULT_THROTTLE_RATES": {
        "client": THROTTLE or None,
        "login": LOGIN_THROTTLE or None,
    },
    # Proxies that report the client's address; without, clients could forge it.
    "NUM_PROXIES": int(BEHIND_PROXY),
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Usuarios y reportes",
    "DESCRIPTION": (
        "Las lecturas van a la base de datos. Las escrituras se encolan en RabbitMQ y "
        "se responden con 202; con `Prefer: wait=N`, con su resultado.\n\n"
        "Todo error es un objeto con `code`, para programas, y `detail`, para "
        "personas; un 400 tiene además `errors`, con los textos de cada campo, "
        "parámetro o cabecera. Un parámetro de consulta desconocido o repetido es un "
        "400. Un método que una dirección no tiene es un 405 con `Allow`, y una "
        "dirección desconocida un 404. Cada lectura responde también a HEAD, y cada "
        "dirección a OPTIONS."
    ),
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.1",
    # One definition of each body, whatever the method.
    "COMPONENT_SPLIT_PATCH": False,
    "POSTPROCESSING_HOOKS": [
        "messaging.rest_framework.openapi.add_operations",
        "project.openapi.complete",
    ],
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}
