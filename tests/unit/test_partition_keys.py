"""The partition key of each message."""

from __future__ import annotations

from reports.commands import ReportCreate


def test_reports_without_an_id_share_a_key_only_with_their_author() -> None:
    given = {"tipo_reporte": 1, "descripcion": "Bache"}
    ana, eva = (ReportCreate(id_usuario=author, **given) for author in (1, 2))
    named = ReportCreate(id_usuario=1, id_reporte="a", **given)

    assert len({ana.partition_key, eva.partition_key, named.partition_key}) == 3
    assert named.partition_key == "report:a"
