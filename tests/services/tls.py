"""A certificate authority made for one run, and the server certificate that it signed."""

import pathlib
import subprocess

_VALIDITY_DAYS = "2"


def _openssl(*arguments: str, text: str | None = None):
    done = subprocess.run(
        ["openssl", *arguments], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed:\n{done.stderr}")


class Authority:
    """`ca` is what clients trust; `certificate` and `key` are what servers on localhost show."""

    def __init__(self, directory: pathlib.Path, name: str = "Ruslo test authority"):
        directory.mkdir(parents=True, exist_ok=True)
        self.ca = directory / "ca.pem"
        self.certificate = directory / "server.pem"
        self.key = directory / "server.key"
        # Kafka takes one PEM file that holds the key and its chain.
        self.keystore = directory / "server-keystore.pem"
        ca_key = directory / "ca.key"
        request = directory / "server.csr"
        extensions = directory / "server.ext"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", _VALIDITY_DAYS,
            "-subj", f"/CN={name}", "-keyout", str(ca_key), "-out", str(self.ca),
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
        _openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
            "-keyout", str(self.key), "-out", str(request),
        )  # fmt: skip
        extensions.write_text(
            "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
            "basicConstraints=CA:FALSE\n"
            "keyUsage=digitalSignature,keyEncipherment\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
        )
        _openssl(
            "x509", "-req", "-in", str(request), "-days", _VALIDITY_DAYS, "-CAcreateserial",
            "-CA", str(self.ca), "-CAkey", str(ca_key), "-extfile", str(extensions),
            "-out", str(self.certificate),
        )  # fmt: skip
        self.keystore.write_text(
            self.key.read_text() + self.certificate.read_text() + self.ca.read_text()
        )
