"""Variables with which the project starts without `DEBUG`."""

from __future__ import annotations

KEY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: All but `SECRET_KEY`.
PRODUCTION = {
    "DEBUG": "0",
    "OPEN_ACCESS": "0",
    "IDEMPOTENCY_KEY": KEY[::-1],
    "ALLOWED_HOSTS": "api.example.com",
    "RABBITMQ_URL": "amqps://shop:5cret@broker.example.com:5671/",
    "DATABASE_URL": "sqlite://:memory:",
    "MONGODB_URL": "mongodb://shop:5cret@mongo.example.com/reports?tls=true",
}
