"""
Sends requests at a rate from an address, and prints how they were answered.

Options come as JSON on standard input; the result goes to standard output.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from typing import Any

#: Connections that stay open; together they carry the rate.
CONNECTIONS = 16


async def main(options: dict[str, Any]) -> None:
    """Send all requests, and print the result."""
    tls = ssl.create_default_context(cafile=options["ca"])
    body = options["body"].encode()
    request = (
        f"POST /users/ HTTP/1.1\r\nHost: {options['host']}\r\n"
        f"Authorization: Bearer {options['token']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    total = options["rate"] * options["seconds"]
    statuses: Counter[int] = Counter()
    seconds: list[float] = []
    began = time.perf_counter() + 0.5
    numbers = iter(range(total))

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", options["port"], ssl=tls, server_hostname=options["host"],
            local_addr=(options["source"], 0),
        )  # fmt: skip

    async def send() -> None:
        reader, writer = await connect()
        for number in numbers:
            due = began + number / options["rate"]
            await asyncio.sleep(max(0, due - time.perf_counter()))
            started = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
            await reader.readexactly(int(headers["content-length"]))
            seconds.append(time.perf_counter() - started)
            statuses[int(lines[0].split()[1])] += 1
            if headers.get("connection") == "close":
                writer.close()
                reader, writer = await connect()
        writer.close()

    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
    result = {"seconds": seconds, "statuses": statuses, "cpu": time.process_time()}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))
