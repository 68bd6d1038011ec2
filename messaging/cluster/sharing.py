"""Which process is to hold which partition."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence


def share(
    partitions: Sequence[str], members: Sequence[str], held: Mapping[str, str]
) -> dict[str, str]:
    """
    Divide the partitions of one queue among its members, and give each one's holder.

    No two members differ by more than one partition, and of what is `held` as little
    as possible moves. Whoever computes it from the same events gets the same result.
    """
    if not members:
        return {}
    has: dict[str, list[str]] = {member: [] for member in members}
    for partition in partitions:
        if held.get(partition) in has:
            has[held[partition]].append(partition)
    # Who has most keeps most; else by chance, or one would hold all single partitions.
    order = sorted(
        members, key=lambda member: (-len(has[member]), _rank(partitions[0], member))
    )
    least, more = divmod(len(partitions), len(members))
    result: dict[str, str] = {}
    room: list[str] = []
    for place, member in enumerate(order):
        quota = least + (place < more)
        kept = has[member][:quota]
        result |= dict.fromkeys(kept, member)
        room += [member] * (quota - len(kept))
    free = [partition for partition in partitions if partition not in result]
    return result | dict(zip(free, room, strict=True))


def _rank(queue: str, member: str) -> int:
    return zlib.crc32(f"{queue} {member}".encode())
