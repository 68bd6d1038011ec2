"""Mailing a change in what is wrong, for `manage.py doctor --mail` under cron."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from django.core.mail import mail_admins

from messaging.masking import masked

from .findings import Finding, Level

#: What a mail is about; notes are no alarm.
ALARMING = (Level.WARNING, Level.ERROR)


def mail_change(path: Path, findings: Sequence[Finding]) -> bool:
    """
    Mail the `ADMINS` if others are alarming than at the last call; return whether.

    Two findings are the same if level and subject are, since texts have numbers. `path`
    is the file that remembers them; it is written once the mail is sent. Raises what
    the mail backend raises.
    """
    alarming = [one for one in findings if one.level in ALARMING]
    now = sorted({f"{one.level} {one.subject}" for one in alarming})
    before = json.loads(path.read_text()) if path.exists() else []
    if now == before:
        return False
    gone = [f"gone     {one}" for one in before if one not in now]
    lines = [*map(str, alarming), *gone]
    mail_admins(subject_of(alarming), masked("\n".join(lines)))
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(now))
    os.replace(fresh, path)
    return True


def subject_of(alarming: Sequence[Finding]) -> str:
    """Return the subject of a mail, with the numbers of errors and warnings."""
    levels = [one.level for one in alarming]
    counts = [f"{levels.count(level)} {level}s" for level in (*ALARMING[::-1],)]
    return f"doctor: {', '.join(counts)}" if alarming else "doctor: all is well"
