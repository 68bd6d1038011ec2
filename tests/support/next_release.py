"""
A next release: this working tree with a few changes, of each kind that a release has.

- `user.revise`, a new type, is what requests send in place of `user.update`.
- `user.create` has a new field, `canal`, and has lost one, `fecha_creacion`.
- The table of users has a new column, `canal`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from . import BASE

NEW_TYPE = "user.revise"
MIGRATION = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("users", "{last}")]
    operations = [
        migrations.AddField(
            "user", "canal", models.CharField(max_length=20, default="", db_default="")
        ),
    ]
"""
#: By file: what is replaced, once, and by what.
CHANGES = {
    "users/commands.py": [
        (
            "    fecha_creacion: Annotated[Moment | None, fields.FECHA_CREACION]",
            "    canal: Annotated[str | None, fields.NOMBRE]",
        ),
        (
            "class UserDelete(",
            "class UserRevise(UserUpdate):\n"
            '    """Change the given fields of a user."""\n\n'
            f'    event_type: Literal["{NEW_TYPE}"] = "{NEW_TYPE}"\n\n\n'
            "class UserDelete(",
        ),
    ],
    "users/handlers.py": [
        (
            "import UserCreate, UserDelete,",
            "import UserCreate, UserDelete, UserRevise,",
        ),
        ("            message.fecha_creacion or now,", "            now,"),
        (
            '            message.biografia or "",',
            '            message.biografia or "",\n            message.canal or "",',
        ),
        (
            "@handles(UserDelete,",
            "@handles(UserRevise, batch=True, savepoint=False)\n"
            "def revise_users(messages: list[UserRevise]) -> list[int]:\n"
            '    """Change the given fields of each user, and return the ids."""\n'
            "    return update_users(messages)\n\n\n"
            "@handles(UserDelete,",
        ),
    ],
    "users/models.py": [
        (
            '        "biografia",\n    )',
            '        "biografia",\n        "canal",\n    )',
        ),
        (
            "    COLUMNS = (",
            '    canal = models.CharField(max_length=20, default="", db_default="")\n\n'
            "    COLUMNS = (",
        ),
    ],
    "users/serializers.py": [
        (
            "import UserCreate, UserDelete,",
            "import UserCreate, UserDelete, UserRevise,",
        ),
        ("        message = UserUpdate", "        message = UserRevise"),
        ('{"fecha_creacion": timezone.now()}', '{"canal": "web"}'),
    ],
}


def write(directory: Path) -> None:
    """Write its files into a directory."""
    for name in ("examples", "messaging", "project", "reports", "users"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(BASE / name, directory / name, ignore=ignored)
    shutil.copy(BASE / "manage.py", directory)
    for name, changes in CHANGES.items():
        path = directory / name
        text = path.read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{name} has changed: {old}"
            text = text.replace(old, new)
        path.write_text(text)
    migrations = directory / "users" / "migrations"
    last = max(path.stem for path in migrations.glob("[0-9]*.py"))
    number = int(last[:4]) + 1
    (migrations / f"{number:04}_canal.py").write_text(MIGRATION.format(last=last))
