"""Reading pages as people do."""

from __future__ import annotations

import re
from html import unescape


def text_of(page: str) -> str:
    """Return the text of HTML, without tags and with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())
