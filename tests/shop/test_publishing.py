"""Published models emit an event for every change, and no others, on any database."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core import serializers
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import IntegrityError, connection, connections, models, transaction
from django.db.models import Count, F, Value
from django.db.models.functions import Concat

from messaging import Unpublishable, publishes, suppressed, unsuppressed
from messaging.checks import check_sqlite
from messaging.exceptions import TooLarge
from messaging.models import Outbox
from messaging.registry import handlers, publications
from messaging.sources import Exchange
from messaging.topology import declared
from tests.support.shop.models import (
    Customer,
    Line,
    Order,
    Place,
    Product,
    Restaurant,
    Stamp,
    UrgentOrder,
    Watch,
)

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


def emitted() -> list[tuple[str, dict[str, Any]]]:
    """Return and delete the outbox rows, as routing keys and bodies."""
    rows = [(row.routing_key, json.loads(bytes(row.body))) for row in events()]
    Outbox.objects.all().delete()
    return rows


def events() -> models.QuerySet[Outbox]:
    """Return the rows of the outbox in order."""
    return Outbox.objects.order_by("pk")


def references(action: str) -> list[str]:
    """Return the references of the emitted events, which all have one action."""
    messages = emitted()
    assert {key for key, _ in messages} <= {f"shop.order.{action}"}
    return [body["reference"] for _, body in messages]


def make_orders(*names: str, **fields: Any) -> list[Order]:
    """Create orders without events."""
    with suppressed():
        return [Order.everything.create(reference=name, **fields) for name in names]


@pytest.fixture
def place() -> Iterator[type[models.Model]]:
    """A model that the test may publish."""
    yield Place
    publications.pop(Place, None)


def test_creating_updating_and_deleting_a_row_emits_events() -> None:
    ann = Customer.objects.create(name="Ann")

    order = Order.objects.create(reference="A-1", total="12.5", customer=ann)
    order.total = 13
    order.save()
    number = order.pk
    order.delete()

    (created, first), (updated, second), (deleted, third) = emitted()
    assert created == "shop.order.created"
    placed_at = first.pop("placed_at")
    assert placed_at.startswith("20")
    assert first == {
        "event_type": "shop.order.created",
        "id": number,
        "reference": "A-1",
        "total": "12.50",
        "customer": ann.pk,
    }
    assert (updated, second["total"]) == ("shop.order.updated", "13.00")
    assert (deleted, third["total"]) == ("shop.order.deleted", "13.00")
    assert second["placed_at"] == third["placed_at"] == placed_at


def test_exchange_routing_key_and_body_are_configurable() -> None:
    Watch.objects.create(user_id=42, lesson_id=100, position=314)

    row = events().get()
    assert (row.exchange, row.routing_key, row.type) == (
        "watch",
        "created",
        "shop.watch.created",
    )
    assert json.loads(bytes(row.body)) == {
        "user_id": 42,
        "lesson_id": 100,
        "position": 314,
    }


def test_all_types_of_values_are_encoded_as_json() -> None:
    (order,) = make_orders("A-1")

    line = Line.objects.create(order=order, weight=float("1e300"), data={"a": [None]})

    ((_, body),) = emitted()
    assert body == {
        "event_type": "shop.line.created",
        "id": str(line.pk),
        "order_id": order.pk,
        "weight": 1e300,
        "data": {"a": [None]},
        "raw": "_w==",
    }


def test_events_have_the_stored_values() -> None:
    order = Order.objects.create(reference=Concat(Value("A"), Value("-1")))
    order.total = F("total") + 2
    order.save()

    assert [(body["reference"], body["total"]) for _, body in emitted()] == [
        ("A-1", "0.00"),
        ("A-1", "2.00"),
    ]


def test_a_rolled_back_change_emits_no_event() -> None:
    with transaction.atomic():
        Order.objects.create(reference="A-1")
        transaction.set_rollback(True)
    with pytest.raises(IntegrityError), transaction.atomic():
        Order.objects.bulk_create(Order(reference=name) for name in "aa")

    assert not Order.objects.exists()
    assert emitted() == []


def test_a_row_whose_event_is_too_large_is_not_written(settings: Any) -> None:
    settings.MESSAGING = settings.MESSAGING | {"MAX_BODY": 100}

    with pytest.raises(TooLarge):
        Order.objects.create(reference="A-1")

    assert not Order.everything.exists()


def test_a_save_outside_of_transactions_commits_row_and_event_together() -> None:
    """Another transaction sees either both or none at any time."""
    seen: list[tuple[bool, bool]] = []
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time, and one connection in memory")

    def look() -> None:
        for _ in range(200):
            with transaction.atomic():
                events = Outbox.objects.count()
                orders = Order.everything.count()
            seen.append(orders >= events)
        connections.close_all()

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(100):
        Order.objects.create(reference=f"A-{number}")
    watcher.join()

    assert all(seen)
    assert len(emitted()) == 100


def test_events_of_a_row_are_in_the_order_of_its_commits() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time, and one connection in memory")
    (order,) = make_orders("a")
    row = Order.objects.filter(pk=order.pk)

    def write() -> None:
        for number in range(50):
            if number % 2:
                row.update(total=F("total") + 1)
            else:
                with transaction.atomic():
                    mine = row.select_for_update().get()
                    mine.total += 1
                    mine.save()
        connections.close_all()

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    totals = [float(body["total"]) for _, body in emitted()]
    assert totals == [float(number) for number in range(1, 151)]


def test_bulk_create_emits_an_event_for_each_row() -> None:
    orders = Order.objects.bulk_create(
        [Order(reference=f"A-{number}") for number in range(1200)], batch_size=700
    )

    assert len(orders) == 1200
    assert references("created") == [f"A-{number}" for number in range(1200)]


def test_bulk_create_emits_events_for_rows_with_given_keys() -> None:
    (order,) = make_orders("A-1")
    Line.objects.bulk_create([Line(order=order), Line(order=order)])
    Watch.objects.bulk_create(
        [
            Watch(pk=7, user_id=1, lesson_id=1, position=1),
            Watch(user_id=2, lesson_id=1, position=1),
        ]
    )

    assert [key for key, _ in emitted()] == ["shop.line.created"] * 2 + ["created"] * 2


def test_bulk_create_works_if_the_database_returns_one_key_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MySQL is such a database."""
    features = connection.features
    monkeypatch.setattr(type(features), "can_return_rows_from_bulk_insert", False)
    if connection.vendor != "postgresql":
        # Not of the class, where it is a cached property.
        monkeypatch.setattr(features, "can_return_columns_from_insert", False)

    Order.objects.bulk_create([Order(reference=name) for name in "abc"])
    Order.objects.create(reference="d")

    assert references("created") == ["a", "b", "c", "d"]


