"""The page of a real node in a swarm of two: it follows, opens a peer's rollout, bans the peer, and
comes through a restart of the node."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from node.access import read_address, read_token
from tests.browser.reader import Reader
from tests.integration.sapo_node import SapoNode, free_port

POLICY = ("--engine", "transformers", "--set", "rollout.questions=2", "--set", "batch.peer_share=1")
PATIENCE_MS = 240_000


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[tuple[SapoNode, SapoNode]]:
    giver = SapoNode(tmp_path / "giver", *POLICY)
    stays = ("--set", f"api.port={free_port()}")  # the page comes back to where it was
    known = ("--set", f"swarm.bootstrap={giver.address}")
    learner = SapoNode(tmp_path / "learner", *POLICY, *known, *stays)
    yield learner, giver
    for node in (learner, giver):
        node.kill()


@pytest.mark.timeout(900)
def test_the_page_follows_a_swarm_of_two_and_bans_one_of_it(
    reader: Reader, swarm: tuple[SapoNode, SapoNode]
) -> None:
    learner, giver = swarm
    learner.wait_until(lambda one: sum(one.foreign_groups_used) >= 1)
    page = reader.page
    page.goto(f"{read_address(learner.home)}/?token={read_token(learner.home)}")
    expect(page.locator("#pulse")).to_have_text("live")

    short = f"{giver.node_id[:8]}…{giver.node_id[-6:]}"
    row = page.locator(f"#peers tr[data-peer='{giver.node_id}']")
    expect(row).to_contain_text("direct")
    expect(page.locator("#giver-chart canvas")).to_have_attribute("aria-label", re.compile(short))
    before = int(page.locator("#round").inner_text())
    page.wait_for_function(
        "(before) => Number(document.querySelector('#round').textContent) > before",
        arg=before,
        timeout=PATIENCE_MS,
    )

    page.locator("#rollout-kind").select_option("foreign")
    expect(page.locator("#rollout-table tbody tr").first).to_contain_text(short)
    page.locator("#rollout-table button").first.click()
    expect(page.locator("#reader-story")).to_contain_text(f"By {short}")
    expect(page.locator("#reader-answers li .verdict").first).to_contain_text(
        re.compile("correct|wrong")
    )
    page.keyboard.press("Escape")

    row.get_by_role("button", name="Ban").click()
    page.locator("#confirm").get_by_label("Why").fill("a test")
    page.locator("#confirm").get_by_role("button", name="Ban").click()
    expect(page.locator("#done")).to_contain_text("is banned for good", timeout=PATIENCE_MS)
    expect(row).to_contain_text(re.compile("banned.*for good"), timeout=PATIENCE_MS)
    expect(row.get_by_role("button", name="Unban")).to_be_visible()
    banned = learner.wait_until(lambda one: not any(peer.connected for peer in one.peers))
    assert [peer.node_id for peer in banned.peers if peer.banned] == [giver.node_id]

    learner.process.send_signal(signal.SIGTERM)
    learner.process.wait(timeout=120)
    expect(page.locator("#stale")).to_contain_text("No answer from the node since")
    learner.start()
    expect(page.locator("#pulse")).to_have_text("live", timeout=PATIENCE_MS)
    expect(page.locator("#stale")).to_be_hidden()
    expect(row).to_contain_text(re.compile("banned.*for good"))
