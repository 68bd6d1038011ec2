"""Hypothesis strategies for the bodies of requests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from messaging.rest_framework.serializers import MessageSerializer
from reports.serializers import (
    ReportCreateSerializer,
    ReportDeleteSerializer,
    ReportVisibilitySerializer,
)
from users.serializers import (
    UserCreateSerializer,
    UserDeleteSerializer,
    UserUpdateSerializer,
)

#: What the address says, by serializer.
ADDRESSES: dict[type[MessageSerializer], dict[str, str]] = {
    UserCreateSerializer: {},
    UserUpdateSerializer: {"pk": "1"},
    UserDeleteSerializer: {"pk": "1"},
    ReportCreateSerializer: {},
    ReportVisibilitySerializer: {"pk": "un-reporte"},
    ReportDeleteSerializer: {"pk": "un-reporte"},
}


FIELDS = sorted({field for s in ADDRESSES for field in s.Meta.fields})


texts = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        [
            "",
            " ",
            "ana@example.com",
            " ANA@example.com ",
            "a" * 101,
            "a" * 255,
            "b" * 5001,
            "https://example.com/a.png",
            "http://[::1]/",
            "ftp://example.com",
            "1990-01-01",
            "1990-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999-23:59",
            "2024-02-30",
            "1",
            "1.5",
            "1e3",
            "nan",
            "true",
            "\x00",
            "\x1f",
            "\u2028",
            "٣",
        ]
    ),
)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, 5, 1000, 2**31 - 1, 2**31, 2**63 - 1, 2**63]),
    st.floats(),
    texts,
)


values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


GOOD: dict[str, st.SearchStrategy[Any]] = {
    "nombre": st.just("Ana"),
    "apellido": st.just("Ruiz"),
    "email": st.just("ana@example.com"),
    "id_usuario": st.integers(1, 2**63 - 1),
    "tipo_reporte": st.integers(0, 2**31 - 1),
    "descripcion": st.text(min_size=1, max_size=50),
    "visibilidad": st.floats(0, 1000) | st.integers(0, 1000),
}


#: Objects that are mostly right, so that the odd value is what decides.
objects = st.fixed_dictionaries(
    {name: st.one_of(strategy, strategy, values) for name, strategy in GOOD.items()},
    optional={name: values for name in [*FIELDS, "otro"] if name not in GOOD},
)


forms = st.dictionaries(st.sampled_from(FIELDS), texts) | st.fixed_dictionaries(
    {name: strategy.map(str) for name, strategy in GOOD.items()},
    optional={name: texts for name in FIELDS if name not in GOOD},
)
