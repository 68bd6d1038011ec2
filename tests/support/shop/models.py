"""Models of all kinds, most of them published."""

from __future__ import annotations

import uuid

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models.functions import Now

from messaging import publishes


class Customer(models.Model):
    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class VisibleManager(models.Manager):
    """A manager that hides rows and builds its querysets itself."""

    def get_queryset(self) -> models.QuerySet:
        return models.QuerySet(self.model, using=self._db).filter(hidden=False)


def first_customer(collector, field, orders, using) -> None:
    """Return the orders of a customer who goes to the first one, row by row."""
    first = Customer.objects.using(using).order_by("pk").first()
    collector.add_field_update(field, first.pk, list(orders))


@publishes(fields=["id", "reference", "total", "customer", "placed_at"])
class Order(models.Model):
    reference = models.CharField(max_length=20, unique=True)
    total = models.DecimalField(max_digits=9, decimal_places=2, default=0)
    customer = models.ForeignKey(
        Customer, models.SET_NULL, null=True, related_name="orders"
    )
    seller = models.ForeignKey(
        Customer, first_customer, null=True, related_name="sales"
    )
    placed_at = models.DateTimeField(db_default=Now())
    hidden = models.BooleanField(default=False)
    watches = GenericRelation("Watch")

    objects = VisibleManager()
    everything = models.Manager()  # noqa: DJ012 ruff knows the name `objects` only

    class Meta:
        base_manager_name = "objects"

    def __str__(self) -> str:
        return self.reference


class UrgentOrder(Order):
    class Meta:
        proxy = True


@publishes(fields="__all__")
class Line(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    weight = models.FloatField(default=1.0)
    data = models.JSONField(default=dict)
    raw = models.BinaryField(default=b"\xff")

    def __str__(self) -> str:
        return str(self.id)


class Watch(models.Model):
    user_id = models.IntegerField()
    lesson_id = models.IntegerField()
    position = models.IntegerField()
    content_type = models.ForeignKey(ContentType, models.CASCADE, null=True)
    object_id = models.BigIntegerField(null=True)
    content = GenericForeignKey()

    def __str__(self) -> str:
        return f"{self.user_id} {self.lesson_id}"


publishes(
    Watch,
    fields=["user_id", "lesson_id", "position"],
    exchange="watch",
    routing_key="{action}",
    event_type=None,
)


class Place(models.Model):
    name = models.CharField(max_length=50)
    tags = models.ManyToManyField(Customer)

    def __str__(self) -> str:
        return self.name


class Restaurant(Place):
    stars = models.IntegerField()


class ShownManager(models.Manager):
    """The rows that are not deleted."""

    def get_queryset(self) -> models.QuerySet:
        return super().get_queryset().exclude(shop__name="closed").filter(deleted=False)


@publishes(fields=["id", "name", "deleted", "tagged_at"])
class Product(models.Model):
    """A model with soft deletion, related to itself and to others."""

    # Before the key, as a mixin may have it.
    tagged_at = models.DateTimeField(db_default=Now())
    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=50)
    deleted = models.BooleanField(default=False)
    shop = models.ForeignKey(Customer, models.CASCADE, null=True)
    buyers = models.ManyToManyField(Customer, related_name="bought")
    sellers = models.ManyToManyField(Customer, through="Offer", related_name="sold")
    similar = models.ManyToManyField("self")

    objects = ShownManager()
    everything = models.Manager()  # noqa: DJ012 ruff knows the name `objects` only

    class Meta:
        base_manager_name = "objects"

    def __str__(self) -> str:
        return self.name


@publishes(fields=["product_id", "customer_id", "price"])
class Offer(models.Model):
    product = models.ForeignKey(Product, models.CASCADE)
    customer = models.ForeignKey(Customer, models.CASCADE)
    price = models.IntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.product_id} {self.customer_id}"


@publishes(fields="__all__")
class Stamp(models.Model):
    """A row whose key is known before it is inserted, but not its time."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return str(self.at)


@publishes(fields=["id", "key", "text"])
class Note(models.Model):
    key = models.CharField(max_length=20)
    text = models.CharField(max_length=50, unique=True)

    def __str__(self) -> str:
        return self.text


@publishes(fields=["text"])
class Echo(models.Model):
    """A text from an event about a note."""

    text = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.text
