"""
Sharing the partitions of queues among workers (processes that consume).

Each worker has a `Coordinator`, which sends heartbeats and takes or gives up leases so
that each partition has one worker; its `HeldLease` fences every transaction of a
batch. Open `coordinator.py` first. Within a worker, `time_limit.py` lets another thread
take a partition over from one that hangs, and `waiting.py` returns messages while a
server is away for long. `repartition.py` and `resizing.py` compare the queues of the
broker with the settings and change the number of partitions.
"""
