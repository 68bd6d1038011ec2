"""The tutorials on aio-pika."""

import asyncio
import os
import sys

from aio_pika import DeliveryMode, ExchangeType, Message, connect

EXCHANGES = {
    "log": ("logs", ExchangeType.FANOUT),
    "logs": ("logs", ExchangeType.FANOUT),
    "direct": ("direct_logs", ExchangeType.DIRECT),
    "topic": ("topic_logs", ExchangeType.TOPIC),
    "headers": ("headers_logs", ExchangeType.HEADERS),
}
QUEUES = {
    "send": "hello",
    "receive": "hello",
    "new_task": "task_queue",
    "worker": "task_queue",
}


async def main(script, *arguments):
    connection = await connect(os.environ["RABBITMQ_URL"])
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        if script in QUEUES:
            queue = await channel.declare_queue(
                QUEUES[script], durable=True, arguments={"x-queue-type": "quorum"}
            )
            if script in ("send", "new_task"):
                message = Message(
                    arguments[0].encode(), delivery_mode=DeliveryMode.PERSISTENT
                )
                await channel.default_exchange.publish(message, routing_key=queue.name)
            else:
                await print_one(queue)
            return
        name, kind = EXCHANGES[script.rpartition("_")[2]]
        exchange = await channel.declare_exchange(name, kind)
        if script.startswith("emit"):
            *keys, body = arguments
            headers = {}
            if kind is ExchangeType.HEADERS:
                headers = dict([keys.pop().split("=")])
            message = Message(body.encode(), headers=headers)
            await exchange.publish(message, routing_key="".join(keys))
            return
        queue = await channel.declare_queue(exclusive=True)
        for key in arguments or [""]:
            if kind is ExchangeType.HEADERS:
                await queue.bind(exchange, arguments=dict([key.split("=")]))
            else:
                await queue.bind(exchange, routing_key=key)
        await print_one(queue)


async def print_one(queue):
    print("waiting", flush=True)
    async with queue.iterator() as messages:
        async for message in messages:
            async with message.process():
                print(f"{message.routing_key}:{message.body.decode()}", flush=True)
            return


asyncio.run(main(*sys.argv[1:]))
