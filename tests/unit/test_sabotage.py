"""What the crash lab must detect can still be sabotaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import sabotage


@pytest.mark.parametrize("name", sabotage.SABOTAGES)
def test_a_sabotage_replaces_functions_of_today(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = sabotage.replace

    def replace_and_restore(owner: Any, name: str, by: Callable[..., Any]) -> None:
        monkeypatch.setattr(owner, name, getattr(owner, name))
        replace(owner, name, by)

    monkeypatch.setattr(sabotage, "replace", replace_and_restore)

    sabotage.SABOTAGES[name]()
