"""Files that only their owner may read: API and consumers must run as one user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.core.mail.backends import filebased


class Storage(FileSystemStorage):
    """Files below MEDIA_ROOT."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **{"file_permissions_mode": 0o600, "directory_permissions_mode": 0o700}
            | options
        )


class EmailBackend(filebased.EmailBackend):
    """E-mails as files, for development."""

    def __init__(self, *args: Any, **options: Any) -> None:
        folder = Path(options.get("file_path") or settings.EMAIL_FILE_PATH)  # type: ignore[misc]
        folder.mkdir(0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
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
