"""
The scripts of the tutorial: each messaging pattern in a few lines of `messaging`.

Names, types and arguments are those of RabbitMQ's own tutorials, so that either side
of a script may be replaced by the official one in any language.
"""

from __future__ import annotations

from . import header_logs, hello, logs, order, routing, rpc, tasks, topics

SCRIPTS = (
    # Hello World
    hello.send,
    hello.receive,
    # Work queues
    tasks.new_task,
    tasks.worker,
    # Publish/Subscribe
    logs.emit_log,
    logs.receive_logs,
    # Routing
    routing.emit_log_direct,
    routing.receive_logs_direct,
    # Topics
    topics.emit_log_topic,
    topics.receive_logs_topic,
    # Headers
    header_logs.emit_log_headers,
    header_logs.receive_logs_headers,
    # RPC
    rpc.SERVER,
    rpc.CLIENT,
    # One order, two reactions
    order.publish_order,
    order.notify,
    order.report,
)
