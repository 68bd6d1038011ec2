"""
A program that knows nothing but an AsyncAPI document, which is its first argument.

It binds a queue to every event, sends the examples of every command, each with an
e-mail address of its own, and prints a line of JSON for each outcome and each event.
What does not match its schema ends it. It stops when it has received every event.
"""

import asyncio
import json
import os
import sys
import uuid

from aio_pika import Message, connect
from jsonschema import Draft7Validator


class Document:
    """The document, with its references resolved."""

    def __init__(self, path):
        with open(path) as file:
            self.content = json.load(file)

    def resolve(self, item):
        """Return what a reference stands for."""
        while "$ref" in item:
            found = self.content
            for part in item["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            item = found
        return item

    def operations(self, action):
        """Yield the channel, messages and reply of each operation."""
        for operation in self.content["operations"].values():
            if operation["action"] == action:
                messages = [self.resolve(one) for one in operation["messages"]]
                yield (
                    self.resolve(operation["channel"]),
                    messages,
                    operation.get("reply"),
                )

    def validate(self, schema, value):
        """Raise an exception if a value does not match a schema."""
        components = {"components": self.content["components"]}
        Draft7Validator({**self.resolve(schema), **components}).validate(value)

    def url(self):
        """Return the address of the broker, with credentials from the environment."""
        server = self.content["servers"]["broker"]
        path = server["pathname"].removeprefix("/")
        credentials = os.environ["CREDENTIALS"]
        return f"{server['protocol']}://{credentials}@{server['host']}/{path}"


def with_own_address(body, schema):
    """Return a body with another value in each field that is an e-mail address."""
    fields = schema["properties"]
    mails = [name for name in body if '"format": "email"' in json.dumps(fields[name])]
    return body | {name: f"{uuid.uuid4()}@example.com" for name in mails}


async def bind(channel, document):
    """Return a queue that is bound to every event, and the events by routing key."""
    queue, events = await channel.declare_queue(exclusive=True), {}
    for where, messages, _ in document.operations("send"):
        exchange = where["bindings"]["amqp"]["exchange"]
        found = await channel.get_exchange(exchange["name"])
        await queue.bind(found, routing_key=where["address"])
        (events[where["address"]],) = messages
    return queue, events


async def request(channel, document, where, message, reply, body):
    """Send a command; return its outcome."""
    replies = await channel.declare_queue(exclusive=True)
    sent = Message(
        json.dumps(body).encode(),
        content_type=message["contentType"],
        correlation_id=str(uuid.uuid4()),
        message_id=str(uuid.uuid4()),
        reply_to=replies.name,
    )
    await channel.default_exchange.publish(sent, routing_key=where["address"])
    async with replies.iterator(timeout=20) as incoming:
        answer = await anext(incoming)
    assert answer.correlation_id == sent.correlation_id
    outcome = json.loads(answer.body)
    (described,) = map(document.resolve, reply["messages"])
    document.validate(described["payload"], outcome)
    return outcome


def check(document, message, event):
    """Return the body of an event; raise an exception if it is not as described."""
    body = json.loads(event.body)
    document.validate(message["payload"], body)
    document.validate(message["headers"], dict(event.headers))
    properties = {
        "content_type": event.content_type,
        "delivery_mode": int(event.delivery_mode),
        "message_id": event.message_id,
        "type": event.type,
        "timestamp": int(event.timestamp.timestamp()),
        "app_id": event.app_id,
    }
    document.validate(message["x-amqp-properties"], properties)
    return body


async def main(path):
    document = Document(path)
    connection = await connect(document.url())
    async with connection:
        channel = await connection.channel()
        queue, events = await bind(channel, document)
        for where, messages, reply in document.operations("receive"):
            for message in messages:
                for example in message["examples"]:
                    body = with_own_address(example["payload"], message["payload"])
                    document.validate(message["payload"], body)
                    outcome = await request(
                        channel, document, where, message, reply, body
                    )
                    print(json.dumps({"sent": message["name"], **outcome}), flush=True)
        missing = set(events)
        async with queue.iterator(no_ack=True, timeout=30) as incoming:
            async for event in incoming:
                body = check(document, events[event.routing_key], event)
                print(json.dumps({"received": event.routing_key, **body}), flush=True)
                missing.discard(event.routing_key)
                if not missing:
                    return


asyncio.run(main(sys.argv[1]))
