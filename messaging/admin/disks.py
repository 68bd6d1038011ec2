"""The free space of the broker, for the home page."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext

from messaging.conf import settings
from messaging.doctor.disk import Disk, disks
from messaging.monitoring.servers import Reading, refresh

_reading: Reading[list[Disk]] = Reading("broker's disks", disks)


def filling() -> Iterator[tuple[str, str, str]]:
    """Yield level, text and remedy for each disk that is nearly full."""
    if not settings.BROKER_METRICS:
        return
    refresh([_reading])
    for disk in _reading.value or ():
        if disk.is_low:
            text = gettext("The disk of the broker fills up: %s") % disk
            yield "error" if disk.is_full else "warning", text, "manage.py top"
