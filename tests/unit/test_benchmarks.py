"""What the benchmarks make of their samples."""

from __future__ import annotations

from dataclasses import asdict
from xml.etree import ElementTree

import pytest

from tests.benchmarks import page
from tests.benchmarks.chart import chart
from tests.benchmarks.comparison import (
    Contestant,
    Effort,
    Measured,
    Result,
    Row,
    Sample,
    run,
)
from tests.benchmarks.load import parse
from tests.benchmarks.profiling import summary
from tests.benchmarks.tables import varying
from tests.benchmarks.text import number, plain_table


def measured(name: str, *values: float) -> Measured:
    """Return a contestant with a sample for each value."""
    return Measured(name, "classic queue", [Sample(value) for value in values])


def compared(*contestants: Measured) -> Result:
    """Return a result about the last contestant."""
    subject = contestants[-1].name
    texts = ("drain", "applied", "messages/s", subject, "Waiting.", "make", "a day")
    return Result(*texts, "a machine", list(contestants))


def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    plain, ours = measured("plain", 1, 3, 3), measured("ours", 1, 1, 9)

    assert compared(plain, ours).ratio_to(plain) == 1


def test_the_ratio_of_the_cpu_is_without_the_servers() -> None:
    plain = Measured("plain", "", [Sample(1, cpu={"api": 100.0, "broker": 900.0})])
    ours = Measured("ours", "", [Sample(1, cpu={"api": 30.0, "more": 20, "broker": 1})])

    assert compared(plain, ours).cpu_ratio_to(plain) == 0.5
    assert compared(measured("plain", 1), ours).cpu_ratio_to(ours) is None


def test_a_contestant_is_not_compared_with_itself() -> None:
    ours = measured("ours", 1)

    assert compared(measured("plain", 1), ours).ratio_to(ours) is None


def test_contestants_are_measured_in_turn() -> None:
    order = []

    def contestant(name: str) -> Contestant:
        def measure() -> Sample:
            order.append(name)
            return Sample(len(order))

        return Contestant(name, "", measure)

    row = Row("title", "s", [contestant("a"), contestant("b")], "b", 2, "")
    found = run(row)

    assert order == ["a", "b", "a", "b"]
    assert [one.values for one in found] == [[1, 3], [2, 4]]


def test_cpu_is_the_median_of_each_process_and_notes_are_the_highest() -> None:
    cpu = [{"api": n, "broker": 2 * n} for n in (1.0, 5.0, 3.0)]
    notes = [{"not 202": 0.0}, {"not 202": 2.0}, {"not 202": 0.0}]
    pairs = zip(cpu, notes, strict=True)
    found = Measured("a", "", [Sample(1, cpu=c, notes=n) for c, n in pairs])

    assert found.cpu == {"api": 3, "broker": 6}
    assert found.notes == {"not 202": 2}


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [
        (1_000_000, [10_000, 100_000, 1_000_000]),
        (20_000, [10_000, 20_000]),
        (500, [500]),
    ],
)
def test_sizes_grow_in_powers_of_ten(largest: int, sizes: list[int]) -> None:
    assert Effort(largest=largest).sizes == sizes


def test_requests_without_a_202_are_counted() -> None:
    load = parse(
        "Running 1s test\n"
        "answer\t202\t90\n"
        "answer\t503\t2\n"
        "errors\tsockets\t1\n"
        "errors\ttimeouts\t3\n"
        "seconds\tall\t1.5\n"
        "latency\tp50\t12.5\n"
    )

    assert (load.accepted, load.others) == (90, 6)
    assert (load.seconds, load.latency) == (1.5, {"p50": 12.5})


def test_a_profile_lists_functions_by_their_own_time() -> None:
    lines = summary("main;read 1\nmain;parse;read 2\nmain;parse 1\n").splitlines()

    assert [line.split() for line in lines[1:]] == [
        ["75.0%", "75.0%", "read"],
        ["25.0%", "75.0%", "parse"],
    ]


@pytest.mark.parametrize(
    ("column", "kind", "key", "sample", "value"),
    [
        ("user_id", "bigint(20)", "PRI", 1, 7),  # users and ledger
        ("shard", "smallint(5) unsigned", "MUL", 2, 7),  # part of an index
        ("message_id", "varchar(255)", "", "abc", "id"),  # outbox
        ("email", "varchar(254)", "UNI", "a@b.c", "x@y.z"),
    ],
)
def test_columns_that_identify_a_row_vary(
    column: str, kind: str, key: str, sample: object, value: object
) -> None:
    source = varying(column, kind, key, sample)

    assert source is not None
    assert source((7, "id", {"email": "x@y.z"})) == value


@pytest.mark.parametrize("sample", ["0" * 36, b"0" * 16])
def test_other_primary_keys_are_random_and_as_long(sample: str | bytes) -> None:
    source = varying("message_id", "varchar(36)", "PRI", sample)

    assert source is not None
    one, other = source((1, "", {})), source((1, "", {}))
    assert one != other
    assert len(one) == len(sample)


def test_all_other_columns_are_those_of_the_sample() -> None:
    assert varying("status", "varchar(10)", "", "done") is None
    assert varying("email", "double", "", 1.0) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.4123, "0.412"), (12.34, "12.3"), (1530.6, "1,531")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_table_has_no_empty_columns() -> None:
    table = plain_table(compared(measured("plain", 1), measured("ours", 4)))

    assert "ratio" in table
    assert "CPU" not in table


def test_the_chart_is_valid_and_its_longest_bars_are_equally_long() -> None:
    groups = [
        compared(measured("a <b> & c", 10), measured("this project", 40)),
        compared(measured("plain", 1000), measured("this project", 500)),
    ]
    tree = ElementTree.fromstring(chart(groups))

    bars = [one for one in tree.iter() if one.tag.endswith("rect")]
    widths = [int(one.attrib["width"]) for one in bars]
    assert widths[1] == widths[2] == 4 * widths[0] == 2 * widths[3]
    assert [one.attrib["class"] for one in bars] == ["bar", "bar ours"] * 2


def test_results_can_be_stored_and_read() -> None:
    stored = compared(measured("plain", 1, 2), measured("ours", 4, 5))

    assert page.result_of(asdict(stored)) == stored


def test_the_page_and_the_chart_show_what_was_measured() -> None:
    results = page.load()

    charted = [one for one in results if one.name in page.CHARTED]
    assert page.PAGE.read_text() == page.page(results)
    assert page.CHART.read_text() == chart(charted)
