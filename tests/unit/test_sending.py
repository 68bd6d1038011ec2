"""What cannot be sent is refused without a broker."""

from __future__ import annotations

from typing import Any

import pytest

from messaging import PublishError, listens, send, topic
from messaging.registry import handlers, sources


@pytest.mark.parametrize(
    "destination",
    [
        {"routing_key": "users_queue"},
        {"routing_key": "users_queue.1"},
        {"routing_key": "user.created", "exchange": "events"},
        {"routing_key": "a.bird", "exchange": "nature"},
    ],
    ids=str,
)
@pytest.mark.parametrize("priority", [0, 9])
def test_a_priority_is_refused_where_order_is_kept(
    destination: dict[str, Any], priority: int, settings: Any
) -> None:
    settings.MESSAGING = settings.MESSAGING | {"PARTITIONS": 2}
    try:
        listens("birds", topic("nature", "*.bird"))(print)
        with pytest.raises(PublishError, match="leave `priority` out"):
            send("", priority=priority, **destination)
    finally:
        handlers.pop("birds")
        sources.pop("birds")
