"""Large tables, filled by statements that insert many rows, and what queries read."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connection, models

#: Rows of one INSERT, which must end before the connection's `read_timeout`.
CHUNK = 20_000
NOW = datetime.now(UTC)

#: SQL expressions of the row number `n` and of a fixed random number of it, `r`; `age`
#: grows from 0 to 1 with the age of the row.
USERS = {
    "user_id": "n + 1",
    "nombre": "CONCAT('Nombre', r % 997)",
    "apellido": "CONCAT('Apellido', r % 7919)",
    "email": "CONCAT(HEX(r), '.', n, '@example.com')",
    "fecha_creacion": "@now - INTERVAL age * 730 * 86400 SECOND",
    # Most have the rating that they began with.
    "calificacion": "IF(r % 20, 5, r % 11 / 2)",
    "numero_reportes": "FLOOR(-5 * LN((r % 9973 + 1) / 9974))",
    "url_foto_perfil": "''",
    "biografia": "REPEAT('abc def ', r % 40)",
}
INBOX = {
    "message_id": "CONCAT_WS('-', LEFT(SHA2(n, 256), 8), LEFT(SHA2(n, 224), 4), '4abc',"
    " 'a123', RIGHT(SHA2(n, 256), 12))",
    "event_type": "ELT(1 + (r % 10 > 6) + (r % 10 > 8), 'user.create',"
    " 'user.update', 'user.delete')",
    "key": "CONCAT('u', n, '@example.com')",
    "status": "IF(r % 1000, 'done', 'failed')",
    "reference": "n",
    "kind": "IF(r % 1000, '', 'rejected')",
    "reason": "IF(r % 1000, '', 'Ya existe un usuario con este e-mail.')",
    "code": "IF(r % 1000, '', 'conflict')",
    "replays": "0",
    "processed_at": "@now - INTERVAL age * 7 * 86400 SECOND",
}
LETTERS = {
    "id": "LEFT(SHA2(n, 256), 32)",
    "queue": "IF(r % 3, 'users_queue', 'reports_queue')",
    "message_id": "LEFT(SHA2(-n, 256), 32)",
    "event_type": "ELT(1 + r % 3, 'report.create', 'user.create', 'user.update')",
    "kind": "ELT(1 + r % 4, 'rejected', 'exhausted', 'expired', 'poison')",
    "code": "''",
    "reason": "CONCAT('Ya existe un usuario con este e-mail: ', n)",
    "exception": "''",
    "cause": "MD5(r % 12)",
    "is_answered": "IF(r % 10, 0, 1)",
    "properties": 'CONCAT(\'{"headers": {"traceparent": "\','
    " REPEAT(LEFT(SHA2(n, 256), 32), 8), '\"}}')",
    "size": "200",
    "replays": "0",
    "failed_at": "@now - INTERVAL age * 30 * 86400 SECOND",
    "archived_at": "@now",
    "status": "IF(r % 5, 'waiting', 'requeued')",
    "settled_by": "''",
    "history": 'CONCAT(\'[{"at": "2024-01-01T00:00:00", "what": "failed",'
    ' "reason": "\', REPEAT(LEFT(SHA2(n, 256), 32), 4), \'"}]\')',
}
PARKED = {
    "partition": "IF(r % 3, 'users_queue.0', 'reports_queue.0')",
    "message_id": "LEFT(SHA2(n, 256), 32)",
    "event_type": "IF(r % 3, 'user.update', 'report.create')",
    "key": "n",
    "digest": "LEFT(SHA2(-n, 256), 32)",
    "attempts": "r % 5",
    "due_at": "IF(r % 4, @now, NULL)",
    "error": "'OperationalError'",
    "parked_at": "@now",
    "is_applied": "0",
    "size": "2",
    "properties": "'{}'",
    "body": "'{}'",
}
NOTIFICATIONS = {
    "id_reporte": "LEFT(SHA2(n, 256), 32)",
    "recipient": "CONCAT('u', n, '@example.com')",
    "message_id": "''",
    "status": "IF(r % 100, 'sent', 'refused')",
    "doubts": "0",
    "problem": "''",
    "changed_at": "@now - INTERVAL age * 86400 SECOND",
}
DIGIT = " UNION ALL ".join(f"SELECT {digit} d" for digit in range(10))


def insert(model: type[models.Model], number: int, values: dict[str, str]) -> None:
    """Insert so many rows, each column with the value of an expression."""
    places = range(len(str(min(number, CHUNK) - 1)))
    digits = ", ".join(f"({DIGIT}) t{place}" for place in places)
    units = " + ".join(f"{10**place} * t{place}.d" for place in places)
    columns = ", ".join(f"`{name}`" for name in values)
    table = model._meta.db_table
    execute(f"SET @now = '{NOW:%Y-%m-%d %H:%M:%S}'")
    for start in range(0, number, CHUNK):
        end = min(start + CHUNK, number)
        execute(
            f"INSERT INTO {table} ({columns}) "
            f"SELECT {', '.join(values.values())} FROM (SELECT n, CRC32(n) r, "
            f"1 - n / {number} age FROM (SELECT {start} + {units} n "
            f"FROM {digits}) numbers WHERE n < {end} ORDER BY n) rows_"
        )


def execute(sql: str) -> None:
    """Execute one statement as it is."""
    with connection.cursor() as cursor:
        cursor.execute(sql)


def rows_read() -> int:
    """Return how many rows this session has read, from indexes or tables."""
    with connection.cursor() as cursor:
        cursor.execute(r"SHOW SESSION STATUS LIKE 'Handler\_read%'")
        return sum(int(number) for _, number in cursor.fetchall())
