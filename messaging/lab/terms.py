"""The terms of a run: how it changes the settings of the project under test."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

#: Environment variable with the terms, for all programs of a run.
VARIABLE = "CRASH_LAB_TERMS"
#: The settings module of all programs of a run.
SETTINGS = "messaging.lab.settings"
#: Seconds: the first and the longest pause before a failed message is retried.
RETRY_PAUSE = (0.2, 2.0)


@dataclass(frozen=True, slots=True)
class Terms:
    """Changes to the settings of the project, and the failures to inject."""

    #: The settings module of the project.
    settings: str
    #: The directory of the run.
    directory: str
    seed: int = 1
    #: Partitions of each queue; None to keep the settings of the project.
    partitions: int | None = None
    #: Share of the messages that fail at first.
    failures: float = 0.0

    @classmethod
    def current(cls) -> Terms:
        """Return the terms of the run that started this process."""
        return cls(**json.loads(os.environ[VARIABLE]))

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a program with these terms."""
        return {
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            VARIABLE: json.dumps(asdict(self)),
        }

    def messaging(self, own: dict[str, Any]) -> dict[str, Any]:
        """
        Return the setting `MESSAGING`, changed from the project's own.

        The number of attempts is unlimited: faults and injected failures together
        must not exhaust a message that can succeed.
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
