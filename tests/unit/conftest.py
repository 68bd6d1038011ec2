"""Unit tests need no server."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def servers() -> None:
    """Fail a test that asks for a server, or for a database, in this folder."""
    pytest.fail("A test that needs a server belongs to tests/integration.")
