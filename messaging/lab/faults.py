"""Faults: kills, cuts and freezes, at random but reproducible by seed."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from messaging.conf import settings

from .program import Program
from .servers import WATERMARK, RabbitMQ
from .system import Part, System

logger = logging.getLogger(__name__)

#: Minimum and maximum of seconds until a killed part is started again.
DOWNTIME = (0.0, 1.5)
#: Minimum and maximum of seconds for which a network or a process is stopped.
STOPPED = (0.3, 3.0)
#: Relative frequency of each kind of fault.
WEIGHTS = {
    "kill consumer": 6,
    "kill relay": 2,
    "kill api": 2,
    "kill rabbitmq": 1.5,
    "kill mariadb": 2,
    "kill mongodb": 2,
    "cut": 2,
    "freeze": 1,
    "lose": 1,
    "forget": 0.5,
    "block": 1,
    "stun consumer": 2,
    "hang consumer": 2,
}
#: Faults whose name is not that of a part.
FAULTS_OF_ALL = (
    *("consumer", "stun consumer", "hang consumer"),
    *("cut", "freeze", "lose", "forget", "block"),
)
#: Share of the consumer faults that hit the busiest one; others may be idle.
BUSIEST = 0.6
#: Seconds between two checks for programs that have exited by themselves.
WATCH = 0.2


@dataclass(slots=True)
class Fault:
    """One fault, and when the system was seen to work again."""

    name: str
    at: float
    #: When what was broken was repaired.
    ended_at: float | None = None
    recovered_at: float | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds until recovery, or None."""
        return None if self.recovered_at is None else self.recovered_at - self.at


