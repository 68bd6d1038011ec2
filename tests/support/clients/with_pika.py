"""The tutorials on pika."""

import os
import sys

import pika

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
QUORUM = {"x-queue-type": "quorum"}


def main(script: str, *arguments: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
    channel = connection.channel()
    if script in QUEUES:
        queue = QUEUES[script]
        channel.queue_declare(queue=queue, durable=True, arguments=QUORUM)
        if script in ("send", "new_task"):
            emit(channel, "", queue, arguments[0], persistent=script == "new_task")
        else:
            print_one(channel, queue)
        connection.close()
        return
    exchange, kind = EXCHANGES[script.rpartition("_")[2]]
    channel.exchange_declare(exchange=exchange, exchange_type=kind)
    if script.startswith("emit"):
        *keys, body = arguments
        headers = dict([keys.pop().split("=")]) if kind == "headers" else None
        emit(channel, exchange, "".join(keys), body, headers=headers)
    else:
        queue = channel.queue_declare(queue="", exclusive=True).method.queue
        for key in arguments or [""]:
            wanted = dict([key.split("=")]) if kind == "headers" else None
            key = "" if wanted else key
            channel.queue_bind(
                exchange=exchange, queue=queue, routing_key=key, arguments=wanted
            )
        print_one(channel, queue)
    connection.close()


def emit(channel, exchange, key, body, *, persistent=False, headers=None):
    channel.basic_publish(
        exchange=exchange,
        routing_key=key,
        body=body,
        properties=pika.BasicProperties(
            delivery_mode=pika.DeliveryMode.Persistent if persistent else None,
            headers=headers,
        ),
    )


def print_one(channel, queue):
    def callback(channel, method, properties, body):
        print(f"{method.routing_key}:{body.decode()}", flush=True)
        channel.basic_ack(delivery_tag=method.delivery_tag)
        channel.stop_consuming()

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue=queue, on_message_callback=callback)
    print("waiting", flush=True)
    channel.start_consuming()


main(*sys.argv[1:])
