"""A file of a stranger's URL: what is fetched, and everything that is refused.

The server is real, with TLS and a CA of its own. Only it may be dialled at 127.0.0.1.
"""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node.download import DownloadError, download, is_public, resolve

NAME = "swarm.example"
BODY = b"[about]\n" * 100


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A CA's certificate, and one of NAME signed by it with its key, as PEM files."""

    def build(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    is_ca = x509.BasicConstraints(ca=True, path_length=None)
    ca = build("test CA", "test CA", ca_key).add_extension(is_ca, critical=True)
    names = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.DNSName("other.example")])
    leaf = build(NAME, "test CA", key).add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    ca_file, own_file = directory / "ca.pem", directory / "own.pem"
    ca_file.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    own_file.write_bytes(
        leaf.sign(ca_key, hashes.SHA256()).public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ca_file, own_file


@dataclass
class World:
    """A server, and what names lead to."""

    port: int
    tls: ssl.SSLContext
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Path, Host and Authorization of each."""
    names: dict[str, list[str]] = field(default_factory=lambda: {NAME: ["127.0.0.1"]})
    looked_up: list[str] = field(default_factory=list)

    def resolve(self, host: str, port: int) -> list[str]:
        self.looked_up.append(host)
        if host not in self.names:
            return resolve(host, port)  # of literals; no other name is asked for
        return self.names[host]

    def fetch(self, path: str, *, total_s: float = 60.0, max_bytes: int = len(BODY)) -> bytes:
        return self.fetch_url(f"https://{NAME}:{self.port}{path}", total_s, max_bytes)

    def fetch_url(self, url: str, total_s: float = 60.0, max_bytes: int = len(BODY)) -> bytes:
        return download(
            url,
            max_bytes,
            total_s=total_s,
            resolve=self.resolve,
            is_allowed=lambda address: address == "127.0.0.1" or is_public(address),
            tls=self.tls,
        )


Answer = Callable[[BaseHTTPRequestHandler], None]


def send(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirect(to: str) -> Answer:
    return send(b"", 302, Location=to)


def send_without_length(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(BODY)


def send_endless_chunks(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:  # until the other side hangs up
        handler.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")


def send_half(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BODY)))
    handler.end_headers()
    handler.wfile.write(BODY[:100])


def dribble(start: bytes) -> Answer:
    """A byte now and then: each read of the other side succeeds, the file never ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        never = threading.Event()
        for _ in range(10_000):
            handler.wfile.write(b"x")
            never.wait(0.02)

    return answer


@contextmanager
def serving(answers: dict[str, Answer], world: World, own_file: Path) -> Iterator[World]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = self.headers
            world.requests.append(
                (self.path, headers.get("Host", ""), headers.get("Authorization", ""))
            )
            self.close_connection = True
            with suppress(OSError):  # the other side has had enough
                answers[self.path](self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a handshake that the other side broke off

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(own_file)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    world.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def answers() -> dict[str, Answer]:
    """What the server answers: a test adds its own."""
    return {"/swarm.toml": send(BODY)}


@pytest.fixture
def world(certificate: tuple[Path, Path], answers: dict[str, Answer]) -> Iterator[World]:
    ca_file, own_file = certificate
    trusted = ssl.create_default_context(cafile=str(ca_file))
    with serving(answers, World(0, trusted), own_file) as world:
        yield world


def test_a_file_is_fetched_and_the_request_tells_nothing(world: World) -> None:
    assert world.fetch("/swarm.toml") == BODY
    assert world.requests == [("/swarm.toml", f"{NAME}:{world.port}", "")]


def test_a_query_is_kept_and_a_fragment_is_not_sent(
    world: World, answers: dict[str, Answer]
) -> None:
    answers["/?raw=1"] = send(BODY)
    assert world.fetch("?raw=1#part") == BODY


def test_three_redirects_are_followed_also_to_other_hosts(
    world: World, answers: dict[str, Answer]
) -> None:
    world.names["other.example"] = ["127.0.0.1"]
    answers["/1"] = redirect("/2")
    answers["/2"] = redirect(f"https://other.example:{world.port}/3")
    answers["/3"] = redirect("swarm.toml")
    assert world.fetch("/1") == BODY
    assert world.looked_up == [NAME, NAME, "other.example", "other.example"]
    answers["/0"] = redirect("/1")
    with pytest.raises(DownloadError, match="more than 3 redirects"):
        world.fetch("/0")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://swarm.example/swarm.toml", "only https:// URLs"),
        ("file:///etc/passwd", "only https:// URLs"),
        ("ftp://swarm.example/", "only https:// URLs"),
        ("https://me:secret@swarm.example/", "user name or password"),
        ("https://@swarm.example/", "user name or password"),
        (r"https://swarm.example\@10.0.0.1/", "user name or password"),
        (r"https://swarm.example\.10.0.0.1/", "no URL"),
        ("https:///swarm.toml", "no URL"),
        ("https://swarm.example:0/", "no URL"),
        ("https://swarm.example:65536/", "no URL"),
        ("https://swarm.example/a b", "no URL"),
        ("https://swarm.example/\r\nHost: x", "no URL"),
        ("https://swärm.example/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://swarm.example/" + "x" * 2000, "no URL"),
        ("https://127.0.0.1/", "the address 127.0.0.1, which is not a public one"),
        ("https://127.1/", "the address 127.0.0.1, which"),
        ("https://2130706433/", "the address 127.0.0.1, which"),
        ("https://10.1.2.3:8443/", "the address 10.1.2.3, which"),
        ("https://172.16.0.1/", "not a public one"),
        ("https://192.168.0.1/", "not a public one"),
        ("https://169.254.169.254/latest/meta-data", "not a public one"),
        ("https://0.0.0.0/", "not a public one"),
        ("https://[::1]/", "the address ::1, which"),
        ("https://[fe80::1]/", "the address fe80::1, which"),
        ("https://[::ffff:10.0.0.1]/", "the address ::ffff:10.0.0.1, which"),
        ("https://[::ffff:8.8.8.8]/", "not a public one"),
        ("https://[64:ff9b::10.0.0.1]/", "not a public one"),
        ("https://localhost/", "not a public one"),
    ],
)
def test_what_is_no_public_https_url_is_refused(url: str, complaint: str) -> None:
    """Without a server and without any name: nothing here may leave this machine."""
    with pytest.raises(DownloadError) as error:
        download(url, 1000)
    assert complaint in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1"],
        ["127.0.0.1", "10.0.0.1"],
        ["192.168.1.1", "127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["fe80::1%lo"],
        ["::ffff:127.0.0.1"],
    ],
)
def test_a_name_with_any_private_address_is_refused_and_nobody_dialled(
    world: World, addresses: list[str]
) -> None:
    world.names[NAME] = addresses
    with pytest.raises(DownloadError, match="which is not a public one"):
        world.fetch("/swarm.toml")
    assert world.requests == []


