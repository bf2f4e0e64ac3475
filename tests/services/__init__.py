"""The real servers that tests, benchmarks and `make services` run against.

Apache Kafka, Redis and PostgreSQL, each on free ports of 127.0.0.1 with its data below one
temporary directory, started as children that end with their parent whatever happens to it.
Nothing here needs more than the standard library but for `Kafka.admin`.
"""

from .kafka import Kafka
from .postgres import Postgres
from .process import Server, free_port, wait_until
from .redis import Redis
from .tls import Authority

__all__ = [
    "Authority",
    "Kafka",
    "Postgres",
    "Redis",
    "Server",
    "free_port",
    "wait_until",
]