@dataclass
class Faults:
    """Injects faults into a system until it is stopped, and repairs them."""

    system: System
    seed: int
    #: Seconds between two faults, on average.
    every: float
    #: Keys of `WEIGHTS` to choose from.
    kinds: Sequence[str] = tuple(WEIGHTS)
    faults: list[Fault] = field(default_factory=list)
    #: The shortest and longest time between two faults, as shares of the average.
    spread: ClassVar[tuple[float, float]] = (0.5, 1.5)

    def __post_init__(self) -> None:
        self.kinds = [one for one in self.kinds if self._is_possible(one)]
        self._random = random.Random(f"{self.seed}/faults")
        self._stopping = threading.Event()
        self._busy: set[str] = set()
        #: CPU seconds of consumers at the last comparison.
        self._worked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(thread_name_prefix="faults")
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self.error: Exception | None = None

    def _is_possible(self, kind: str) -> bool:
        return kind.removeprefix("kill ") in {*self.system.parts, *FAULTS_OF_ALL}

    @property
    def kills(self) -> int:
        """The number of kills."""
        return sum(one.name.startswith("kill") for one in self.faults)

    @property
    def down(self) -> list[str]:
        """Names of the parts that are broken right now."""
        return sorted(self._busy)

    def succeeded(self, accepted_at: float, *, request: bool) -> None:
        """
        Record that an operation accepted at that time has taken effect.

        HTTP requests show the recovery of the API, events that of everything else.
        """
        now = time.monotonic()
        for fault in reversed(self.faults):
            if fault.at < accepted_at and (fault.name == "kill api") is request:
                if fault.recovered_at is not None:
                    return
                fault.recovered_at = now

    def start(self) -> None:
        """Start injecting faults."""
        self._thread.start()

    def stop(self) -> None:
        """Inject no more faults, and return when everything runs again."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        next_at = time.monotonic() + self.every
        while not self._stopping.wait(WATCH):
            self.restart_exited()
            if time.monotonic() >= next_at:
                next_at += self.every * self._random.uniform(*self.spread)
                self._break_something()

    def restart_exited(self) -> None:
        """Restart the programs that have exited by themselves."""
        for program in self.system.programs:
            if program.has_exited and program.name not in self._busy:
                logger.warning("%s has exited by itself", program.name)
                program.start()

    def _break_something(self) -> None:
        weights = [WEIGHTS[kind] for kind in self.kinds]
        kind = self._random.choices(self.kinds, weights)[0]
        verb, _, victim = kind.partition(" ")
        if victim == "consumer":
            victim = self._choose_consumer()
        if verb == "kill":
            self._begin(f"kill {victim}", victim, self._kill)
        elif verb == "stun":
            self._begin(f"stun {victim}", victim, self._stun)
        elif verb == "hang":
            self._begin(f"hang {victim}", victim, self._hang)
        elif verb == "block":
            self._begin("block rabbitmq", "rabbitmq", self._block)
        else:
            server = self._random.choice([*self.system.proxies])
            action = {
                "cut": self._cut,
                "freeze": self._freeze,
                "lose": self._lose,
                "forget": self._forget,
            }[verb]
            self._begin(f"{verb} {server}", f"{server} proxy", action)

    def _choose_consumer(self) -> str:
        """Return a random consumer or, more often, the busiest one."""
        anyone = self._random.choice(self.system.consumers).name
        worked = {one.name: one.cpu_seconds for one in self.system.consumers}
        busiest = max(worked, key=lambda name: worked[name] - self._worked[name])
        self._worked.update(worked)
        return busiest if self._random.random() < BUSIEST else anyone

    def _begin(
        self, name: str, victim: str, action: Callable[[str, float], None]
    ) -> None:
        """Run `action` on a part in the background, unless it is already broken."""
        # Drawn even if unused, so that the following faults stay the same.
        share = self._random.random()
        if victim in self._busy:
            return
        self._busy.add(victim)
        fault = Fault(name, time.monotonic())
        self.faults.append(fault)

        def act() -> None:
            try:
                action(victim.removesuffix(" proxy"), share)
            except Exception as error:  # raised again in the main thread
                self.error = error
            finally:
                fault.ended_at = time.monotonic()
                self._busy.discard(victim)

        self._pool.submit(act)

    def _kill(self, name: str, share: float) -> None:
        part: Part = self.system.parts[name]
        part.kill()
        time.sleep(between(DOWNTIME, share))
        part.start()

    def _stun(self, name: str, share: float) -> None:
        """Suspend a process while the broker considers it dead, then resume it."""
        self._suspend(name, between(STOPPED, share), is_cut=True)

    def _hang(self, name: str, share: float) -> None:
        """Suspend a process until others have its leases, mostly with a cut."""
        seconds = settings.LEASE + between(STOPPED, share)
        self._suspend(name, seconds, is_cut=share >= 0.3)

    def _suspend(self, name: str, seconds: float, *, is_cut: bool) -> None:
        program = self.system.parts[name]
        assert isinstance(program, Program)
        proxy = self.system.proxies["rabbitmq"]
        program.suspend()
        try:
            if is_cut:
                proxy.cut(program.ports_to(proxy.address))
            time.sleep(seconds)
        finally:
            program.resume()

    def _cut(self, server: str, share: float) -> None:
        self.system.proxies[server].cut()

    def _freeze(self, server: str, share: float) -> None:
        with self._frozen(server):
            time.sleep(between(STOPPED, share))

    def _lose(self, server: str, share: float) -> None:
        """Freeze all connections, then cut them: data in transit is lost."""
        with self._frozen(server):
            time.sleep(between(STOPPED, share))
            self.system.proxies[server].cut()

    def _forget(self, server: str, share: float) -> None:
        self.system.proxies[server].forget()

    def _block(self, name: str, share: float) -> None:
        """Let the broker block publishers, as if its memory were full."""
        broker = self.system.parts[name]
        assert isinstance(broker, RabbitMQ)
        broker.control("set_vm_memory_high_watermark", "absolute", "1")
        try:
            time.sleep(between(STOPPED, share))
        finally:
            broker.control("set_vm_memory_high_watermark", "absolute", WATERMARK)

    @contextmanager
    def _frozen(self, server: str) -> Iterator[None]:
        self.system.proxies[server].freeze()
        try:
            yield
        finally:
            self.system.proxies[server].thaw()


def between(limits: tuple[float, float], share: float) -> float:
    """Return the value at a fraction of the way between two limits."""
    low, high = limits
    return low + (high - low) * share
