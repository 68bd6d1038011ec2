"""The tutorials on kombu."""

import os
import sys

from kombu import Connection, Consumer, Exchange, Producer, Queue, binding

EXCHANGES = {
    "log": ("logs", "fanout"),
    "logs": ("logs", "fanout"),
    "direct": ("direct_logs", "direct"),
    "topic": ("topic_logs", "topic"),
    "headers": ("headers_logs", "headers"),
}
QUEUES = {
    "send": "hello",
    "receive": "hello",
    "new_task": "task_queue",
    "worker": "task_queue",
}


def main(script, *arguments):
    with Connection(os.environ["RABBITMQ_URL"]) as connection:
        if script in QUEUES:
            queue = Queue(
                QUEUES[script],
                durable=True,
                queue_arguments={"x-queue-type": "quorum"},
                routing_key=QUEUES[script],
            )
            if script in ("send", "new_task"):
                producer = Producer(connection.channel())
                producer.publish(arguments[0], routing_key=queue.name, declare=[queue])
            else:
                print_one(connection, queue)
            return
        name, kind = EXCHANGES[script.rpartition("_")[2]]
        exchange = Exchange(name, type=kind, durable=False)
        if script.startswith("emit"):
            *keys, body = arguments
            headers = dict([keys.pop().split("=")]) if kind == "headers" else None
            producer = Producer(connection.channel(), exchange=exchange)
            producer.publish(body, routing_key="".join(keys), headers=headers)
        elif kind == "headers":
            wanted = dict([arguments[0].split("=")])
            bindings = [binding(exchange, arguments=wanted)]
            print_one(connection, Queue(bindings=bindings, exclusive=True))
        else:
            bindings = [binding(exchange, routing_key=key) for key in arguments or [""]]
            print_one(connection, Queue(bindings=bindings, exclusive=True))


def print_one(connection, queue):
    got = []

    def callback(body, message):
        print(f"{message.delivery_info['routing_key']}:{body}", flush=True)
        message.ack()
        got.append(body)

    # Without a name, the broker gives one.
    consumer = Consumer(connection.channel(), queues=[queue], callbacks=[callback])
    with consumer:
        print("waiting", flush=True)
        while not got:
            connection.drain_events(timeout=20)


main(*sys.argv[1:])
