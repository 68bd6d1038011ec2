"""Partitions are shared evenly, and as few as possible are reassigned."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from messaging.cluster.coordinator import assign

names = st.integers(1, 12).map(lambda n: [f"q.{i}" for i in range(n)])
members = st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)


@given(names, members, st.data())
def test_no_two_members_differ_by_more_than_one_partition(
    partitions: list[str], members: list[str], data: st.DataObject
) -> None:
    holders = st.sampled_from([*members, "dead", ""])
    held = {name: data.draw(holders) for name in partitions}

    result = assign(partitions, members, held)

    counts = Counter(dict.fromkeys(members, 0))
    counts.update(result.values())
    assert result.keys() == set(partitions)
    assert counts.keys() == set(members)
    assert max(counts.values()) - min(counts.values()) <= 1


@given(names, members, st.data())
def test_an_even_assignment_does_not_change(
    partitions: list[str], members: list[str], data: st.DataObject
) -> None:
    held = assign(partitions, members, {})

    assert assign(partitions, data.draw(st.permutations(members)), held) == held


@given(names, members)
def test_a_new_member_takes_only_its_share(
    partitions: list[str], members: list[str]
) -> None:
    held = assign(partitions, members, {})

    after = assign(partitions, [*members, "new"], held)

    moved = [name for name in partitions if after[name] != held[name]]
    assert {after[name] for name in moved} <= {"new"}


def test_queues_of_one_partition_are_spread() -> None:
    holders = {assign([f"queue{n}"], ["a", "b"], {})[f"queue{n}"] for n in range(20)}

    assert holders == {"a", "b"}
