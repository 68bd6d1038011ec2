"""
The table of roles in docs/access.md, made of that in project/access.py.

    python -m tests.support.access_table    # writes it into the document
"""

from __future__ import annotations

from . import BASE

DOCUMENT = BASE / "docs" / "access.md"
BEFORE, AFTER = "|---|---|---|---|---|---|---|\n", "\n\nPersonal fields are"
#: The methods by which actions are asked for.
WORDS = {
    "list": "read",
    "create": "create",
    "update": "change",
    "partial_update": "change",
    "destroy": "delete",
    "file": "download the file",
}


def table() -> str:
    """Return the rows of the table."""
    from project.access import RIGHTS, SEE_HIDDEN

    rows = []
    for role, rights in RIGHTS.items():
        users, reports = (
            ", ".join(dict.fromkeys(WORDS[a] for a in names if a in WORDS)) or "-"
            for names in (
                rights.actions.get("user", ()),
                rights.actions.get("report", ()),
            )
        )
        others = [
            {"metrics": "`/metrics`", "health": "details of `/health/ready`"}[name]
            for name in rights.actions
            if name in ("metrics", "health")
        ]
        sees = "yes" if rights.fields else "-"
        hidden = "yes" if SEE_HIDDEN in rights.actions.get("report", ()) else "-"
        permissions = ", ".join(f"`{one}`" for one in rights.permissions) or "-"
        cells = [
            f"`{role}`", users, reports, sees, hidden, ", ".join(others) or "-",
            permissions,
        ]  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def document() -> str:
    """Return the document with the current table."""
    before, _, after = DOCUMENT.read_text().partition(BEFORE)
    return f"{before}{BEFORE}{table()}{AFTER}{after.partition(AFTER)[2]}"


if __name__ == "__main__":
    import django

    django.setup()
    DOCUMENT.write_text(document())
