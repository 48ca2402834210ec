"""One small file from an https URL that anybody may have written.

Covered: nothing but https, with the certificate checked; no credentials; no address but public
ones, for every redirect as well: a name is looked up once, all its addresses are checked, and one
of exactly these is dialled (so a name cannot point elsewhere a moment later); size and total time.
Not covered: proxies (none is used, whatever the environment says), what a public server does with
the request, and what the file says.
"""

import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

from node.escape import printable

MAX_REDIRECTS = 3
MAX_URL_CHARS = 2000
MAX_DIALLED = 4
"""Addresses of one name that are tried, one after the other."""
DIAL_S = 5.0
"""Seconds for one of them."""
DOWNLOAD_S = 30.0
"""Seconds for everything: names, connections, redirects, the file."""

_HOST = re.compile(
    r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>\d{1,5}))?"
)
_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses as they look in networks that have IPv6 only (RFC 6052)."""
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")

Resolve = Callable[[str, int], Sequence[str]]
"""A host's name or address and a port -> its IP addresses. Raises OSError."""


class DownloadError(ValueError):
    """The file was not taken; the message says why and what to do."""


def is_public(address: str) -> bool:
    """Whether an IP address is that of one machine in the public internet.

    IPv6 that carries an IPv4 address is not, but for the form that IPv6-only networks need, whose
    IPv4 address then has to be public.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _TRANSLATED:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _GLOBAL_UNICAST or ip.sixtofour or ip.teredo:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def resolve(host: str, port: int) -> list[str]:
    """As the machine's own resolver says. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # an empty or too long part of a name
        raise OSError(None, "no name of a host") from None
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def download(
    url: str,
    max_bytes: int,
    *,
    total_s: float = DOWNLOAD_S,
    resolve: Resolve = resolve,
    is_allowed: Callable[[str], bool] = is_public,
    tls: ssl.SSLContext | None = None,
) -> bytes:
    """The bytes of the file at `url`.

    Args:
        total_s: seconds for everything.
        resolve, is_allowed, tls: for tests: names, which addresses may be dialled, whose
            certificates are believed (default: those of the system and of certifi).

    Raises:
        DownloadError: no https URL, a host that is not public, more than `max_bytes`, too slow, too
            many redirects, no such file, a certificate that is not the host's, no connection.
    """
    end = time.monotonic() + total_s
    tls = tls or httpcore.default_ssl_context()

    def remaining() -> float:
        if (left := end - time.monotonic()) <= 0:
            raise httpcore.ReadTimeout
        return left

    asked = url
    for _ in range(MAX_REDIRECTS + 1):
        try:
            host, port, target = _parts(asked)
            addresses = _look_up(host, port, resolve, remaining)
            if wrong := [one for one in addresses if not is_allowed(one)]:
                raise DownloadError(
                    f"{host} has the address {printable(wrong[0])}, which is not a public one"
                )
            backend = _Backend(addresses[:MAX_DIALLED], remaining)
            with httpcore.HTTPConnection(
                httpcore.Origin(b"https", host.encode(), port), tls, network_backend=backend
            ) as connection:
                found = _get(connection, host, port, target, max_bytes)
        except httpcore.TimeoutException:
            raise _error(url, asked, f"it did not come within {total_s:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            reason = printable(str(error)) or type(error).__name__
            raise _error(url, asked, f"no file from there: {reason}") from None
        except DownloadError as error:
            raise _error(url, asked, str(error)) from None
        if isinstance(found, bytes):
            return found
        asked = urljoin(asked, found)
    raise _error(url, url, f"more than {MAX_REDIRECTS} redirects")


def _error(url: str, asked: str, problem: str) -> DownloadError:
    via = "" if asked == url else f" leads to {_shown(asked)}"
    return DownloadError(
        f"{_shown(url)}{via}: {problem}. A file that you got otherwise is joined by its path"
    )


def _shown(url: str) -> str:
    return printable(re.sub("//[^/]*@", "//…@", url[:MAX_URL_CHARS]))


def _parts(url: str) -> tuple[str, int, str]:
    """Host (an IPv6 address without brackets), port and path of an https URL."""
    if len(url) > MAX_URL_CHARS or not re.fullmatch("[!-~]+", url):
        raise DownloadError(f"no URL: write at most {MAX_URL_CHARS} characters of ASCII, no spaces")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"no URL: {error}") from None
    if parts.scheme != "https":
        raise DownloadError("only https:// URLs are fetched")
    if "@" in parts.netloc:
        raise DownloadError("a URL with a user name or password is not fetched; remove it")
    match = _HOST.fullmatch(parts.netloc)
    port = int(match["port"] or 443) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise DownloadError("no URL: write https://HOST/PATH")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return match["host"].strip("[]").lower(), port, target


def _look_up(
    host: str, port: int, resolve: Resolve, remaining: Callable[[], float]
) -> Sequence[str]:
    """The host's addresses. A resolver has no time limit, so it is left behind in its thread."""
    found: queue.SimpleQueue[Sequence[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found.put(resolve(host, port))
        except OSError as error:
            found.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        addresses = found.get(timeout=remaining())
    except queue.Empty:
        raise httpcore.ConnectTimeout from None
    if isinstance(addresses, OSError) or not addresses:
        reason = addresses.strerror if isinstance(addresses, OSError) else "no address"
        raise DownloadError(f"{host} is not found: {reason}")
    return addresses


def _get(
    connection: httpcore.HTTPConnection, host: str, port: int, target: str, max_bytes: int
) -> bytes | str:
    """The file, or where a redirect leads."""
    name = f"[{host}]" if ":" in host else host
    headers: list[tuple[bytes | str, bytes | str]] = [
        ("Host", name if port == 443 else f"{name}:{port}"),
        ("User-Agent", "sapo-swarm"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    url = httpcore.URL(scheme="https", host=host, port=port, target=target)
    with connection.stream("GET", url, headers=headers) as response:
        answered = {key.lower(): value for key, value in response.headers}
        if response.status in _REDIRECTS and b"location" in answered:
            return answered[b"location"].decode("latin-1")
        if response.status != 200:
            raise DownloadError(
                f"the server answers with status {response.status}, not with a file"
            )
        if answered.get(b"content-encoding", b"identity").lower() != b"identity":
            raise DownloadError("the server sends it compressed, though it was asked not to")
        if not {b"content-length", b"transfer-encoding"} & answered.keys():
            raise DownloadError("the server does not say where the file ends")
        data = bytearray()
        for chunk in response.iter_stream():
            data += chunk
            if len(data) > max_bytes:
                raise DownloadError(f"it is larger than {max_bytes} bytes")
    return bytes(data)


class _Backend(httpcore.NetworkBackend):
    """Dials the given addresses whatever the name, until one answers."""

    def __init__(self, addresses: Sequence[str], remaining: Callable[[], float]) -> None:
        self._addresses = addresses
        self._remaining = remaining
        self._tcp = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failed: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._addresses:
            try:
                stream = self._tcp.connect_tcp(address, port, min(self._remaining(), DIAL_S))
                return _Stream(stream, self._remaining)
            except httpcore.ConnectError as error:
                failed = error
            except httpcore.ConnectTimeout:
                failed = httpcore.ConnectError(f"{address} does not answer")
        raise failed


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends when the time for everything does."""

    def __init__(self, stream: httpcore.NetworkStream, remaining: Callable[[], float]) -> None:
        self._stream = stream
        self._remaining = remaining

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._remaining())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._remaining())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._remaining())
        return _Stream(stream, self._remaining)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
