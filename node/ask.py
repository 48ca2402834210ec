"""A running node, asked by its home: what it says of itself, and what it is told to do.

Straight to this machine, whatever proxy the environment names. Every answer is bounded before it is
parsed, and of an error only the sentence for people is shown, escaped.
"""

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from node.access import read_address, read_token
from node.escape import printable
from node.status import RoundReport, Snapshot
from node.status_json import from_json

T = TypeVar("T")

TIMEOUT_S = 5.0
"""For the connection, and for each part of the answer."""

DO_TIMEOUT_S = 60.0
"""The same for what changes something: a ban removes rollouts, a checkpoint is written."""

MAX_ANSWER_BYTES = 16 * 2**20


class NodeUnreachable(RuntimeError):
    """No answer from a node; the message says why and what to do."""


class NodeRefused(RuntimeError):
    """The node answered that it does not do this; the message says why."""


class Banned(msgspec.Struct, frozen=True):
    """What a ban did."""

    node_id: str
    banned_until: float | None
    """Unix seconds; None: for good."""
    purged: int
    """Rollouts of the peer that were removed."""


class Unbanned(msgspec.Struct, frozen=True):
    """What the end of a ban did."""

    node_id: str
    was_banned: bool


class _Problem(msgspec.Struct):
    """RFC 9457, as far as it is shown."""

    detail: str = ""
    title: str = ""


def fetch_snapshot(home: Path) -> Snapshot:
    """What the node that runs in `home` says of itself.

    Raises:
        NodeUnreachable: none runs there, it does not answer, or not as this version expects.
        HomeError: its token cannot be read (node/access.py).
    """
    return _ask(home, "GET", "/api/v1/status", Snapshot)


def fetch_rounds(home: Path, since: int, limit: int = 1000) -> list[RoundReport]:
    """Reports of at most `limit` rounds after `since`, oldest first. Raises as `fetch_snapshot`."""
    return _ask(home, "GET", f"/api/v1/rounds?since={since}&limit={limit}", list[RoundReport])


def ban(home: Path, node_id: str, reason: str, for_s: float | None) -> Banned:
    """Has the node in `home` ban a peer and remove its rollouts.

    Args:
        for_s: seconds; None: for good.

    Raises:
        NodeRefused: the node does not do it, e.g. since this is no node id.
        NodeUnreachable, HomeError: as `fetch_snapshot`.
    """
    body = {"reason": reason, "for_s": for_s}
    return _ask(home, "POST", f"/api/v1/peers/{quote(node_id, safe='')}/ban", Banned, body)


def unban(home: Path, node_id: str) -> Unbanned:
    """Has the node in `home` end a ban. Raises as `ban`."""
    return _ask(home, "POST", f"/api/v1/peers/{quote(node_id, safe='')}/unban", Unbanned, {})


def _ask(
    home: Path, method: str, path: str, kind: type[T], body: Mapping[str, object] | None = None
) -> T:
    url = read_address(home)
    if url is None:
        raise NodeUnreachable(f"no node runs in {home} (start it with: sapo run --home {home})")
    try:
        status, answer = _request(url, method, path, read_token(home), body)
    except ConnectionRefusedError:
        raise NodeUnreachable(
            f"no node runs in {home} any more: it was killed, and left {url} as its address "
            f"(start it with: sapo run --home {home})"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        why = printable(str(error) or type(error).__name__)
        raise NodeUnreachable(f"the node at {url} does not answer: {why}") from None
    if method == "POST" and status >= 400 and status != 401:
        raise NodeRefused(_why_refused(status, path, answer))
    if not 200 <= status < 300:
        raise NodeUnreachable(f"{url} answers with status {status}: is it the node of {home}?")
    try:
        return from_json(answer, kind)
    except ValueError as error:
        why = printable(str(error))
        raise NodeUnreachable(f"the node at {url} is of another version: {why}") from None


def _why_refused(status: int, path: str, answer: bytes) -> str:
    try:
        said = msgspec.json.decode(answer, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = _Problem()
    action = path.rpartition("/")[2]
    if status == 405 or (status == 404 and said.detail in ("", "Not Found")):
        return f"the node's version knows no {action}; start it again with this one"
    return f"the node refused the {action}: {printable(said.detail or said.title, 500)} ({status})"


def _request(
    url: str, method: str, path: str, token: str, body: Mapping[str, object] | None
) -> tuple[int, bytes]:
    place = urlsplit(url)
    timeout_s = TIMEOUT_S if method == "GET" else DO_TIMEOUT_S
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout_s)
    headers = {"Authorization": f"Bearer {token}"}
    data: bytes | None = None
    if body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        answer = response.read(MAX_ANSWER_BYTES + 1)
    finally:
        connection.close()
    if len(answer) > MAX_ANSWER_BYTES:
        raise http.client.HTTPException(f"more than {MAX_ANSWER_BYTES} bytes")
    return response.status, answer
