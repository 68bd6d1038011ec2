"""What goes wrong, at random but the same for the same seed."""

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

from messaging.conf import settings

from .program import Program
from .system import Part, System

logger = logging.getLogger(__name__)

#: Seconds a killed part stays away before it is started again.
DOWNTIME = (0.0, 1.5)
#: Seconds a network or a process stands still.
STANDSTILL = (0.3, 3.0)
#: How often each kind of fault is chosen.
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
    "stun consumer": 2,
    "hang consumer": 2,
}
#: What goes wrong with no part of its own.
FAULTS_OF_ALL = (
    *("consumer", "stun consumer", "hang consumer"),
    *("cut", "freeze", "lose", "forget"),
)
#: Share of the consumers' faults that hit the busiest; others may only stand by.
BUSIEST = 0.6
#: Seconds between two looks for programs that have left by themselves.
WATCH = 0.2


@dataclass(slots=True)
class Fault:
    """One thing that went wrong, and when work was seen to go on."""

    name: str
    at: float
    recovered_at: float | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return None if self.recovered_at is None else self.recovered_at - self.at


@dataclass
class Faults:
    """Breaks parts of a system and mends them, until it is told to stop."""

    system: System
    seed: int
    #: Seconds between two faults, on average.
    every: float
    #: Those of `WEIGHTS` to choose from.
    kinds: Sequence[str] = tuple(WEIGHTS)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        parts = {*self.system.parts, *FAULTS_OF_ALL}
        self.kinds = [one for one in self.kinds if one.removeprefix("kill ") in parts]
        self._random = random.Random(f"{self.seed}/faults")
        self._stopping = threading.Event()
        self._busy: set[str] = set()
        #: CPU seconds of consumers when they were last looked at.
        self._worked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(thread_name_prefix="faults")
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self.error: Exception | None = None

    @property
    def kills(self) -> int:
        """How often something was killed."""
        return sum(one.name.startswith("kill") for one in self.faults)

    @property
    def down(self) -> list[str]:
        """What is out of order right now."""
        return sorted(self._busy)

    def succeeded(self, accepted_at: float, *, request: bool) -> None:
        """
        Note that an operation accepted then has had its effect.

        What became of the API shows in `request`s alone, and everything else in events.
        """
        now = time.monotonic()
        for fault in reversed(self.faults):
            if fault.at < accepted_at and (fault.name == "kill api") is request:
                if fault.recovered_at is not None:
                    return
                fault.recovered_at = now

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Break nothing more, and return when everything runs again."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        next_at = time.monotonic() + self.every
        while not self._stopping.wait(WATCH):
            self.restart_leavers()
            if time.monotonic() >= next_at:
                next_at += self.every * self._random.uniform(0.5, 1.5)
                self._break_something()

    def restart_leavers(self) -> None:
        """Start programs again that have left by themselves."""
        for program in self.system.programs:
            if program.has_left and program.name not in self._busy:
                logger.warning("%s has left by itself", program.name)
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
        """Choose any consumer or, more often, the one that has just worked most."""
        anyone = self._random.choice(self.system.consumers).name
        worked = {one.name: one.cpu_seconds for one in self.system.consumers}
        busiest = max(worked, key=lambda name: worked[name] - self._worked[name])
        self._worked.update(worked)
        return busiest if self._random.random() < BUSIEST else anyone

    def _begin(
        self, name: str, victim: str, action: Callable[[str, float], None]
    ) -> None:
        """Let `action` work on a part in the background, unless it is broken."""
        # Drawn even if it is not used, so that the next faults stay the same.
        share = self._random.random()
        if victim in self._busy:
            return
        self._busy.add(victim)
        self.faults.append(Fault(name, time.monotonic()))

        def act() -> None:
            try:
                action(victim.removesuffix(" proxy"), share)
            except Exception as error:  # raised again by those who wait
                self.error = error
            finally:
                self._busy.discard(victim)

        self._pool.submit(act)

    def _kill(self, name: str, share: float) -> None:
        part: Part = self.system.parts[name]
        part.kill()
        time.sleep(between(DOWNTIME, share))
        part.start()

    def _stun(self, name: str, share: float) -> None:
        """Stop a process while the broker takes it for dead, then let it go on."""
        self._suspend(name, between(STANDSTILL, share), is_cut=True)

    def _hang(self, name: str, share: float) -> None:
        """Stop a process until others have taken its leases, mostly cut off."""
        seconds = settings.LEASE + between(STANDSTILL, share)
        self._suspend(name, seconds, is_cut=share >= 0.3)

    def _suspend(self, name: str, seconds: float, *, is_cut: bool) -> None:
        program = self.system.parts[name]
        assert isinstance(program, Program)
        proxy = self.system.proxies["rabbitmq"]
        program.suspend()
        try:
            if is_cut:
                proxy.cut(program.ports_to(proxy.port))
            time.sleep(seconds)
        finally:
            program.resume()

    def _cut(self, server: str, share: float) -> None:
        self.system.proxies[server].cut()

    def _freeze(self, server: str, share: float) -> None:
        with self._frozen(server):
            time.sleep(between(STANDSTILL, share))

    def _lose(self, server: str, share: float) -> None:
        """Cut all connections after a standstill, with everything on its way."""
        with self._frozen(server):
            time.sleep(between(STANDSTILL, share))
            self.system.proxies[server].cut()

    def _forget(self, server: str, share: float) -> None:
        self.system.proxies[server].forget()

    @contextmanager
    def _frozen(self, server: str) -> Iterator[None]:
        self.system.proxies[server].freeze()
        try:
            yield
        finally:
            self.system.proxies[server].thaw()


def between(limits: tuple[float, float], share: float) -> float:
    """Give a value that lies so far between two limits."""
    low, high = limits
    return low + (high - low) * share
