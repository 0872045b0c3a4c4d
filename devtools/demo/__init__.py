"""The demo: a service is restarted under load in three ways, and nothing is lost or repeated.

``python -m devtools.demo`` (or ``make demo``) starts a broker, streams numbered orders through
``examples/orders.py``, restarts it as operators, HTTP clients and the kubelet do, and has a
separate program count what the handlers noted.
"""
