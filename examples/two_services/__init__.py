"""
Two services that communicate through RabbitMQ.

docs/two-services.md explains them; open messages.py first, then service_a/urls.py and
service_b/handlers.py.
"""
