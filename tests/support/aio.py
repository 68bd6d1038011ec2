"""Programs on aio-pika."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aio_pika

from .broker import Broker


def with_aio_pika(use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Return the result of `use` with a channel of aio-pika."""

    async def run() -> Any:
        connection = await aio_pika.connect(Broker().url)
        async with connection:
            return await use(await connection.channel())

    return asyncio.run(run())


@contextmanager
def serving(use: Callable[[Any], Awaitable[Any]]) -> Iterator[None]:
    """Serve with aio-pika while the block runs."""
    ready, done = threading.Event(), threading.Event()

    async def until_done(channel: Any) -> None:
        await use(channel)
        ready.set()
        await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=with_aio_pika, args=[until_done])
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        done.set()
        thread.join()
