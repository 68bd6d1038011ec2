"""
Traces: W3C trace context in the headers of messages, and spans of OpenTelemetry.

Open trace_context.py first, which reads the headers. Without OpenTelemetry a trace that
arrives with a request or a message is passed on as it is, and none is started.
"""
