"""Texts that bring down what lays them out, stores them or puts them into headers."""

from __future__ import annotations

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"

#: Texts of a description's length that a command takes.
ACCEPTED = {
    "combining marks": "a" + "\u0301" * 9_999,
    "marks on every letter": ("ж" + "\u0321" * 30) * 320,
    "emoji": "\U0001f600" * 1_000,
    "emoji of several characters": FAMILY * 1_400,
    "flags": "\U0001f1ea\U0001f1f8" * 5_000,
    "line breaks": "x" + "\n" * 9_998 + "y",
    "lines of a letter": "я\n" * 5_000,
    "line breaks of every kind": "ж\r\n\u2028\u2029" * 2_000,
    "spaces": "ж" + " " * 9_998 + "y",
    "a word without an end": "я" * 10_000,
    "right to left": "\u05e9\u05dc\u05d5\u05dd " * 2_000,
    "a right-to-left word without an end": "\u0645" * 10_000,
    "both directions": "\u05e9a" * 5_000,
    "turned directions": "\u202eя\u2066" * 3_000,
    "invisible characters": "я" + "\u200b" * 9_999,
    "joiners": "я" + "\u200d\u200c" * 4_999,
    "tabs": "я\t" * 5_000,
    "a number without an end": "9" * 10_000,
    "noncharacters": "\uffff\ufdd0\ue000" * 3_000,
}
#: Texts that no command takes; but an event may be sent by another program.
REFUSED = {
    "NUL": "\0я" * 5_000,
    "terminal sequences": "\x1b[2Jя" * 1_600,
    "surrogates": "я\ud83d" * 5_000,
    "a million letters": "я" * 1_000_000,
    "a million marks": "я" + "\u0301" * 1_000_000,
}
TEXTS = ACCEPTED | REFUSED
