"""Remote procedure calls: Fibonacci numbers through the queue `rpc_queue`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import Annotated

from pydantic import Field

from messaging.exceptions import NoServer
from messaging.management.options import add_call_timeout
from messaging.rpc.client import call
from messaging.rpc.functions import served, serves
from messaging.rpc.server import run_servers

from .script import Say, Script

#: The queue of the official tutorial, which its servers declare as durable, quorum and
#: without a limit; the number is text.
QUEUE = "rpc_queue"
#: A limit on the work that a caller can cause.
LARGEST = 1000


@serves(QUEUE, text=True, limited=False)
def fibonacci(n: Annotated[int, Field(ge=0, le=LARGEST)]) -> int:
    """Return the n-th Fibonacci number."""
    sys.stdout.write(f" [.] fib({n})\n")
    sys.stdout.flush()
    one, next_one = 0, 1
    for _ in range(n):
        one, next_one = next_one, one + next_one
    return one


def rpc_server(say: Say, arguments: Namespace) -> int:
    """Serve one call at a time until stopped; return the exit code."""
    say(" [x] Awaiting RPC requests. To exit press Ctrl-C")
    return run_servers([served[QUEUE]], threads=1)


def add_client_arguments(parser: ArgumentParser) -> None:
    """Add the number and the timeout."""
    parser.add_argument("n", metavar="N", help="which Fibonacci number, e.g. 30")
    add_call_timeout(parser)


def rpc_client(say: Say, arguments: Namespace) -> int:
    """Request one number and print it; raises `CallError`."""
    say(f" [x] Requesting fib({arguments.n})")
    try:
        result = call(QUEUE, arguments.n, timeout=arguments.timeout, text=True)
    except NoServer:
        raise NoServer("No server: start `manage.py tutorial rpc_server`.") from None
    say(f" [.] Got {result}")
    return 0


SERVER = Script(
    "rpc_server",
    "Serve Fibonacci numbers; a second one shares the load.",
    lambda parser: None,
    rpc_server,
)
CLIENT = Script(
    "rpc_client", "Request a Fibonacci number.", add_client_arguments, rpc_client
)
