"""A call returns the right result or raises a typed error before its deadline."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from django.core.management import CommandError, call_command

from messaging import (
    CallTimeout,
    InvalidCall,
    MessagingError,
    NoServer,
    RemoteError,
    TooLarge,
    call,
)
from messaging.amqp.publisher import publisher
from messaging.lab.processes import free_port
from messaging.rpc.client import dropped_replies, envelope_for, replies
from tests.support import BASE, private_servers
from tests.support.broker import Broker
from tests.support.rpc_servers import ENVIRONMENT, Servers
from tests.support.waiting import eventually

#: The functions that most tests share.
NAMES = (
    "add", "count", "double", "echo", "fail", "fail_openly", "greet", "next_year",
    "misuse", "refuse", "rpc_test_queue", "sleep", "unserializable",
)  # fmt: skip


@pytest.fixture(scope="module")
def shared(servers: SimpleNamespace) -> Iterator[Servers]:
    """One server of each function."""
    started = Servers()
    started.start(*NAMES)
    yield started
    started.processes.kill_all()
    replies.close()


@pytest.fixture
def own(servers: SimpleNamespace) -> Iterator[Servers]:
    """Servers of one test."""
    started = Servers()
    yield started
    started.processes.kill_all()


def test_a_function_gets_its_arguments_by_name(shared: Servers) -> None:
    assert call("add", {"a": 2, "b": 3}) == 5
    assert call("add", {"a": 2}) == 3


def test_a_single_argument_may_be_passed_without_its_name(shared: Servers) -> None:
    assert call("double", 21) == 42
    assert call("next_year", "2026-11-21") == "2027-11-21"
    assert call("count", {"reference": "A-1", "amounts": [1, 2]}) == 2


def test_text_stays_text(shared: Servers) -> None:
    assert call("greet", "30", text=True) == "hello 30"
    assert call("greet", "ana") == "hello ana"
    assert call("echo", "30", text=True) == "30"
    assert call("double", 0, text=True) == 0


def test_calls_without_a_content_type_are_served(shared: Servers) -> None:
    assert ask("double", b"21").body == b"42"
    assert ask("double", b'{"n": 21}').body == b"42"
    assert ask("greet", b"30").body == b"hello 30"
    assert ask("echo", "ñandú".encode()).body == '"ñandú"'.encode()
    assert ask("rpc_test_queue", b"").body == b'{"answer":"from B"}'


def test_a_client_may_use_direct_reply_to(shared: Servers) -> None:
    assert ask("double", b"4", reply_to="amq.rabbitmq.reply-to").body == b"8"


def ask(queue: str, body: bytes, reply_to: str = "") -> SimpleNamespace:
    """Call as the tutorials' clients do: with only the two properties they set."""
    with Broker().channel() as channel:
        answers = reply_to or channel.queue_declare("", exclusive=True).method.queue
        consumer = channel.consume(answers, auto_ack=True, inactivity_timeout=5)
        if reply_to:
            channel._process_data_events(0.1)
        properties = pika.BasicProperties(reply_to=answers, correlation_id="7")
        # `consume` only starts with the first `next`.
        threading.Timer(
            0.1,
            channel.connection.add_callback_threadsafe,
            [lambda: channel.basic_publish("", queue, body, properties)],
        ).start()
        _, answer, body = next(consumer)
        assert answer is not None, "no reply"
        assert answer.correlation_id == "7"
        channel.cancel()
        return SimpleNamespace(body=body, type=answer.type)


@pytest.mark.parametrize(
    ("name", "payload", "field"),
    [
        ("add", {"a": -1}, "a"),
        ("add", {"a": "2"}, "a"),
        ("add", {"a": 2.5}, "a"),
        ("add", {}, "a"),
        ("add", {"a": 1, "c": 1}, "c"),
        ("add", 3, ""),
        ("add", [1, 2], ""),
        ("double", None, "n"),
        ("double", True, ""),
        ("count", {"reference": "A-1", "amounts": [1, "x"]}, "amounts.1"),
        ("refuse", {"x": 1}, "x"),
        ("refuse", {"x" * 500_000: 1}, "x" * 200),
        ("refuse", 1, ""),
    ],
)
def test_a_payload_is_checked_before_the_function_runs(
    shared: Servers, name: str, payload: Any, field: str
) -> None:
    with pytest.raises(InvalidCall) as caught:
        call(name, payload)

    assert list(caught.value.errors) == [field]


