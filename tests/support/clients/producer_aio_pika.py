"""Declare a queue on aio-pika, and send each line of standard input to it."""

import asyncio
import json
import os
import sys

from aio_pika import DeliveryMode, Message, connect


async def main(queue, arguments):
    connection = await connect(os.environ["RABBITMQ_URL"])
    async with connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(
            queue, durable=True, arguments=json.loads(arguments)
        )
        print("declared", flush=True)
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            message = Message(line, delivery_mode=DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key=declared.name)
            print("confirmed", flush=True)


asyncio.run(main(*sys.argv[1:]))
