"""Folders that no other user of this machine may enter."""

from __future__ import annotations

from pathlib import Path


def own_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder unless it exists, and close it; its new parents are closed, too."""
    for one in reversed(path.absolute().parents):
        if not one.exists():
            one.mkdir(0o700, exist_ok=True)
    path.mkdir(0o700, exist_ok=True)
    path.chmod(mode)
