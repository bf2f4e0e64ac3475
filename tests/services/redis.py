"""Redis servers: plain, with an ACL user, and over TLS with an ACL user."""

import pathlib

from .process import Server, accepts, free_port
from .tls import Authority

USERNAME = "ruslo"
PASSWORD = "redis-secret-4Zk"


class Redis(Server):
    """A server whose data survive `stop` and `start`, as a hosted Redis's would.

    With `durable=False` it comes back empty, as one that is only a cache.
    """

    stop_timeout_s = 10

    def __init__(
        self,
        directory: pathlib.Path,
        name: str = "redis",
        acl: bool = False,
        tls: Authority | None = None,
        durable: bool = True,
    ):
        self.name = name
        super().__init__(directory)
        self.acl = acl
        self.tls = tls
        self.durable = durable
        self.port = free_port()

    @property
    def url(self) -> str:
        scheme = "rediss" if self.tls else "redis"
        login = f"{USERNAME}:{PASSWORD}@" if self.acl else ""
        return f"{scheme}://{login}127.0.0.1:{self.port}"

    def command(self):
        arguments = [
            "redis-server", "--bind", "127.0.0.1", "--dir", str(self.directory),
            "--appendonly", "yes" if self.durable else "no", "--save", "", "--daemonize", "no",
        ]  # fmt: skip
        if self.tls:
            arguments += [
                "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no",
                "--tls-cert-file", str(self.tls.certificate),
                "--tls-key-file", str(self.tls.key),
                "--tls-ca-cert-file", str(self.tls.ca),
            ]  # fmt: skip
        else:
            arguments += ["--port", str(self.port)]
        if self.acl:
            # The configuration file is read from the directory, so that no password shows in `ps`.
            users = self.directory / "users.acl"
            users.write_text(
                f"user default off\nuser {USERNAME} on >{PASSWORD} ~* &* +@all\n"
            )
            arguments += ["--aclfile", str(users)]
        return arguments

    def ready(self):
        # While it loads its data it accepts connections and answers nothing.
        if not accepts(self.port):
            return False
        with self.client() as client:
            return client.ping()

    def client(self):
        """A client that returns str."""
        import redis

        tls = {"ssl_ca_certs": str(self.tls.ca)} if self.tls else {}
        return redis.Redis.from_url(self.url, decode_responses=True, **tls)

    def contents(self) -> dict[str, str]:
        """Every string key and its value."""
        with self.client() as client:
            keys = list(client.scan_iter(count=1000))
            return dict(zip(keys, client.mget(keys))) if keys else {}
