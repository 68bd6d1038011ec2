"""
A stand-in for a member of a replica set that loses its role.

It speaks MongoDB's wire protocol (OP_MSG) in front of a server, and answers commands
with the errors of a member that is no primary any more.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import bson

#: Length, request id, id of the request that is answered, kind of message.
HEADER = struct.Struct("<iiii")
OP_MSG, OP_REPLY = 2013, 1
#: Where the document of an OP_REPLY begins.
REPLY_START = 20
#: The errors by code, with their names.
NAMES = {
    64: "WriteConcernTimeout",
    91: "ShutdownInProgress",
    189: "PrimarySteppedDown",
    10107: "NotWritablePrimary",
}


class MemberProxy:
    """Forwards a Unix socket to a socket or port, except for what it refuses."""

    def __init__(self, address: Path, target: Path | int) -> None:
        self.address = address
        self._target = target
        #: The code of the error that refused commands get; None to forward all.
        self.code: int | None = None
        #: The names of commands that are refused.
        self.refuses: Collection[str] = ("update", "insert", "delete", "bulkWrite")
        #: How often each was refused, and the read preferences that were sent.
        self.refused: Counter[str] = Counter()
        self.preferences: list[tuple[str, str]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._server = self._loop.run_until_complete(
            asyncio.start_unix_server(self._accept, self.address)
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _accept(self, near: Any, near_writer: Any) -> None:
        if isinstance(self._target, int):
            opening = asyncio.open_connection("127.0.0.1", self._target)
        else:
            opening = asyncio.open_unix_connection(self._target)
        far, far_writer = await opening
        try:
            while True:
                header, body = await read(near)
                request = HEADER.unpack(header)
                command = first_document(body) if request[3] == OP_MSG else {}
                name = next(iter(command), "")
                mode = command.get("$readPreference", {}).get("mode", "primary")
                self.preferences.append((name, mode))
                refused = self.code is not None and name in self.refuses
                if refused and self.code != 64:
                    self.refused[name] += 1
                    near_writer.write(answer(request[1], self._error()))
                    continue
                far_writer.write(header + body)
                header, body = await read(far)
                if refused:  # it is written, but not durable
                    self.refused[name] += 1
                    result = first_document(body)
                    result["writeConcernError"] = {
                        "code": 64,
                        "codeName": NAMES[64],
                        "errmsg": "waiting for replication timed out",
                    }
                    near_writer.write(answer(request[1], result))
                elif HEADER.unpack(header)[3] == OP_REPLY:  # to the first hello
                    hello = dict(bson.decode(body[REPLY_START:]))
                    role = bson.encode(hello | self._role)
                    near_writer.write(reply(header, body[:REPLY_START] + role))
                elif name in ("hello", "ismaster"):
                    role = first_document(body) | self._role
                    near_writer.write(answer(request[1], role))
                else:
                    near_writer.write(header + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            near_writer.close()
            far_writer.close()

    @property
    def _role(self) -> dict[str, Any]:
        """What a primary says of itself, which is alone in its set."""
        return {"setName": "rs", "hosts": [str(self.address)]}

    def _error(self) -> dict[str, Any]:
        code = self.code or 0
        return {"ok": 0.0, "errmsg": "not primary", "code": code} | {
            "codeName": NAMES[code]
        }


async def read(reader: Any) -> tuple[bytes, bytes]:
    """Return the header of the next message, and what follows it."""
    header = await reader.readexactly(HEADER.size)
    return header, await reader.readexactly(HEADER.unpack(header)[0] - HEADER.size)


def first_document(body: bytes) -> dict[str, Any]:
    """Return the command or the answer in an OP_MSG: its section of kind 0."""
    place = 4  # after the flags
    while body[place]:  # a sequence of documents
        place += 1 + struct.unpack_from("<i", body, place + 1)[0]
    size = struct.unpack_from("<i", body, place + 1)[0]
    return dict(bson.decode(body[place + 1 : place + 1 + size]))


def answer(request_id: int, document: dict[str, Any]) -> bytes:
    """Return an OP_MSG that answers a request."""
    body = b"\0\0\0\0\0" + bson.encode(document)
    return HEADER.pack(HEADER.size + len(body), 1, request_id, OP_MSG) + body


def reply(header: bytes, body: bytes) -> bytes:
    """Return a message with the length of its new body."""
    _length, *others = HEADER.unpack(header)
    return HEADER.pack(HEADER.size + len(body), *others) + body