@pytest.mark.parametrize(
    ("name", "body", "properties"),
    [
        ("add", b"{", {"content_type": "application/json"}),
        ("add", b"\xff\xfe", {}),
        ("double", b"\x80\x04K\x02.", {"content_type": "application/python-pickle"}),
        ("double", b"two", {"content_type": "text/plain"}),
        ("double", b"[" * 100_000, {}),
        ("double", b"1", {"content_encoding": "gzip"}),
        ("double", b"1", {"content_encoding": "br"}),
        ("double", gzip.compress(bytes(2**25)), {"content_encoding": "gzip"}),
        ("double", b" " * 1024 * 1024 + b"1", {}),
    ],
)
def test_an_unreadable_body_is_refused(
    shared: Servers, name: str, body: bytes, properties: dict[str, Any]
) -> None:
    properties = {"content_type": None, **properties}
    envelope = envelope_for(name, None, 5).copy(body=body, **properties)

    with replies().expected(str(envelope.correlation_id), 5) as answer:
        publisher().outcomes(envelope)
        with pytest.raises(InvalidCall):
            answer.result(5).value()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(b"21"), "gzip"),
        (zlib.compress(b'{"n": 21}'), "deflate"),
        (b"21", "binary"),
    ],
    ids=["gzip", "deflate", "binary"],
)
def test_the_body_of_a_call_may_be_compressed(
    shared: Servers, body: bytes, encoding: str
) -> None:
    envelope = envelope_for("double", None, 5)
    envelope = envelope.copy(body=body, content_encoding=encoding)

    with replies().expected(str(envelope.correlation_id), 5) as answer:
        publisher().outcomes(envelope)
        assert answer.result(5).value() == 42


def test_callers_get_only_the_class_of_an_exception(shared: Servers) -> None:
    with pytest.raises(RemoteError) as caught:
        call("fail", {"secret": "hunter2"})

    assert caught.value.type == "ZeroDivisionError"
    assert "hunter2" not in repr(vars(caught.value)) + str(caught.value)
    assert caught.value.traceback == ""


def test_an_invalid_call_made_by_the_function_is_a_remote_error(
    shared: Servers,
) -> None:
    with pytest.raises(RemoteError) as caught:
        call("misuse")

    assert caught.value.type == "InvalidCall"


def test_an_exposed_exception_has_message_and_traceback(shared: Servers) -> None:
    with pytest.raises(RemoteError) as caught:
        call("fail_openly", "in public")

    assert caught.value.reason == "in public"
    assert "fail_openly" in caught.value.traceback


def test_a_rejected_call_has_reason_and_code(shared: Servers) -> None:
    with pytest.raises(RemoteError) as caught:
        call("refuse")

    assert caught.value.type == "Reject"
    assert caught.value.reason == "That name is taken."
    assert caught.value.code == "conflict"


def test_a_result_that_json_cannot_represent_is_a_remote_error(
    shared: Servers,
) -> None:
    with pytest.raises(RemoteError):
        call("unserializable")


def test_a_payload_that_is_too_large_is_not_sent(shared: Servers) -> None:
    with pytest.raises(TooLarge):
        call("echo", "x" * 1024 * 1024)


