"""
What commands print: text of other programs cannot control the terminal.

Messages, replies and names come from anybody who may publish. Escape sequences in them
could hide lines, forge others, or make a terminal type.
"""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from typing import Any

from django.core.management.base import BaseCommand, OutputWrapper
from django.core.management.color import no_style

from messaging.logs.context import Command as Started
from messaging.logs.context import work, working_on

#: Control characters but tab and line break, what reverses the direction of text, and
#: what cannot be encoded. In JSON, the escapes below mean the same characters.
UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff]|\r(?!\n)"
)


def safe(text: str) -> str:
    r"""Return a text with characters that control a terminal escaped, as in \u001b."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Terminal(OutputWrapper):
    """An output of a command: everything but `control` is made safe."""

    _out: Any

    def write(  # type: ignore[override]
        self, msg: str = "", style_func: Any = None, ending: Any = None
    ) -> None:
        """Write a text, with the colours of `style_func`."""
        super().write(safe(str(msg)), style_func, ending)

    def control(self, sequence: str) -> None:
        """Write a sequence that controls the terminal."""
        self._out.write(sequence)


class TerminalCommand(BaseCommand):
    """
    A command whose output cannot control the terminal.

    What it publishes names who has started it.
    """

    stdout: Terminal
    stderr: Terminal

    def __init__(self, stdout: Any = None, stderr: Any = None, **options: Any) -> None:
        super().__init__(stdout, stderr, **options)
        colours = self.stderr.style_func
        self.stdout = Terminal(stdout or sys.stdout)
        self.stderr = Terminal(stderr or sys.stderr)
        self.stderr.style_func = colours

    def execute(self, *args: Any, **options: Any) -> Any:
        """Run the command, with the outputs that `call_command` may have been given."""
        if output := options.pop("stdout", None):
            self.stdout = Terminal(output)
        if output := options.pop("stderr", None):
            self.stderr = Terminal(output)
        # One that another command or a request has started acts for the same person.
        with nullcontext() if work.get() else working_on(Started()):
            return super().execute(*args, **options)

    def check(self, *args: Any, **options: Any) -> None:
        """Run system checks, whose texts Django colours before it writes them."""
        style, self.style = self.style, no_style()
        try:
            super().check(*args, **options)
        finally:
            self.style = style
