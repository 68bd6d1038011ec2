"""Fixtures available to pytest wherever this package is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import MemoryBroker


@pytest.fixture
def memory_broker() -> Iterator[MemoryBroker]:
    """Replace the real broker by one in memory."""
    from . import testing  # models load after pytest's plugins

    with testing.memory_broker() as broker:
        yield broker