@pytest.mark.parametrize("timeout", [0, -1, 90_000, float("nan")])
def test_a_timeout_is_above_zero_and_at_most_a_day(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        call("add", {"a": 1}, timeout=timeout)


def test_a_call_without_a_queue_fails_at_once(shared: Servers) -> None:
    call("add", {"a": 1})

    assert seconds_until_no_server(f"missing-{uuid.uuid4()}") < 1


def test_a_call_without_consumers_fails_at_once(own: Servers) -> None:
    server = own.start("who")
    assert call("who") == server.pid
    assert own.stop(server) == 0

    assert seconds_until_no_server("who") < 1


def seconds_until_no_server(name: str) -> float:
    """Return how long a call takes to raise `NoServer`."""
    started = time.monotonic()
    with pytest.raises(NoServer):
        call(name, timeout=5)
    return time.monotonic() - started


def test_a_call_ends_at_its_deadline(shared: Servers) -> None:
    started = time.monotonic()

    with pytest.raises(CallTimeout):
        call("sleep", 2.6, timeout=2)

    assert 2 <= time.monotonic() - started < 2.5


@pytest.mark.parametrize("deadline", [2**62, -(2**62), True, "soon"])
def test_an_invalid_deadline_does_not_harm_the_server(
    shared: Servers, deadline: Any
) -> None:
    envelope = envelope_for("double", 4, 5).copy(headers={"deadline": deadline})
    with replies().expected(str(envelope.correlation_id), 5) as answer:
        publisher().publish(envelope)
        if deadline == 2**62 or deadline == "soon":
            assert answer.result(5).body == b"8"
    assert call("double", 5) == 10


def test_two_callers_may_wait_for_one_reply(shared: Servers) -> None:
    envelope = envelope_for("double", 4, 5)
    name = str(envelope.correlation_id)
    with replies().expected(name, 5) as first, replies().expected(name, 5) as second:
        publisher().publish(envelope)
        assert first.result(5).body == second.result(5).body == b"8"


def test_late_and_duplicate_replies_are_dropped_and_counted(shared: Servers) -> None:
    before = Counter(dropped_replies())
    with pytest.raises(CallTimeout):
        call("sleep", 0.5, timeout=0.2)
    envelope = envelope_for("add", {"a": 1}, 5)
    with replies().expected(str(envelope.correlation_id), 5) as answer:
        publisher().publish(envelope, envelope)
        assert answer.result(5).value() == 2
    shared.broker.send(replies().address, b"2", correlation_id="whose?")

    def counted() -> bool:
        new = Counter(dropped_replies()) - before
        # A call of an earlier test may be answered late, too.
        return new == {"late": max(new["late"], 1), "duplicate": 1, "unknown": 1}

    eventually(counted, "all three are counted")
    assert call("add", {"a": 1}) == 2


def test_calls_past_their_deadline_are_not_run(own: Servers, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    server = own.start("note", threads=1)
    payload = {"path": str(file), "line": "slow", "seconds": 1}
    gone = envelope_for("note", payload | {"line": "gone"}, 0.5)
    # As from a client that sets no expiration, so that the server must drop it.
    late = gone.copy(body=gone.body.replace(b"gone", b"late"), expiration=None)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(call, "note", payload)
        eventually(file.exists, "the first has started")
        publisher().publish(gone, late)
        assert slow.result() == "slow"
    assert call("note", payload | {"line": "last", "seconds": 0}) == "last"
    assert own.stop(server) == 0

    assert file.read_text().split() == ["slow", "last"]


def test_several_servers_share_the_load(own: Servers) -> None:
    first, second = own.start("who", threads=1), own.start("who", threads=1)

    with ThreadPoolExecutor(8) as pool:
        shares = Counter(pool.map(lambda _: call("who", timeout=20), range(60)))

    assert set(shares) == {first.pid, second.pid}
    assert min(shares.values()) >= 20


def test_every_call_returns_the_right_result_when_a_server_is_killed(
    own: Servers,
) -> None:
    victim, _ = own.start("triple"), own.start("triple")
    outcomes: Counter[str] = Counter()
    done = threading.Semaphore(0)

    def one(n: int) -> None:
        started = time.monotonic()
        try:
            answer = call("triple", n, timeout=10)
            outcomes["right" if answer == 3 * n else "wrong"] += 1
        except MessagingError as error:
            outcomes[type(error).__name__] += 1
        if time.monotonic() - started > 10.5:
            outcomes["after its deadline"] += 1
        done.release()

    def kill_midway() -> None:
        for _ in range(400):
            done.acquire()
        os.kill(victim.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_midway)
    killer.start()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(1000)))
    killer.join()

    assert outcomes == {"right": 1000}


@pytest.mark.slow
def test_servers_and_callers_reconnect(own: Servers) -> None:
    own.start("triple")
    outcomes: Counter[str] = Counter()
    cut = threading.Event()

    def one(n: int) -> None:
        try:
            answer = call("triple", n, timeout=3)
            outcomes["right" if answer == 3 * n else "wrong"] += 1
        except MessagingError as error:
            outcomes[type(error).__name__] += 1
        if n == 100:
            private_servers.rabbitmq.control("close_all_connections", "for a test")
            cut.set()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(200)))
    assert cut.is_set()
    assert not outcomes.keys() - {"right", "NoServer", "CallTimeout"}

    eventually(lambda: own.consumers("triple"), "the server consumes again", 20)
    eventually(lambda: is_answered("triple", 5), "the server replies", 20)


