"""The real servers that tests, benchmarks and `make services` run against.

Apache Kafka, Redis, PostgreSQL and a server of the S3 protocol, each on free ports of 127.0.0.1
with its data below one temporary directory, started as children that end with their parent
whatever happens to it.
Starting them needs the standard library alone; clients are imported where they are used.
"""

from .kafka import Kafka
from .postgres import Postgres
from .process import Server, free_port, wait_until
from .redis import Redis
from .ruslo import Ruslo, generate
from .s3 import S3
from .tls import Authority

__all__ = [
    "Authority",
    "Kafka",
    "Postgres",
    "Redis",
    "Ruslo",
    "S3",
    "Server",
    "free_port",
    "generate",
    "wait_until",
]
