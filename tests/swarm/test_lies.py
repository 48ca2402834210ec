"""One test per lie that a peer can tell, and what is no lie: each through the real path."""

import msgspec
import pytest
import trio
from trio.testing import MockClock, trio_test


@trio_test
async def test_an_honest_rollout_lands_in_the_pool(swarm, mock_clock: MockClock) -> None:
    author, node = swarm.node(), swarm.node()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.intake.run)
        assert await author.share() == 1
        await trio.sleep(10)
        assert await node.num_fresh() == 1
        nursery.cancel_scope.cancel()
    assert node.refused == {}
    (peer,) = node.ledger.peers()
    assert (peer.announcements, peer.offered, peer.fetched, peer.admitted) == (1, 1, 1, 1)
