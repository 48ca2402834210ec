"""Peers that are connected in order to be asked: found through others, let go again, and dialled no
more often than a stranger's word is worth."""

import random
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from swarm import dialer
from swarm.dialer import MAX_VISIT_FAILURES
from swarm.gossip import FetchFailed
from swarm.identity import Identity
from swarm.libp2p import Libp2pGossip, open_libp2p
from tests.swarm.until import until

BODY = b"a body"
HASH = sha256(BODY).digest()


async def find_body(hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    return {HASH: BODY}


@asynccontextmanager
async def two_apart(directory: Path, room: int = 2) -> AsyncIterator[list[Libp2pGossip]]:
    """A node that is connected to two others, which have all the peers that they look for."""
    async with AsyncExitStack() as stack:
        nodes: list[Libp2pGossip] = []
        for max_peers in (8, room, room):
            identity = Identity(secrets.token_bytes(32))
            node = open_libp2p(
                identity,
                "a swarm",
                "/ip4/127.0.0.1/tcp/0",
                find_body,
                nodes[0].addresses() if nodes else [],
                directory / f"{identity.node_id}.json",
                max_peers,
                random.Random(0),
            )
            nodes.append(await stack.enter_async_context(node))
            nodes[-1]._dialer._wanted_peers = 1
        middle, one, two = nodes
        await until(lambda: {*middle.members()} == {one.node_id, two.node_id})
        await until(lambda: one.members() == two.members() == [middle.node_id])
        yield nodes


def connected(node: Libp2pGossip) -> set[str]:
    return {one.node_id for one in node.connections()}


@trio_test
async def test_an_author_is_found_through_a_common_peer_and_let_go_after_the_visit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialer, "VISIT_S", 3.0)
    with trio.fail_after(60):
        async with two_apart(tmp_path) as (middle, one, two):
            assert await one.fetch(two.node_id, [HASH], 1000) == {HASH: BODY}
            assert connected(one) == {middle.node_id, two.node_id}
            assert (one.traffic().visits, one.traffic().visits_failed) == (1, 0)
            await until(lambda: connected(one) == {middle.node_id})
            await until(lambda: connected(two) == {middle.node_id})
            assert await one.fetch(two.node_id, [HASH], 1000) == {HASH: BODY}


@trio_test
async def test_a_visited_peer_stays_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialer, "VISIT_S", 0.1)
    with trio.fail_after(60):
        async with two_apart(tmp_path) as (middle, one, two):
            one._dialer._wanted_peers = 2
            assert await one.fetch(two.node_id, [HASH], 1000) == {HASH: BODY}
            await trio.sleep(2)
            assert connected(one) == {middle.node_id, two.node_id}


@trio_test
async def test_full_nodes_visit_each_other_beside_their_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialer, "PASS_S", 3.0)
    with trio.fail_after(60):
        async with two_apart(tmp_path, room=1) as (middle, one, two):
            assert await one.fetch(two.node_id, [HASH], 1000) == {HASH: BODY}
            assert connected(one) == connected(two) == {middle.node_id}
            assert one._dialer.is_connected(two.node_id)
            await until(lambda: not one._dialer.is_connected(two.node_id))
            assert one.traffic().connections_refused == 0
            assert two.traffic().connections_refused == 1, "counted where somebody comes"


@trio_test
async def test_what_strangers_sign_makes_no_node_look_and_dial_without_end(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with two_apart(tmp_path) as (middle, one, _):
            num_asked = 0
            assert middle.kademlia is not None
            answer = middle.kademlia._found

            def counted(key: bytes, asker: str) -> object:
                nonlocal num_asked
                num_asked += asker == one.node_id
                return answer(key, asker)

            middle.kademlia._found = counted  # type: ignore[assignment]
            for _ in range(3 * MAX_VISIT_FAILURES):
                nobody = Identity(secrets.token_bytes(32)).node_id
                with pytest.raises(FetchFailed, match="not connected"):
                    await one.fetch(nobody, [HASH], 1000)
            assert MAX_VISIT_FAILURES <= one.traffic().visits_failed < 1.5 * MAX_VISIT_FAILURES
            assert num_asked <= one.traffic().visits_failed + 4, "and its own lookups"
