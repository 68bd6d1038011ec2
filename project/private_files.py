"""E-mails as files that only their owner may read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.mail.backends import filebased

from messaging.lab.folders import own_folder


class EmailBackend(filebased.EmailBackend):
    """E-mails as files, for development."""

    def __init__(self, *args: Any, **options: Any) -> None:
        folder = options.get("file_path") or settings.EMAIL_FILE_PATH  # type: ignore[misc]
        own_folder(Path(folder))
        super().__init__(*args, **options)

    def open(self) -> bool:
        """Open the file, unless it is open."""
        if self.stream is not None:
            return False
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.stream = os.fdopen(os.open(self._get_filename(), flags, 0o600), "ab")
        return True


def mails_older_than(moment: datetime) -> Iterator[Path]:
    """Yield the files of e-mails from before a moment; none with a mail server."""
    if settings.EMAIL_BACKEND.startswith(f"{__name__}."):
        for path in Path(settings.EMAIL_FILE_PATH).glob("*.log"):  # type: ignore[misc]
            if path.stat().st_mtime < moment.timestamp():
                yield path
