from __future__ import annotations

import os
import signal
import time
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from messaging import Reject, call, serves

Small = Annotated[int, Field(ge=0, le=1000)]


class Order(BaseModel):
    reference: Annotated[str, Field(examples=["A-1"])]
    amounts: list[int] = []


@serves("add")
def add(a: Annotated[Small, Field(examples=[2])], b: Small = 1) -> int:
    """Add two numbers."""
    return a + b


@serves("double")
def double(n: Annotated[int, Field(ge=0, examples=[3])]) -> int:
    return 2 * n


@serves("triple")
def triple(n: int) -> int:
    time.sleep(0.005)
    return 3 * n


@serves("greet", text=True)
def greet(name: Annotated[str, Field(examples=["Ana"])]) -> str:
    return f"hello {name}"


@serves("echo")
def echo(text: str) -> str:
    return text


@serves("count")
def count(order: Order) -> int:
    return len(order.amounts)


@serves("next_year")
def next_year(day: Annotated[date, Field(examples=["2026-11-27"])]) -> date:
    return day.replace(year=day.year + 1)


@serves("elsewhere")
def elsewhere() -> str:
    return "here"


@serves("who")
def who() -> int:
    time.sleep(0.02)
    return os.getpid()


@serves("sleep")
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@serves("note")
def note(path: str, line: str, seconds: float = 0) -> str:
    with Path(path).open("a") as file:
        file.write(f"{line}\n")
    time.sleep(seconds)
    return line


@serves("fail")
def fail(secret: str) -> None:
    raise ZeroDivisionError(secret)


@serves("fail_openly", expose_errors=True)
def fail_openly(secret: str) -> None:
    raise ZeroDivisionError(secret)


@serves("misuse")
def misuse() -> int:
    answer: int = call("add", {"a": -1})
    return answer


@serves("refuse")
def refuse() -> None:
    raise Reject("That name is taken.", code="conflict")


@serves("unserializable")
def unserializable() -> object:
    return object()


@serves("die")
def die(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("died\n")
    os.kill(os.getpid(), signal.SIGKILL)


@serves("rpc_test_queue", durable=False)
def private_method() -> dict[str, str]:
    return {"answer": "from B"}