@pytest.fixture
def without_returning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that returns no columns of new rows, such as MySQL."""
    features = connection.features
    monkeypatch.setattr(type(features), "can_return_rows_from_bulk_insert", False)
    if connection.vendor == "postgresql":
        pytest.skip("PostgreSQL has no other way to return keys")
    monkeypatch.setattr(features, "can_return_columns_from_insert", False)
    for model in (Order, Product, Stamp):
        monkeypatch.setitem(
            model._meta.__dict__,
            "db_returning_fields",
            [field for field in [model._meta.pk] if field.db_returning],
        )


def test_values_that_the_database_chooses_are_those_of_the_row(
    without_returning: None,
) -> None:
    product = Product.objects.create(name="a")
    chosen = product.tagged_at
    product.name = "b"
    product.save()
    stamp = Stamp.objects.create()
    bulk = Order.objects.bulk_create([Order(reference=name) for name in "ab"])

    found = Product.objects.get()
    assert found.tagged_at == chosen
    first, second, third, *_ = [body for _, body in emitted()]
    at = serializers.serialize("python", [product])[0]["fields"]["tagged_at"]
    assert at == chosen
    assert datetime.fromisoformat(first["tagged_at"]) == chosen
    assert datetime.fromisoformat(second["tagged_at"]) == chosen
    assert datetime.fromisoformat(third["at"]) == stamp.at == Stamp.objects.get().at
    rows = Order.objects.order_by("pk").values_list("placed_at", flat=True)
    assert [order.placed_at for order in bulk] == list(rows)


@pytest.mark.parametrize(
    "options",
    [
        {"ignore_conflicts": True},
        {
            "update_conflicts": True,
            "update_fields": ["total"],
            "unique_fields": ["reference"],
        },
    ],
)
def test_bulk_create_with_conflict_options_is_refused(options: Any) -> None:
    if connection.vendor == "mysql":
        options.pop("unique_fields", None)

    with pytest.raises(Unpublishable, match="update_or_create"):
        Order.objects.bulk_create([Order(reference="A-1")], **options)

    assert not Order.everything.exists()


def test_bulk_update_emits_an_event_for_each_row() -> None:
    orders = make_orders("a", "b", "c")
    for number, order in enumerate(orders):
        order.total = number

    Order.objects.bulk_update(orders, ["total"], batch_size=2)

    assert [(body["reference"], body["total"]) for _, body in emitted()] == [
        ("a", "0.00"),
        ("b", "1.00"),
        ("c", "2.00"),
    ]


def test_an_update_emits_events_for_rows_that_no_longer_match() -> None:
    make_orders("a", "b")
    make_orders("c", total=5)

    count = Order.objects.filter(total=0).update(total=F("total") + 1)

    assert count == 2
    assert [(body["reference"], body["total"]) for _, body in emitted()] == [
        ("a", "1.00"),
        ("b", "1.00"),
    ]


def test_an_update_of_thousands_emits_an_event_for_each() -> None:
    with suppressed():
        Order.objects.bulk_create(Order(reference=f"A-{n}") for n in range(1203))

    assert Order.objects.update(total=1) == 1203

    assert len(references("updated")) == 1203


def test_updates_with_joins_annotations_and_order_emit_events() -> None:
    ann, bob = (Customer.objects.create(name=name) for name in ("Ann", "Bob"))
    a, _ = make_orders("a", "b", customer=ann)
    make_orders("c", customer=bob)
    with suppressed():
        Line.objects.bulk_create([Line(order=a), Line(order=a)])
    orders = Order.objects.filter(customer__name="Ann")

    assert orders.select_related("customer").update(total=1) == 2
    assert orders.annotate(n=Count("lines")).filter(n=2).update(total=2) == 1
    assert orders.annotate(more=F("total") + 1).update(total=F("more")) == 2
    assert Order.objects.filter(lines__weight=1).distinct().update(total=9) == 1
    assert Order.objects.order_by("-reference").update(total=0) == 3
    assert Order.objects.none().update(total=1) == 0

    bodies = [(body["reference"], body["total"]) for _, body in emitted()]
    assert sorted(bodies[:2]) == [("a", "1.00"), ("b", "1.00")]
    assert bodies[2] == ("a", "2.00")
    assert sorted(bodies[3:5]) == [("a", "3.00"), ("b", "2.00")]
    assert bodies[5] == ("a", "9.00")
    assert len(bodies) == 9


def test_updates_through_any_manager_and_relation_emit_events() -> None:
    ann = Customer.objects.create(name="Ann")
    a, b = make_orders("a", "b")
    with suppressed():
        line = Line.objects.create(order=a)
        watch = Watch.objects.create(user_id=1, lesson_id=1, position=1)

    ann.orders.add(a, b)
    ann.orders.update(total=1)
    ann.orders.clear()
    b.lines.add(line)
    a.watches.add(watch, bulk=True)
    Order._base_manager.filter(pk=a.pk).update(total=2)
    UrgentOrder.objects.filter(pk=a.pk).update(total=3)
    models.QuerySet(Order).filter(pk=a.pk).update(total=4)
    Order.objects.using("default").filter(pk=a.pk).update(total=5)
    async_to_sync(Order.objects.filter(pk=a.pk).aupdate)(total=6)

    assert [key.removeprefix("shop.") for key, _ in emitted()] == [
        *["order.updated"] * 6,
        "line.updated",
        "updated",
        *["order.updated"] * 5,
    ]


def test_rows_that_a_manager_filters_out_emit_events() -> None:
    order = Order.everything.create(reference="a", hidden=True)
    Order.everything.update(total=1)
    Order.everything.all().delete()

    assert len(emitted()) == 3
    assert not Order.everything.filter(pk=order.pk).exists()


def test_a_row_that_its_manager_hides_once_it_is_changed_emits_an_event() -> None:
    with suppressed():
        shop = Customer.objects.create(name="closed")
        gone, moved, kept = (Product.objects.create(name=name) for name in "abc")

    gone.deleted = True
    gone.save()
    moved.shop = shop
    moved.save(update_fields=["shop"])
    kept.save()

    assert [(key, body["name"], body["deleted"]) for key, body in emitted()] == [
        ("shop.product.updated", "a", True),
        ("shop.product.updated", "b", False),
        ("shop.product.updated", "c", False),
    ]


def test_changes_of_many_to_many_fields_emit_events_of_their_row() -> None:
    ann, bob = (Customer.objects.create(name=name) for name in ("Ann", "Bob"))
    with suppressed():
        a, b = (Product.objects.create(name=name) for name in "ab")

    def updated(change: Callable[[], None]) -> list[str]:
        change()
        return sorted(body["name"] for _, body in emitted())

    assert updated(lambda: a.buyers.add(ann, bob)) == ["a"]
    assert updated(lambda: a.buyers.add(ann)) == []
    assert updated(lambda: a.buyers.set([bob.pk])) == ["a"]
    assert updated(lambda: ann.bought.add(a, b)) == ["a", "b"]
    assert updated(lambda: a.buyers.remove(ann)) == ["a"]
    assert updated(lambda: bob.bought.clear()) == ["a"]
    assert updated(lambda: a.buyers.clear()) == []
    assert updated(lambda: b.buyers.clear()) == ["b"]
    assert set(updated(lambda: a.similar.add(b))) == {"a", "b"}
    assert set(updated(lambda: a.similar.clear())) == {"a", "b"}
    with suppressed():
        assert updated(lambda: a.buyers.add(bob)) == []


def test_rows_of_a_published_through_model_emit_events() -> None:
    with suppressed():
        ann = Customer.objects.create(name="Ann")
        product = Product.objects.create(name="a")

    product.sellers.add(ann, through_defaults={"price": 7})
    product.sellers.clear()

    messages = emitted()
    assert sorted(key for key, _ in messages) == [
        "shop.offer.created",
        "shop.offer.deleted",
        "shop.product.updated",
        "shop.product.updated",
    ]
    prices = {body["price"] for key, body in messages if "offer" in key}
    assert prices == {7}


def test_get_or_create_and_update_or_create_emit_events() -> None:
    Order.objects.get_or_create(reference="a")
    Order.objects.get_or_create(reference="a")
    Order.objects.update_or_create(reference="a", defaults={"total": 1})
    Order.objects.update_or_create(reference="b", defaults={"total": 1})

    assert [key.rpartition(".")[2] for key, _ in emitted()] == [
        "created",
        "updated",
        "created",
    ]


def test_rows_of_a_fixture_emit_events() -> None:
    (order,) = make_orders("a")
    dump = serializers.serialize("json", [order])
    with suppressed():
        order.delete()

    for loaded in serializers.deserialize("json", dump):
        loaded.save()

    assert references("created") == ["a"]


def test_proxies_emit_the_events_of_their_model() -> None:
    UrgentOrder.objects.create(reference="a")
    UrgentOrder.objects.create(reference="b")
    UrgentOrder.objects.get(reference="a").delete()
    UrgentOrder.objects.all().delete()

    assert [(key, body["reference"]) for key, body in emitted()] == [
        ("shop.order.created", "a"),
        ("shop.order.created", "b"),
        ("shop.order.deleted", "a"),
        ("shop.order.deleted", "b"),
    ]


def test_a_proxy_defined_later_emits_events() -> None:
    class LateOrder(Order):
        class Meta:
            proxy = True
            app_label = "shop"

    make_orders("a", "b")
    LateOrder.objects.get(reference="a").delete()
    LateOrder.objects.all().delete()

    assert references("deleted") == ["a", "b"]


def test_deletions_of_many_rows_and_cascades_emit_events() -> None:
    a, _ = make_orders("a", "b")
    with suppressed():
        Line.objects.bulk_create([Line(order=a), Line(order=a)])

    Order.objects.all().delete()

    keys = [key for key, _ in emitted()]
    assert sorted(keys) == ["shop.line.deleted"] * 2 + ["shop.order.deleted"] * 2


def test_a_deletion_without_loading_emits_an_event() -> None:
    make_orders("a", "b")

    orders = Order.objects.filter(reference="a")
    assert orders._raw_delete("default") == 1

    assert references("deleted") == ["a"]
    assert Order.objects.get().reference == "b"


def test_rows_updated_by_a_deletion_emit_events() -> None:
    ann, bob = (Customer.objects.create(name=name) for name in ("Ann", "Bob"))
    make_orders("a", customer=bob)
    make_orders("b", seller=bob)

    bob.delete()

    messages = emitted()
    assert [(key, body["customer"]) for key, body in messages] == [
        ("shop.order.updated", None),
        ("shop.order.updated", None),
    ]
    assert Order.objects.get(reference="b").seller == ann


def test_deleting_a_missing_row_emits_no_event() -> None:
    (order,) = make_orders("a")
    with suppressed():
        Order.objects.all().delete()

    order.delete()

    assert emitted() == []


def test_suppressed_changes_emit_no_events_unless_unsuppressed() -> None:
    with suppressed():
        order = Order.objects.create(reference="a")
        Order.objects.update(total=1)
        with unsuppressed():
            order.save()
        order.delete()

    assert references("updated") == ["a"]


@pytest.mark.parametrize("name", ["pk", "id"])
def test_an_update_of_the_primary_key_is_refused(name: str) -> None:
    make_orders("a")

    with pytest.raises(Unpublishable, match="primary key"):
        Order.objects.update(**{name: 7})


def test_invalid_updates_raise_the_errors_of_django() -> None:
    orders = make_orders("a", "b")

    with pytest.raises(TypeError, match="slice"):
        Order.objects.all()[:1].update(total=1)
    with pytest.raises(Exception, match="union"):
        Order.objects.union(Order.objects.all()).update(total=1)
    with pytest.raises(Exception, match="nonsense"):
        Order.objects.update(nonsense=1)
    assert emitted() == []
    assert len(orders) == 2


def test_rows_in_another_database_are_refused() -> None:
    with pytest.raises(Unpublishable, match=r"'other'.*share no transaction"):
        Order.objects.using("other").create(reference="a")
    with pytest.raises(Unpublishable, match="'other'"):
        Order.objects.using("other").update(total=1)
    with suppressed():
        order = Order.objects.using("other").create(reference="a")
    with pytest.raises(Unpublishable, match="'other'"):
        order.delete()
    with pytest.raises(Unpublishable, match="'other'"):
        Order.objects.using("other").all().delete()

    assert Order.everything.using("other").get() == order


def test_rows_of_several_tables_are_refused_in_checks_and_at_run_time(
    place: type[models.Model],
) -> None:
    publishes(place, fields=["name"])

    with pytest.raises(Unpublishable, match=r"shop.Restaurant .multi-table"):
        Place.objects.create(name="a")
    with pytest.raises(Unpublishable, match="multi-table"):
        Restaurant.objects.create(name="a", stars=5)
    with pytest.raises(Unpublishable, match="multi-table"):
        Restaurant.objects.update(name="b")
    with pytest.raises(SystemCheckError, match=r"messaging.E010.*"):
        call_command("check")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"fields": ["nonsense"]}, "no field 'nonsense'"),
        ({"fields": ["tags"]}, "not a column"),
    ],
)
def test_names_that_are_not_columns_are_refused(
    place: type[models.Model], options: Any, problem: str
) -> None:
    publishes(place, **options)

    with pytest.raises(Unpublishable, match=problem):
        Place.objects.create(name="a")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"fields": []}, "without any field"),
        ({"fields": "name"}, "list of names"),
        ({"fields": ["name"], "exchange": ""}, "not the default"),
        ({"fields": ["name"], "exchange_type": "round"}, "one of topic"),
        ({"fields": ["name"], "exchange_type": "fanout"}, "is of type topic"),
        ({"fields": ["name"], "routing_key": "{what}"}, "placeholders"),
        ({"fields": ["name"], "routing_key": "{"}, "placeholders"),
        ({"fields": ["name"], "routing_key": "x" * 300}, "longer than"),
    ],
)
def test_invalid_arguments_are_refused_at_once(
    place: type[models.Model], options: Any, problem: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=problem):
        publishes(place, **options)


@pytest.mark.parametrize(
    "model",
    [Order, UrgentOrder, Place.tags.through, Outbox],
    ids=["published already", "proxy", "many to many", "outbox"],
)
def test_a_model_is_published_once_and_not_by_proxy(
    model: type[models.Model],
) -> None:
    with pytest.raises(ImproperlyConfigured):
        publishes(model, fields="__all__")


def test_the_table_of_a_many_to_many_field_is_refused_with_the_way_out() -> None:
    with pytest.raises(ImproperlyConfigured, match="`through` model of your own"):
        publishes(Product.buyers.through, fields="__all__")


def test_the_topology_has_the_exchanges_of_published_models() -> None:
    exchanges = {item for item in declared() if isinstance(item, Exchange)}

    assert {(one.name, one.type) for one in exchanges} == {
        ("events", "topic"),
        ("messaging.partitions", "direct"),
        ("watch", "topic"),
        *((f"{queue}.public", "fanout") for queue in handlers),
    }


def test_sqlite_is_for_development() -> None:
    found = {one.id for one in check_sqlite(None)}

    assert ("messaging.W013" in found) == (connection.vendor == "sqlite")


def test_events_of_a_row_have_one_partition_key() -> None:
    (order,) = make_orders("a")
    order.save()
    Order.objects.update(total=1)

    keys = {row.headers["partition_key"] for row in events()}

    assert keys == {f"shop.order:{order.pk}"}
