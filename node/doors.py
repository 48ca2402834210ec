"""Where the API is served: on this machine always, and on the network where its operator wants it.

The door for this machine is a loopback address without TLS; `api-address` in the home names it, and
commands and page on this machine use no other. The other one is `api.host`, where that is no
loopback address: with TLS, or without where the settings say so in so many words. A certificate
that is renewed on disk is taken within RENEW_S.

Not covered: clients' certificates; who may ask is told by the token alone.
"""

import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from node.access import FAMILIES, listen_at, open_listener
from node.config import ApiConfig, ConfigError

logger = logging.getLogger(__name__)

THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "[::1]"})
RENEW_S = 60.0
"""Between looks at the certificate's files."""


@dataclass(frozen=True, slots=True)
class Names:
    """Under which names the API may be asked. Any other is a web page that had its own name point
    here (DNS rebinding); an address can be no such name."""

    names: frozenset[str] = THIS_MACHINE
    any_address: bool = False

    def __contains__(self, host: object) -> bool:
        """Whether a Host header names this node; its port does not matter."""
        name, colon, port = str(host).rpartition(":")
        if not (colon and port.isascii() and port.isdigit()):
            name = str(host)
        name = name.lower()
        return name in self.names or (self.any_address and _is_address(name))


OF_THIS_MACHINE = Names()


class Tls:
    """A certificate and its key, for connections that begin from now on."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises ConfigError: they cannot be used."""
        self._files = (cert, key)
        self._seen = self._look()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._load(self.context)

    async def renew(self) -> None:
        """Takes a renewed certificate when there is one, for ever; one that cannot be used is an
        error in the log, and the old one stays."""
        while True:
            await trio.sleep(RENEW_S)
            self.renew_now()

    def renew_now(self) -> None:
        """One look."""
        try:
            if (seen := self._look()) == self._seen:
                return
            self._seen = seen
            self._load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))  # tried apart first
            self._load(self.context)
            logger.info("the API's certificate is a new one: %s", self._files[0])
        except ConfigError as error:
            logger.error("the API's new certificate is not taken: %s", error)

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for name, file in zip(("tls_cert", "tls_key"), self._files, strict=True):
            try:
                seen = file.stat()
            except OSError as error:
                raise ConfigError(f"api.{name} = {file}: {error.strerror}") from None
            if name == "tls_key" and seen.st_mode & 0o007:
                raise ConfigError(
                    f"api.tls_key = {file}: everybody may use this key; run: chmod o= {file}"
                )
            found.append((seen.st_mtime_ns, seen.st_ino, seen.st_size))
        return tuple(found)

    def _load(self, context: ssl.SSLContext) -> None:
        cert, key = self._files
        try:
            context.load_cert_chain(cert, key, password=_refuse_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            why = str(error) if isinstance(error, ValueError) else error.strerror or error.args[0]
            raise ConfigError(
                f"api.tls_cert = {cert}, api.tls_key = {key}: not a certificate and its key in "
                f"PEM: {why}"
            ) from None


def _refuse_password() -> str:
    raise ValueError("the key is encrypted; a node cannot ask for a password")


@dataclass(frozen=True, slots=True)
class Doors:
    """Sockets that listen already."""

    local: socket.socket
    """Without TLS."""
    public: socket.socket | None = None
    tls: Tls | None = None
    """Of the public one; None: it has none."""
    names: Names = OF_THIS_MACHINE


@contextmanager
def open_doors(api: ApiConfig) -> Iterator[Doors]:
    """The sockets that the settings ask for, closed at the end.

    Raises:
        ConfigError: the settings contradict one another or would show the token to the network, a
            port is taken, or certificate and key cannot be used.
    """
    own = frozenset(map(str.lower, api.names))
    if api.host in FAMILIES:
        if api.tls_cert or api.tls_key:
            raise ConfigError(
                f"api.tls_cert, api.tls_key: api.host = {api.host} is served without TLS; name an "
                "address of the network as api.host, or leave them out"
            )
        with open_listener(api.host, api.port) as local:
            yield Doors(local, names=Names(THIS_MACHINE | own))
        return
    tls = _check_public(api)
    family = socket.AF_INET6 if ":" in api.host else socket.AF_INET
    with (
        listen_at(family, api.host, api.port) as public,
        open_listener("127.0.0.1", 0) as local,
    ):
        yield Doors(local, public, tls, public_names(api.host, own))


def public_names(host: str, own: frozenset[str]) -> Names:
    """Under which names a node that is served at an IP address may be asked.

    Args:
        own: names that the settings allow, besides.
    """
    address = ipaddress.ip_address(host)
    name = f"[{address}]" if address.version == 6 else str(address)
    return Names(THIS_MACHINE | own | {name}, any_address=address.is_unspecified)


def _check_public(api: ApiConfig) -> Tls | None:
    """Whether the API may be served there, and with what."""
    if not _is_address(api.host) or ipaddress.ip_address(api.host).is_loopback:
        raise ConfigError(
            f"api.host = {api.host}: write 127.0.0.1 for this machine only, or an address of this "
            "machine in the network; 0.0.0.0 is all of them"
        )
    if bool(api.tls_cert) != bool(api.tls_key):
        raise ConfigError("api.tls_cert and api.tls_key: give both, or none")
    if api.tls_cert and api.tls_key:
        if api.insecure_public:
            raise ConfigError("api.insecure_public contradicts api.tls_cert; leave one out")
        return Tls(api.tls_cert, api.tls_key)
    if not api.insecure_public:
        raise ConfigError(
            f"api.host = {api.host}: without TLS everybody on the way reads the token, and then "
            "rules the node. Give api.tls_cert and api.tls_key; or use 127.0.0.1 and a tunnel "
            "(ssh -L) from elsewhere; or, where nobody else is on the way (a container's network, "
            "a proxy with TLS in front), say api.insecure_public = true"
        )
    logger.warning(
        "the API is served at %s port %d without TLS (api.insecure_public): whoever is on the way "
        "reads its token",
        api.host,
        api.port,
    )
    return None


def _is_address(text: str) -> bool:
    """Whether it is an IP address, in brackets or not."""
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ipaddress.ip_address(inside)
    except ValueError:
        return False
    return True
