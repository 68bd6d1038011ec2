"""What a run asks of the project under the lab, beside the addresses of servers."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

#: Holds the terms in the environment of all programs of a run.
VARIABLE = "CRASH_LAB_TERMS"
#: The settings with which they run.
SETTINGS = "messaging.lab.settings"
#: Seconds: the first pause before a failed message is tried again, and the longest.
RETRY_PAUSE = (0.2, 2.0)


@dataclass(frozen=True, slots=True)
class Terms:
    """What differs from the project's own settings, and what is to fail."""

    #: The project's own module of settings.
    settings: str
    #: Where the lab keeps everything.
    directory: str
    seed: int = 1
    #: Of each queue; None for what the project says.
    partitions: int | None = None
    #: Share of the messages whose handlers fail at first.
    failures: float = 0.0

    @classmethod
    def current(cls) -> Terms:
        """Give the terms of the run to which this process belongs."""
        return cls(**json.loads(os.environ[VARIABLE]))

    def environment(self) -> dict[str, str]:
        """Give what makes a program run on these terms."""
        return {
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            VARIABLE: json.dumps(asdict(self)),
        }

    def messaging(self, own: dict[str, Any]) -> dict[str, Any]:
        """
        Give `MESSAGING` in place of the project's own.

        However often faults and injected failures meet in one message, it is tried
        again, for it could succeed: to give it up would be the lab's fault.
        """
        wanted: dict[str, Any] = {
            "MAX_ATTEMPTS": None,
            "ATTEMPTS_OF": {},
            "RETRY_PAUSE": RETRY_PAUSE,
        }
        if self.partitions is not None:
            wanted["PARTITIONS"] = self.partitions
        queues = {
            queue: {name: own for name, own in options.items() if name not in wanted}
            for queue, options in own.get("QUEUES", {}).items()
        }
        return {**own, **wanted, "QUEUES": queues}
