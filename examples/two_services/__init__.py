"""Two services that talk through RabbitMQ; docs/two-services.md walks through them."""
