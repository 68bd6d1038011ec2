"""The publisher of an API from before the move, for the bodies that it reads."""

import os
import sys

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
channel = connection.channel()
channel.queue_declare(queue=sys.argv[1], durable=True)
channel.confirm_delivery()
while line := sys.stdin.buffer.readline():
    channel.basic_publish(
        exchange="",
        routing_key=sys.argv[1],
        body=line,
        properties=pika.BasicProperties(delivery_mode=2),
    )
    print("confirmed", flush=True)
connection.close()
