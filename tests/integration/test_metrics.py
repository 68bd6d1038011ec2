"""`/metrics` counts what waits, also while a server is away."""

from __future__ import annotations

from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from messaging.models import Outbox
from messaging.topology import partition_names
from tests.support.messages import ANN, PERSON, handle
from tests.support.processes import API

Values = dict[tuple[str, str], float]


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


def test_metrics_count_what_waits(api: API, no_consumers: None) -> None:
    handle(ANN)
    assert api.post("/users/", PERSON).status_code == 202

    values = scraped(api)

    assert values["messaging_up", "broker"] == 1
    assert values["messaging_up", "default"] == 1
    assert values["messaging_queue_ready", partition_names("users_queue")[0]] == 1
    assert values["messaging_queue_consumers", "users_queue"] == 0
    assert values["messaging_outbox_rows", ""] == Outbox.objects.count() == 1
    assert 0 < values["messaging_outbox_age_seconds", ""] < 60


def test_metrics_are_served_while_a_database_is_away(
    api: API,
    no_consumers: None,
    outage: SimpleNamespace,
) -> None:
    outage.mariadb.kill()

    values = scraped(api)

    assert values["messaging_up", "default"] == 0
    assert values["messaging_up", "broker"] == 1
    assert ("messaging_queue_ready", "users_queue") in values
    assert ("messaging_outbox_rows", "") not in values
