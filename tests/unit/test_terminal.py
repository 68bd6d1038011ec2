"""What commands print: nothing that others send controls the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import CommandError

from messaging.management.terminal import Terminal, TerminalCommand, safe
from tests.support import BASE

#: Packages of this project.
OWN = ("messaging", "project", "users", "reports", "examples")
COMMANDS = {
    name: app
    for name, app in get_commands().items()
    if isinstance(app, str) and app.partition(".")[0] in OWN
}
#: Clears the screen, sets the title, starts a sequence with one byte (CSI), hides what
#: follows, reverses the direction of text, overwrites the line, and cannot be encoded.
HOSTILE = "a\x1b[2J\x1b]0;title\x07b\x9b31mc\x8f\x00\u202ed\rline\x7f\ud800e"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_escapes_what_it_prints(name: str) -> None:
    """Whatever a command writes, on both outputs, and as the text of an error."""
    command = load_command_class(COMMANDS[name], name)
    assert isinstance(command, TerminalCommand)

    def handle(**_: Any) -> None:
        command.stdout.write(HOSTILE)
        command.stderr.write(HOSTILE)
        raise CommandError(HOSTILE)

    command.handle = handle  # type: ignore[method-assign]
    outputs = {"stdout": io.StringIO(), "stderr": io.StringIO()}
    options = {"force_color": False, "no_color": True, "skip_checks": True}
    with pytest.raises(CommandError) as failure:
        command.execute(**outputs, **options)
    command.stderr.write(f"CommandError: {failure.value}")  # as Django does

    for output in outputs.values():
        assert "a\\u001b[2J" in output.getvalue()
        assert CONTROLS.findall(output.getvalue()) == []
        output.getvalue().encode()  # a lone surrogate would end the command
    assert outputs["stderr"].getvalue().count("title") == 2


def test_commands_print_by_their_outputs_alone() -> None:
    """What is printed otherwise would not be escaped."""
    folders = [path for own in OWN for path in (BASE / own).rglob("management")]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    assert len(files) > len(COMMANDS)

    found = {
        str(file.relative_to(BASE)): match
        for file in files
        for match in re.findall(
            r"(?<!_)\bprint\(|std(?:out|err)\.(?:buffer|write\()", code(file)
        )
    }

    assert found == {}


def code(file: Path) -> str:
    """Return a module without the outputs of its command."""
    return re.sub(r"self\.std(?:out|err)\.write\(", "", file.read_text())


@pytest.mark.parametrize(
    "text", ["two\nlines\tand a tab", "from Windows\r\n", "ñandú 👩‍👩‍👧 日本\u00a0語"]
)
def test_harmless_text_is_printed_as_it_is(text: str) -> None:
    assert safe(text) == text


def test_colours_and_the_sequences_of_a_command_itself_reach_the_terminal() -> None:
    output = io.StringIO()
    terminal = Terminal(output)

    terminal.write("\x1b[31m", lambda text: f"\x1b[1m{text}\x1b[0m", ending="")
    terminal.control("\x1b[K")

    assert output.getvalue() == "\x1b[1m\\u001b[31m\x1b[0m\x1b[K"