def is_answered(name: str, payload: Any) -> bool:
    """Return whether a call succeeds."""
    try:
        call(name, payload, timeout=1)
    except MessagingError:
        return False
    return True


def test_the_error_without_a_broker_names_its_address(
    servers: SimpleNamespace,
) -> None:
    url = private_servers.rabbitmq.url_at(free_port())

    done = manage("call", "add", "--timeout", "0.5", RABBITMQ_URL=url)

    assert done.code == 75
    assert "No connection to 127.0.0.1" in done.err


def test_a_stopped_server_finishes_its_running_calls(
    own: Servers, tmp_path: Path
) -> None:
    file = tmp_path / "runs"
    server = own.start("note")
    payload = {"path": str(file), "line": "once", "seconds": 1}
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(call, "note", payload, timeout=10)
        eventually(file.exists, "it has started")
        assert own.stop(server) == 0
        assert answer.result() == "once"

    assert own.broker.count("note") == 0
    assert file.read_text() == "once\n"


@pytest.mark.slow
def test_a_call_that_kills_its_servers_fails_after_three(
    own: Servers, tmp_path: Path
) -> None:
    file = tmp_path / "deaths"
    supervised = threading.Event()

    def supervise() -> None:
        while not supervised.is_set():
            own.processes.manage("serve", "die", **ENVIRONMENT).wait()

    with pytest.raises(NoServer):
        call("die", str(file))
    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    eventually(lambda: own.consumers("die"), "it is served", 20)
    with pytest.raises(RemoteError) as caught:
        call("die", str(file), timeout=60)
    supervised.set()
    own.processes.kill_all()
    supervisor.join()

    assert caught.value.type == "KillsServers"
    assert len(file.read_text().split()) == 3


def test_a_queue_declared_with_other_arguments_is_used_as_it_is(own: Servers) -> None:
    with own.broker.channel() as channel:
        channel.queue_declare("elsewhere", durable=False)

    own.start("elsewhere")

    assert call("elsewhere") == "here"


def manage(
    *command: str, stdin: str | None = None, **environment: str
) -> SimpleNamespace:
    """Run a command in a process of its own; return exit code and output."""
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=BASE,
        env=os.environ | ENVIRONMENT | environment,
        input=stdin,
        capture_output=True,
        text=True,
    )
    return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)


def printed(*command: str) -> str:
    """Run a command in this process; return what it prints."""
    out = StringIO()
    call_command(*command, stdout=out)
    return out.getvalue()


def test_the_command_prints_the_result(shared: Servers) -> None:
    assert printed("call", "add", '{"a": 2}') == "3\n"
    assert printed("call", "rpc_test_queue", "--json") == '{"answer": "from B"}\n'
    assert manage("call", "greet", "--text", "-", stdin="ana").out == "hello ana\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["add", "{"], 2, "--text"),
        (["add", "\udcff"], 2, "--text"),
        (["add", "1", "--timeout", "100000"], 2, "at most a day"),
        (["add", '{"a": -1}'], 65, "a: Input should be"),
        (["fail", '"hunter2"'], 1, "ZeroDivisionError"),
        (["sleep", "1", "--timeout", "0.2"], 75, "within 0.2 s"),
        (["missing"], 69, "manage.py serve"),
    ],
)
def test_the_command_has_exit_codes_for_scripts(
    shared: Servers, arguments: list[str], code: int, text: str
) -> None:
    with pytest.raises(CommandError, match=text) as caught:
        call_command("call", *arguments)

    assert caught.value.returncode == code


def test_the_command_prints_only_the_error(shared: Servers) -> None:
    done = manage("call", "missing")

    assert (done.code, done.out) == (69, "")
    assert done.err == (
        "CommandError: No process serves 'missing'. Start `manage.py serve`.\n"
    )


def test_the_command_prints_errors_as_json(shared: Servers) -> None:
    out = StringIO()

    with pytest.raises(CommandError):
        call_command("call", "refuse", "--json", stdout=out)

    assert json.loads(out.getvalue()) == {
        "error": {
            "type": "Reject",
            "message": "That name is taken.",
            "code": "conflict",
        }
    }


@pytest.mark.parametrize("names", [[], ["nothing"], ["add", "--threads", "0"]])
def test_serve_needs_known_names_and_a_thread(names: list[str]) -> None:
    with pytest.raises(CommandError) as caught:
        call_command("serve", *names)

    assert caught.value.returncode == 2
