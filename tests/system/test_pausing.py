"""A queue that an operator has paused: its messages wait, and others go on."""

from __future__ import annotations

from messaging.models.lease import Worker
from tests.support.broker import Broker
from tests.support.leases import holders
from tests.support.messages import PERSON
from tests.support.processes import API, Processes
from tests.support.waiting import eventually
from users.models import User

USERS, REPORTS = "users_queue", "reports_queue"
REPORT = {"id_usuario": 1, "tipo_reporte": 1, "descripcion": "d", "ubicacion": "u"}


def test_a_paused_queue_keeps_its_messages_until_it_is_resumed(
    no_consumers: None, processes: Processes, api: API, broker: Broker
) -> None:
    for _ in range(2):
        processes.manage("run_consumer", "users", "reports")
    eventually(lambda: holders(USERS) and holders(REPORTS), "both are consumed", 30)

    assert "is paused" in processes.output("queues", "pause", USERS)
    eventually(lambda: not holders(USERS), "nobody holds it", 10)
    names = [f"n{number}" for number in range(20)]
    for name in names:
        body = PERSON | {"nombre": name, "email": f"{name}@example.com"}
        assert api.post("/users/", body).status_code == 202
    answer = api.post("/reports/", REPORT, headers={"Prefer": "wait=10"})
    assert answer.status_code == 422, "the other queue goes on"
    # A process that starts meanwhile leaves it alone, too.
    processes.manage("run_consumer", "users")
    eventually(lambda: len(Worker.objects.living()) == 3, "it has started", 30)
    assert not holders(USERS)
    assert not User.objects.exists()
    assert broker.count("users_queue.0") == len(names)

    assert "is resumed" in processes.output("queues", "resume", USERS)

    eventually(lambda: User.objects.count() == len(names), "all is applied", 20)
    rows = User.objects.order_by("pk").values_list("nombre", flat=True)
    assert list(rows) == names
