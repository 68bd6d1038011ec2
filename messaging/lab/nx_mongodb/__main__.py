"""
Serve nx-27017 on a Unix socket; its own program opens a port, which is everybody's.

    python -P messaging/lab/nx_mongodb/__main__.py DATA SOCKET
"""

import asyncio
import os
import signal
import sys

from nx_27017.handler import NeoSQLiteHandler
from nx_27017.server import handle_client


async def serve(data: str, path: str) -> None:
    """Serve until SIGTERM."""
    handler = NeoSQLiteHandler("", data_dir=data)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await asyncio.start_unix_server(
        lambda reader, writer: handle_client(reader, writer, handler), path
    )
    await stopped.wait()


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(serve(*sys.argv[1:]))
