"""Where the API is served: real sockets, and real TLS by the real server."""

import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from trio.testing import trio_test

from node.api import create_app, serve_api
from node.api_fake import fake_changeable, fake_readable
from node.config import ApiConfig, ConfigError, load_config
from node.doors import Doors, Names, Tls, open_doors, public_names

TOKEN = "t0ken-" + "x" * 37
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NAME = "node.example.org"


def write_certificate(
    directory: Path, name: str = NAME, password: bytes = b""
) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    how: Any = serialization.BestAvailableEncryption(password) if password else None
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(made.public_bytes(pem))
    key_file.touch(0o600)
    key_file.write_bytes(
        key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, how or serialization.NoEncryption()
        )
    )
    return cert_file, key_file


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    yield write_certificate(tmp_path)


def api(**settings: Any) -> ApiConfig:
    return ApiConfig(port=0, **settings)


@asynccontextmanager
async def serving(doors: Doors, home: Path) -> AsyncIterator[None]:
    app = create_app(fake_readable(), TOKEN, fake_changeable(home), doors.names)
    stop = trio.Event()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_api, app, doors, stop=stop))
            yield
            stop.set()


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0"}, "everybody on the way reads the token"),
        ({"host": "::"}, "api.insecure_public = true"),
        ({"host": "192.0.2.1"}, "ssh -L"),
        ({"host": "127.0.0.2"}, "write 127.0.0.1"),
        ({"host": "sapo.example"}, "write 127.0.0.1"),
        ({"host": ""}, "write 127.0.0.1"),
        ({"host": "192.0.2.1", "insecure_public": True}, "has no such address"),
        ({"host": "0.0.0.0", "tls_cert": "CERT"}, "give both"),
        ({"host": "0.0.0.0", "tls_key": "KEY"}, "give both"),
        ({"host": "127.0.0.1", "tls_cert": "CERT", "tls_key": "KEY"}, "without TLS"),
        ({"host": "0.0.0.0", "tls_cert": "CERT", "tls_key": "NOWHERE"}, "No such file"),
        ({"host": "0.0.0.0", "tls_cert": "KEY", "tls_key": "KEY"}, "not a certificate"),
        (
            {"host": "0.0.0.0", "tls_cert": "CERT", "tls_key": "KEY", "insecure_public": True},
            "contradicts",
        ),
    ],
)
def test_what_would_show_the_token_or_cannot_work_is_refused(
    files: tuple[Path, Path], settings: dict[str, Any], said: str
) -> None:
    cert, key = files
    named = {"CERT": cert, "KEY": key, "NOWHERE": cert.with_name("nowhere")}
    given = {name: named.get(str(value), value) for name, value in settings.items()}
    with pytest.raises(ConfigError, match=said), open_doors(api(**given)):
        raise AssertionError("it was opened")


def test_a_key_that_is_encrypted_or_open_to_all_is_refused(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, password=b"secret")
    with pytest.raises(ConfigError, match="encrypted"):
        Tls(cert, key)
    cert, key = write_certificate(tmp_path)
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod o="):
        Tls(cert, key)


def test_names_are_a_list_or_one_text() -> None:
    for given in (["a.example", "b.example"], "a.example,b.example"):
        config = load_config(flags={"api.names": given}, environment={})
        assert config.api.names == ("a.example", "b.example")


# --- who is answered ---


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_by_default_this_machine_alone_is_served(host: str) -> None:
    with open_doors(api(host=host)) as doors:
        assert doors.public is None and doors.tls is None
        assert doors.names == Names()
        assert doors.local.getsockname()[0] in ("127.0.0.1", "::1")


def test_an_address_is_its_own_name_and_all_addresses_are_those_of_all() -> None:
    own = frozenset({NAME})
    for host, name in (("192.0.2.1", "192.0.2.1:8420"), ("2001:DB8::1", "[2001:db8::1]")):
        names = public_names(host, own)
        assert name in names and NAME in names and "localhost" in names
        assert "192.0.2.2" not in names and "[2001:db8::2]" not in names
    for host in ("0.0.0.0", "::"):
        names = public_names(host, own)
        assert "192.0.2.2" in names and "[2001:db8::2]:1" in names and "other.example" not in names


@trio_test
async def test_the_network_is_served_with_tls_and_this_machine_without(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = files
    settings = api(host="0.0.0.0", tls_cert=cert, tls_key=key, names=(NAME,))
    with open_doors(settings) as doors:
        assert doors.public is not None
        public, local = doors.public.getsockname()[1], doors.local.getsockname()[1]
        assert public != local and doors.local.getsockname()[0] == "127.0.0.1"
        trusted = ssl.create_default_context(cafile=cert)
        async with serving(doors, tmp_path), httpx.AsyncClient(verify=trusted) as asking:
            secure = f"https://127.0.0.1:{public}"
            answer = await asking.get(f"{secure}/api/v1/status", headers=BEARER)
            assert answer.status_code == 200 and answer.http_version == "HTTP/1.1"
            assert (await asking.get(f"{secure}/api/v1/status")).status_code == 401
            for name, status in ((NAME, 200), ("192.0.2.9", 200), ("evil.example", 421)):
                headers = BEARER | {"Host": f"{name}:{public}"}
                answer = await asking.get(f"{secure}/api/v1/status", headers=headers)
                assert answer.status_code == status, name
            entry = await asking.get(f"{secure}/?token={TOKEN}")
            assert "Secure" in entry.headers["set-cookie"].split("; ")
            plain = f"http://127.0.0.1:{local}"
            entry = await asking.get(f"{plain}/?token={TOKEN}")
            assert "Secure" not in entry.headers["set-cookie"].split("; ")
            origin = {"Origin": secure}
            answer = await asking.post(f"{secure}/api/v1/pause", headers=BEARER | origin)
            assert answer.json() == {"paused": True}
            with pytest.raises(httpx.HTTPError):
                await asking.get(f"http://127.0.0.1:{public}/health")
            assert (await asking.get(f"{secure}/health")).text == "ok", "and nothing has ended"


@trio_test
async def test_the_network_is_served_without_tls_where_the_settings_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_doors(api(host="0.0.0.0", insecure_public=True)) as doors:
        assert doors.public is not None and "without TLS" in caplog.text
        async with serving(doors, tmp_path), httpx.AsyncClient() as asking:
            for door in (doors.public, doors.local):
                url = f"http://127.0.0.1:{door.getsockname()[1]}"
                answer = await asking.get(f"{url}/api/v1/status", headers=BEARER)
                assert answer.status_code == 200


# --- a certificate that is renewed ---


def certificate_of(address: tuple[str, int]) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(address, timeout=20) as plain,
        context.wrap_socket(plain) as secure,
    ):
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return found


@trio_test
async def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = write_certificate(tmp_path)
    with open_doors(api(host="0.0.0.0", tls_cert=cert, tls_key=key)) as doors:
        assert doors.public is not None and doors.tls is not None
        address = ("127.0.0.1", doors.public.getsockname()[1])
        async with serving(doors, tmp_path):
            ask = partial(trio.to_thread.run_sync, certificate_of, address)
            first = await ask()
            doors.tls.renew_now()
            assert await ask() == first
            cert.write_text("nonsense")
            doors.tls.renew_now()
            assert await ask() == first
            assert "new certificate is not taken" in caplog.text
            old_key = key.read_bytes()
            write_certificate(tmp_path, "other.example")
            new_key = key.read_bytes()
            key.write_bytes(old_key)  # in the middle of a renewal
            doors.tls.renew_now()
            assert await ask() == first
            key.write_bytes(new_key)
            doors.tls.renew_now()
            assert await ask() != first
