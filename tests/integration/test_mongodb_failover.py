"""A replica set of MongoDB whose primary changes; a proxy stands in for its members."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_plus

import pytest
from django.db import DatabaseError, connections

from messaging import Unavailable
from messaging.database import read_lagging
from reports.documents import delete, write_documents
from reports.models import Report
from tests.support.mongodb_proxy import NAMES, MemberProxy

OPTIONS = "replicaSet=rs&retryWrites=false&readPreference=secondaryPreferred"
pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


@pytest.fixture
def member(servers: SimpleNamespace) -> Iterator[MemberProxy]:
    """The proxy, to which the connection `reports` goes, preferring secondaries."""
    connection: Any = connections["reports"]
    connection.close_pool()
    values = connection.settings_dict
    kept = values["HOST"]
    with (
        tempfile.TemporaryDirectory() as folder,
        MemberProxy(Path(folder) / "m.sock", servers.mongodb.address) as proxy,
    ):
        url = f"mongodb://{quote_plus(str(proxy.address))}/reports"
        values["HOST"] = f"{url}?{OPTIONS}"
        yield proxy
        connection.close_pool()
    values["HOST"] = kept


@pytest.mark.parametrize("code", sorted(NAMES))
def test_a_member_that_cannot_write_makes_the_batch_wait(
    member: MemberProxy, code: int
) -> None:
    write = delete("00000000-0000-4000-8000-000000000001", 2)
    member.code = code

    # The failure policy waits on it for ever: no message is at fault.
    with pytest.raises(Unavailable):
        write_documents([write])

    assert member.refused
    member.code = None
    write_documents([write])
    assert Report.with_tombstones.get(pk=write.id_reporte).version == 2


@pytest.mark.parametrize("code", sorted(NAMES.keys() - {64}))
def test_a_read_of_such_a_member_is_an_error_of_the_database(
    member: MemberProxy, code: int
) -> None:
    member.code, member.refuses = code, ("find", "aggregate")

    with pytest.raises(DatabaseError):
        list(Report.objects.all())


def test_only_reads_that_may_lag_go_to_secondaries(member: MemberProxy) -> None:
    list(Report.objects.all())
    write_documents([delete("00000000-0000-4000-8000-000000000002", 2)])
    queries = [one for one in member.preferences if one[0] in ("find", "update")]
    assert {mode for _name, mode in queries} == {"primary"}

    # As the lists of the API are read.
    read_lagging(lambda: list(Report.objects.all()))

    assert ("find", "secondaryPreferred") in member.preferences
