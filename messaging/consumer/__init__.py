"""
Applying messages: from the deliveries of a partition to its inbox rows.

Open `consumer.py` first, the loop of one partition; then `batch.py`, the steps of a
batch; then `retry.py`, what becomes of a message that fails.

Threads: each partition has a thread of its own, which runs `Consumer.run`, and with it
all handlers and database work; another one waits to replace it if a handler does not
return (`messaging/cluster/time_limit.py`). The AMQP I/O thread delivers and
acknowledges messages (`messaging/amqp`). The coordinator's thread (`messaging/cluster`)
grants leases and asks for them back. They meet in `Consumer.grant`, `request_release`
and `stop`, which set one attribute each and wake the consumer.
"""
