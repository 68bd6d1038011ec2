"""What the tests share: servers, programs, and small Django projects."""

from pathlib import Path

#: The project's root folder.
BASE = Path(__file__).resolve().parent.parent.parent
