"""The page in a real browser, where one is installed: Debian's chromium, without network."""

import shutil
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import trio_test

from node.api import create_app, open_listener, serve_api
from node.api_fake import fake_readable
from node.status import Snapshot
from node.status_json import from_json

CHROMIUM = shutil.which("chromium")
SNAPSHOT = from_json((Path(__file__).parents[1] / "node/snapshot.json").read_bytes(), Snapshot)
TOKEN = "t" * 43
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=4000",
    "--dump-dom",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


async def page_of(snapshot: Snapshot, profile: Path) -> str:
    """The page's elements as the browser has them after some seconds."""
    app = create_app(fake_readable(lambda: snapshot), TOKEN)
    listener, stop = open_listener("127.0.0.1", 0), trio.Event()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={TOKEN}"
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_api, app, listener, stop=stop))
            command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", url]
            done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
            stop.set()
    return done.stdout.decode()


@trio_test
async def test_the_page_shows_the_node_and_a_strangers_text_as_text(tmp_path: Path) -> None:
    page = await page_of(SNAPSHOT, tmp_path)
    assert '<p id="pulse" role="status" class="live">live</p>' in page
    assert "sapo · round 124" in page
    for gone in ("<script>alert", "<img src=x", "<b>[bold]", "\x1b", "\x07", "\u202e", "\u2066"):
        assert gone not in page, repr(gone)
    for there in (
        "&lt;img src=x onerror=alert(1)&gt;",
        "9 groups, 2 replayed, effective sample size 88 %",
        "0.063 nats per token",
        "own reward fell from 0.6 to 0.2 &lt;i&gt;[red]",
        "&lt;b&gt;[bold]\\x1b[2J",
        "&lt;script&gt;alert(2)&lt;/script&gt;\\x1b[31m[red]\\u2066",
        "&lt;b&gt;the manifest says 13\\x1b[2J",
        "FILES OPEN (no Landlock), network and processes closed (seccomp)",
    ):
        assert there in page


@trio_test
async def test_the_page_of_a_node_without_a_policy_has_no_place_for_one(tmp_path: Path) -> None:
    page = await page_of(msgspec.structs.replace(SNAPSHOT, mode="observe"), tmp_path)
    assert "sapo · Observing" in page
    assert '<section class="card of-policy" id="learning" hidden="">' in page
    assert "loss -0.031" not in page
