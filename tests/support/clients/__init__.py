"""
RabbitMQ's tutorials on other clients: names, types and arguments are the official ones.

Each program takes the name of a script and its arguments. One that receives prints
"waiting" when it may be sent to, then the routing key and body of one message, and
ends. The pattern "headers" has no official tutorial.
"""
