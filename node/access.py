"""Who may ask the node's API, as files in its home: the token, and the address while it runs.

The token may be replaced while the node runs (`rotate_token`): it takes the new one at the next
request, and the old one is worth nothing from then on.

Covered: other users of the machine cannot read the token; web pages cannot reach the API
(node/gate.py). Not covered: programs of the same user, and whoever takes over the port of a node
that was killed: it would be sent the token by the next `sapo status`.
"""

import errno
import logging
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from node.config import ConfigError
from node.home import HomeError
from swarm.disk import fsync_directory, write_durably

logger = logging.getLogger(__name__)

TOKEN_FILE, ADDRESS_FILE = "api-token", "api-address"
FAMILIES = {
    "127.0.0.1": socket.AF_INET,
    "localhost": socket.AF_INET,
    "::1": socket.AF_INET6,
}
"""Where the API may be served: on this machine only."""

SEND_TIMEOUT_MS = 2000
"""After which a connection is closed whose other end takes no more bytes. It would else hold up the
end of the node: hypercorn does not let go of what it is sending."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")


def open_listener(host: str, port: int) -> socket.socket:
    """A socket that listens on this machine; port 0 takes a free one.

    Raises:
        ConfigError: the port is taken or not allowed, or the host is not this machine alone.
    """
    if host not in FAMILIES:
        raise ConfigError(
            f"api.host = {host}: this version serves its API on this machine only; use 127.0.0.1, "
            "and a tunnel (ssh -L) from elsewhere"
        )
    return listen_at(FAMILIES[host], "127.0.0.1" if host == "localhost" else host, port)


def listen_at(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    """A socket that listens there, whoever may reach it.

    Raises:
        ConfigError: the port is taken or not allowed, or this machine has no such address.
    """
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SEND_TIMEOUT_MS)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(
                f"api.host = {host}: this machine has no such address; 0.0.0.0 is all that it has"
            ) from None
        raise ConfigError(
            f"api.port = {port}: {os.strerror(error.errno or 0)}; is another node running? "
            "Choose another port, or 0 for a free one"
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Its URL, without a slash at the end."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def open_token(home: Path) -> str:
    """The API's token, made at the first start (mode 0600).

    Raises:
        HomeError: others may read the file, or it holds no token.
    """
    return _token(home / TOKEN_FILE, os.O_RDWR | os.O_CREAT)


def read_token(home: Path) -> str:
    """The API's token; nothing is made. Raises as `open_token` does."""
    return _token(home / TOKEN_FILE, os.O_RDONLY)


def rotate_token(home: Path) -> str:
    """Replaces the API's token by a new one, which is returned; on disk on return.

    Raises:
        HomeError: no node has run in this home, or the file cannot be replaced.
    """
    file = home / TOKEN_FILE
    if not os.path.lexists(file):
        raise HomeError(f"{file}: there is no token; the first `sapo run` in this home makes one")
    text = secrets.token_urlsafe(32)
    aside = home / f".{TOKEN_FILE}.{os.getpid()}"
    try:
        aside.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(aside, flags, 0o600)
        try:
            os.write(handle, f"{text}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        aside.replace(file)
        fsync_directory(home)
    except OSError as error:
        raise HomeError(f"{file}: cannot be replaced: {error.strerror}") from None
    return text


class LiveToken:
    """The token of a home as its file says now: looked at whenever it is asked for.

    A file that is gone, or that others may read, changes nothing but the log: the node goes on with
    the token that it has.
    """

    def __init__(self, home: Path, hear: Callable[[], None] = lambda: None) -> None:
        """Makes a token where there is none.

        Args:
            hear: is told of every new token.

        Raises:
            HomeError: as `open_token`.
        """
        self._home = home
        self._hear = hear
        self._token = open_token(home)
        self._seen = self._look()

    def __call__(self) -> str:
        """The token. Looks at the file, which takes microseconds."""
        if (seen := self._look()) != self._seen:
            self._seen = seen
            try:
                token = read_token(self._home)
            except HomeError as error:
                logger.error("the API keeps the token that it has: %s", error)
                return self._token
            if token != self._token:
                self._token = token
                logger.info("the API has a new token")
                self._hear()
        return self._token

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.lstat(self._home / TOKEN_FILE)
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode


def _token(file: Path, flags: int) -> str:
    try:
        handle = os.open(file, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HomeError(f"{file}: cannot be opened: {error.strerror}") from None
    try:
        if os.fstat(handle).st_mode & 0o077:
            raise HomeError(f"{file}: others may read the token; run: chmod 600 {file}")
        text = os.read(handle, 200).decode("ascii", "replace").strip()
        if not text and flags & os.O_CREAT:
            text = secrets.token_urlsafe(32)
            os.write(handle, f"{text}\n".encode())
            os.fsync(handle)
    finally:
        os.close(handle)
    if not _TOKEN.fullmatch(text):
        raise HomeError(f"{file}: no token; remove it, and the next start makes a new one")
    return text


@contextmanager
def write_address(home: Path, listener: socket.socket) -> Iterator[str]:
    """Says in `home` where the API is served, until the block ends; yields the URL."""
    url = address_of(listener)
    write_durably(home / ADDRESS_FILE, f"{url}\n")
    try:
        yield url
    finally:
        (home / ADDRESS_FILE).unlink(missing_ok=True)


def read_address(home: Path) -> str | None:
    """The URL that a running node wrote, or None. A killed node leaves its last one behind.

    Raises:
        HomeError: the file holds something else, or names another machine.
    """
    file = home / ADDRESS_FILE
    try:
        with file.open("rb") as opened:
            url = opened.read(200).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HomeError(f"{file}: cannot be read: {error.strerror}") from None
    if not re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]):[0-9]{1,5}", url):
        raise HomeError(f"{file}: no address of this machine; remove it and start the node again")
    return url


def page_address(home: Path) -> str | None:
    """The address that opens the node's page in a browser, token included; None if none runs."""
    url = read_address(home)
    return None if url is None else f"{url}/?token={read_token(home)}"
