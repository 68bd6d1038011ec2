"""`/metrics` counts what waits and what has happened, also while a server is away."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from types import SimpleNamespace

import pytest
from django.db.models import QuerySet
from prometheus_client.parser import text_string_to_metric_families

from messaging.models import Inbox, Minute, Outbox
from messaging.topology import partition_names
from tests.support import BASE
from tests.support.messages import ANN, PERSON, handle
from tests.support.processes import API, Processes, start_api
from tests.support.waiting import eventually

Values = dict[tuple[str, str], float]
USERS = partition_names("users_queue")[0]
ALERTS = BASE / "docs" / "alerts.yml"
DASHBOARD = BASE / "docs" / "grafana.json"


def scraped(api: API) -> Values:
    """Return the values by name and first label."""
    answer = api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of_type(api: API, event_type: str) -> dict[str, float]:
    """Return the values of counters and histograms of one type of messages."""
    families = text_string_to_metric_families(api.get("/metrics").text)
    return {
        sample.name + sample.labels.get("le", ""): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("type") == event_type
    }


def test_metrics_count_what_waits(api: API, no_consumers: None) -> None:
    handle(ANN)
    assert api.post("/users/", PERSON).status_code == 202

    values = scraped(api)

    assert values["messaging_up", "broker"] == 1
    assert values["messaging_up", "default"] == 1
    assert values["messaging_queue_ready", USERS] == 1
    assert values["messaging_queue_consumers", "users_queue"] == 0
    assert values["messaging_partition_held", USERS] == 0
    assert values["messaging_outbox_rows", ""] == Outbox.objects.count() == 1
    assert 0 < values["messaging_outbox_age_seconds", ""] < 60
    assert 0 <= values["messaging_snapshot_age_seconds", "broker"] < 2


def test_metrics_are_served_while_a_database_is_away(
    api: API,
    no_consumers: None,
    outage: SimpleNamespace,
) -> None:
    time.sleep(0.6)  # until what was read is asked for again
    outage.mariadb.kill()

    values = scraped(api)

    assert values["messaging_up", "default"] == 0
    assert values["messaging_up", "broker"] == 1
    assert ("messaging_queue_ready", "users_queue") in values
    assert ("messaging_outbox_rows", "") not in values


def test_all_processes_export_the_same_totals_and_these_are_exact(
    no_consumers: None, processes: Processes
) -> None:
    apis = [start_api(processes) for _ in range(2)]
    processes.manage("run_consumer", "users")
    for number in range(20):
        email = f"p{number % 19}@example.com"  # the last one is rejected
        answer = apis[number % 2].post("/users/", PERSON | {"email": email})
        assert answer.status_code == 202
    eventually(lambda: Inbox.objects.count() == 20, "all are decided", 60)

    # Other processes may store what they have counted in earlier tests.
    published = Minute.objects.filter(queue="", event_type="user.create")
    own = published.filter(source__in=processes.sources())

    def accepted(rows: QuerySet[Minute]) -> int:
        return sum(rows.values_list("accepted", flat=True))

    eventually(lambda: accepted(own) == 20, "all are counted", 15)
    time.sleep(0.6)  # until the numbers are read again
    values, others = (of_type(api, "user.create") for api in apis)
    assert values == others
    assert values["messaging_accepted_total"] == accepted(published)
    assert values["messaging_handled_total"] == 19
    assert values["messaging_dead_lettered_total"] == 1
    assert values["messaging_failed_attempts_total"] == 1
    assert values["messaging_retried_total"] == 0
    assert values["messaging_refused_total"] == 0
    for name in ("wait", "handling"):
        assert values[f"messaging_{name}_seconds_count"] == 20
        assert values[f"messaging_{name}_seconds_bucket+Inf"] == 20
        assert 0 < values[f"messaging_{name}_seconds_sum"] < 600


@pytest.mark.parametrize(
    ("server", "name"),
    [("rabbitmq", "broker"), ("mariadb", "default"), ("mongodb", "reports")],
)
def test_a_frozen_server_is_named_within_a_second_and_a_half(
    api: API, no_consumers: None, outage: SimpleNamespace, server: str, name: str
) -> None:
    assert scraped(api)["messaging_up", name] == 1
    time.sleep(0.6)  # until what was read is asked for again

    getattr(outage, server).pause()
    times = []
    for _ in range(2):
        started = time.monotonic()
        values = scraped(api)
        times.append(time.monotonic() - started)

    up = {alias: value for (one, alias), value in values.items() if one.endswith("_up")}
    assert up == {"broker": 1, "default": 1, "reports": 1} | {name: 0}
    assert values["messaging_snapshot_age_seconds", name] > 0.6
    assert max(times) < 1.5
    getattr(outage, server).resume()
    eventually(
        lambda: scraped(api)["messaging_up", name] == 1, "it is back", 60, interval=1
    )


def exported(api: API) -> set[str]:
    """Return the names of all samples that may be exported."""
    families = text_string_to_metric_families(api.get("/metrics").text)
    suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}
    return {
        family.name + suffix
        for family in families
        for suffix in suffixes.get(family.type, ("",))
    }


def test_dashboard_and_alerts_use_what_is_exported(api: API) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    alerts = ALERTS.read_text()
    used = set(re.findall(r"\bmessaging_\w+", " ".join([*queries, alerts])))

    assert len(queries) > 8
    assert used - exported(api) == set()


@pytest.mark.slow
def test_prometheus_accepts_metrics_and_alerts(api: API) -> None:
    assert shutil.which("promtool"), "project/setup.sh all-tests installs it"
    rules = subprocess.run(
        ["promtool", "check", "rules", ALERTS], capture_output=True, text=True
    )
    assert rules.returncode == 0, rules.stdout + rules.stderr
    tests = subprocess.run(
        ["promtool", "test", "rules", BASE / "tests" / "support" / "alerts.test.yml"],
        capture_output=True,
        text=True,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    handle(ANN)
    metrics = subprocess.run(
        ["promtool", "check", "metrics"],
        input=api.get("/metrics").text,
        capture_output=True,
        text=True,
    )
    assert metrics.returncode == 0, metrics.stdout + metrics.stderr