def test_what_was_checked_is_dialled_whatever_the_name_leads_to_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding: the name is looked up once, and no other code of this process does it again."""

    def asked_again(host: object, *args: object, **kwargs: object) -> object:
        raise AssertionError(f"{host!r} was looked up behind the check")

    real = socket.getaddrinfo

    def guard(host: object, *args: object, **kwargs: object) -> object:
        return real(host, *args, **kwargs) if host == "127.0.0.1" else asked_again(host)

    monkeypatch.setattr(socket, "getaddrinfo", guard)
    assert world.fetch("/swarm.toml") == BODY
    assert world.looked_up == [NAME]


def test_the_next_address_of_a_name_is_tried(world: World) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.2", 0))  # bound, and nobody listens there
        world.names[NAME] = ["127.0.0.2", "127.0.0.1"]
        found = download(
            f"https://{NAME}:{world.port}/swarm.toml",
            len(BODY),
            resolve=world.resolve,
            is_allowed=lambda address: ipaddress.ip_address(address).is_loopback,
            tls=world.tls,
        )
    assert found == BODY


@pytest.mark.parametrize(
    ("to", "complaint"),
    [
        ("http://swarm.example/swarm.toml", "only https:// URLs"),
        ("https://10.0.0.1/swarm.toml", "the address 10.0.0.1, which is not a public one"),
        ("https://[::1]/swarm.toml", "not a public one"),
        ("https://inner.example/swarm.toml", "inner.example has the address 192.168.0.7"),
        ("//inner.example/swarm.toml", "inner.example has the address 192.168.0.7"),
        ("file:///etc/passwd", "only https:// URLs"),
        ("https://me:secret@swarm.example/", "user name or password"),
        ("https://swarm.example/\x1b[31m", "no URL"),
    ],
)
def test_a_redirect_is_checked_as_the_url_is(
    world: World, answers: dict[str, Answer], to: str, complaint: str
) -> None:
    world.names["inner.example"] = ["192.168.0.7"]
    answers["/moved"] = redirect(to)
    with pytest.raises(DownloadError) as error:
        world.fetch("/moved")
    assert "/moved leads to " in str(error.value)
    assert complaint in str(error.value)
    assert "\x1b" not in str(error.value)
    assert [path for path, *_ in world.requests] == ["/moved"]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (send(BODY + b"x"), f"it is larger than {len(BODY)} bytes"),
        (send_endless_chunks, f"it is larger than {len(BODY)} bytes"),
        (send(b"", 404), "answers with status 404"),
        (send(b"", 304), "answers with status 304"),
        (send(BODY, Content_Encoding="gzip"), "compressed"),
        (send_half, "no file from there"),
        (send_without_length, "does not say where the file ends"),
        (lambda handler: None, "no file from there"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), "no file from there"),
        (
            lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000),
            "no file from there",
        ),
    ],
)
def test_answers_that_are_no_whole_small_file_are_refused(
    world: World, answers: dict[str, Answer], answer: Answer, complaint: str
) -> None:
    answers["/bad"] = answer
    with pytest.raises(DownloadError) as error:
        world.fetch("/bad")
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
    ],
    ids=["status", "header", "body", "interim"],
)
def test_a_server_that_dribbles_is_left_at_the_deadline(
    world: World, answers: dict[str, Answer], start: bytes
) -> None:
    answers["/slow"] = dribble(start)
    with pytest.raises(DownloadError, match=r"it did not come within 0\.6 s"):
        world.fetch("/slow", total_s=0.6, max_bytes=100_000)


def test_a_server_that_never_shakes_hands_is_left_at_the_deadline(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(DownloadError, match=r"it did not come within 0\.2 s"):
            world.fetch_url(f"https://{NAME}:{port}/", total_s=0.2)


def test_a_resolver_that_never_answers_is_left_at_the_deadline(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        end.wait(60)
        return []

    monkeypatch.setattr(world, "resolve", hang)
    with pytest.raises(DownloadError, match=r"it did not come within 0\.2 s"):
        world.fetch("/swarm.toml", total_s=0.2)
    end.set()


def test_a_certificate_of_another_host_or_another_ca_is_refused(world: World) -> None:
    world.names["third.example"] = ["127.0.0.1"]
    with pytest.raises(DownloadError, match="Hostname mismatch"):
        world.fetch_url(f"https://third.example:{world.port}/swarm.toml")
    world.tls = ssl.create_default_context()
    with pytest.raises(DownloadError, match="certificate verify failed"):
        world.fetch("/swarm.toml")
    assert world.requests == []


def test_a_name_that_is_not_found_is_named(world: World) -> None:
    def fail(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(DownloadError, match="is not found: Name or service not known"):
        download("https://none.example/", 1, resolve=fail)
    with pytest.raises(DownloadError, match="is not found: no address"):
        download("https://none.example/", 1, resolve=lambda host, port: [])
    with pytest.raises(DownloadError, match=r"a\.\.b is not found: no name of a host"):
        download("https://a..b/", 1)


PRIVATE = """
0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 169.254.1.1 172.31.255.255 192.0.2.1 192.168.1.1 198.18.0.1
224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:8.8.8.8 ::ffff:127.0.0.1
64:ff9b::7f00:1 64:ff9b:1::808:808 2001::1 2001:db8::1 2002:808:808::1 2002:7f00:1:: fc00::1
fd12::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1 name 8.8.8.8.8
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_what_is_no_single_machine_of_the_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_a_machine_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)
