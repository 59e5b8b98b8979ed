"""A server that says what it is told to over each connection, in the clear or by TLS."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)


class RawServer:
    """Where it listens, and how many connections it has had and lost."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"
        self.requests = 0
        self.ended = 0


def read_request(connection: socket.socket) -> bytes:
    """A request without a body, or with one of at most a few bytes; nothing where the client has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    return data


@contextmanager
def answering(
    answer: Callable[[socket.socket, int], None],
    certificate: tuple[Path, Path] | None = None,
    asked: list[bytes] | None = None,
) -> Iterator[RawServer]:
    """A server that reads requests, and has each answered by `answer`, which gets the connection and the request's
    number there, and may close it. `asked` gets the requests."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RawServer(listener.getsockname()[1])

        def serve(connection: socket.socket) -> None:
            with suppress(OSError, ValueError):
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True)
                number = 0
                while connection.fileno() >= 0 and (request := read_request(connection)):
                    server.requests += 1
                    if asked is not None:
                        asked.append(request)
                    answer(connection, number)
                    number += 1
            connection.close()
            server.ended += 1

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def certificate_for(place: Path, name: str, until: datetime.timedelta = DAY) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key.

    Args:
        place: an empty directory.
        name: the address that it is for.
        until: when it expires, counted from now.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - 9 * DAY)
        .not_valid_after(now + until)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    files = (place / "own.crt", place / "own.key")
    files[0].write_bytes(made.public_bytes(form))
    files[1].write_bytes(key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return files
