"""The page in a real browser, against a made-up node: every part, every state, hostile text."""

import re
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect

from node.api_fake import FakeSwarm, fake_changeable, fake_readable
from node.news import Event, Item, News
from node.status import LearnerStatus, PeerStatus, Snapshot
from node.status_json import from_json
from tests.browser.reader import Reader
from tests.browser.scene import HOSTILE, TASKS, Scene
from tests.browser.served import serving

SNAPSHOT = from_json((Path(__file__).parents[1] / "node/snapshot.json").read_bytes(), Snapshot)


def has_ink(page: Page, chart: str) -> bool:
    """Whether anything is drawn on a chart."""
    return bool(
        page.evaluate(
            """(id) => {
              const canvas = document.querySelector(`#${id} canvas`);
              const { width, height } = canvas;
              const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
              return data.some((one) => one !== 0);
            }""",
            chart,
        )
    )


def is_cut_off(page: Page) -> bool:
    """Whether a part of the table of peers, its buttons for one, is out of sight to the right."""
    around = page.locator(".scroll.high")
    return bool(around.evaluate("(one) => one.scrollWidth > one.clientWidth"))


def test_it_says_what_the_node_does_and_whether_it_learns(reader: Reader) -> None:
    with serving(Scene().readable()) as served:
        page = reader.open(served)
        expect(page).to_have_title("sapo · round 320")
        expect(page.locator("#stage")).to_have_text("Generating")
        expect(page.locator("#stage-note")).to_contain_text("for ")
        expect(page.locator("#stage-legend")).to_contain_text("tokens/s while generating")
        expect(page.locator("#reward-note")).to_contain_text("points since the first 16 rounds")
        expect(page.locator("#heldout-note")).to_contain_text("points since round 0")
        expect(page.locator("#tasks tbody tr")).to_have_count(len(TASKS))
        expect(page.locator("#tasks tbody tr").first).to_contain_text("+")
        expect(page.locator("#refusals")).to_contain_text("counts against its author")
        charts = ("stage-chart", "reward-chart", "foreign-chart", "figure-chart", "giver-chart")
        for chart in (*charts, "age-chart", "map-chart"):
            canvas = page.locator(f"#{chart} canvas")
            expect(canvas).to_have_attribute("aria-label", re.compile(r"\w+ .*\d"))
            assert has_ink(page, chart), chart


def test_another_figure_is_drawn_when_it_is_chosen(reader: Reader) -> None:
    with serving(Scene().readable()) as served:
        page = reader.open(served)
        page.locator("#figure").select_option("kl_to_start")
        expect(page.locator("#figure-chart canvas")).to_have_attribute(
            "aria-label", re.compile("distance from the start by round")
        )


def test_a_rollout_is_read_and_can_be_named_by_an_address(reader: Reader) -> None:
    scene = Scene()
    liar = scene.authors[5]
    with serving(scene.readable()) as served:
        page = reader.open(served)
        page.locator("#rollout-kind").select_option("foreign")
        expect(page.locator("#rollout-table tbody tr")).to_have_count(6)
        page.get_by_role("row", name="wrong claim").get_by_role("button").click()
        dialog = page.locator("#reader")
        expect(dialog).to_contain_text("refused: wrong claim")
        expect(dialog).to_contain_text("A correct answer: 12")
        expect(dialog).to_contain_text(liar.node_id[-6:])
        expect(dialog.locator("#reader-answers li")).to_have_count(4)
        expect(dialog.locator("li.wrong")).to_contain_text("its author says correct")
        assert re.search(r"#rollout=[0-9a-f]{64}$", page.url)
        named = page.url
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page).to_have_url(f"{served.url}/")
        page.goto("about:blank")
        page.goto(named)
        expect(page.locator("#reader")).to_contain_text("refused: wrong claim")


def test_the_list_of_rollouts_follows_the_node_but_not_under_the_hand(reader: Reader) -> None:
    scene = Scene(num_rounds=5)
    with serving(scene.readable()) as served:
        page = reader.open(served)
        rows = page.locator("#rollout-table tbody tr")
        page.locator("#rollout-kind").select_option("foreign")
        expect(rows).to_have_count(6)

        def come(index: int) -> None:
            scene.add_foreign(scene.authors[0], index)
            report = scene.add_round(index)
            served.do(lambda: scene.news.tell(Item(Event.ROUND, report, index)))

        come(6)
        expect(rows).to_have_count(7)
        rows.nth(2).hover()
        come(7)
        expect(page.get_by_role("button", name="Newest")).to_be_enabled()
        expect(rows).to_have_count(7)
        page.get_by_role("button", name="Newest").click()
        expect(rows).to_have_count(8)


def test_a_rollout_that_gave_way_is_said_to_have_done_so(reader: Reader) -> None:
    with serving(Scene(num_rounds=3).readable()) as served:
        page = reader.open(served)
        page.goto(f"{served.url}/#rollout={'0' * 64}")
        expect(page.locator("#reader-story")).to_contain_text("old ones give way")


def test_a_strangers_text_stays_text_wherever_it_is_shown(reader: Reader) -> None:
    scene = Scene(num_rounds=20)
    hash = scene.add_foreign(scene.authors[0], 99, text=HOSTILE)
    peer = PeerStatus(
        HOSTILE, connected=True, address=HOSTILE, refused={HOSTILE: 3}, banned=True,
        ban_reason=HOSTILE,
    )  # fmt: skip
    learner = LearnerStatus(
        stage=HOSTILE, engine=HOSTILE, last_error=HOSTILE, restart_in_s=3.0, round=20
    )
    scene.snapshot = msgspec.structs.replace(
        scene.snapshot, swarm_name=HOSTILE, model=HOSTILE, home=HOSTILE, addresses=(HOSTILE,),
        warnings=(HOSTILE,), refused={HOSTILE: 3}, limited={HOSTILE: 3}, learner=learner,
        tasks=(*TASKS, HOSTILE), tasks_left_out={HOSTILE: HOSTILE},
        peers=(*scene.snapshot.peers, peer), memory_mib={HOSTILE: 3.0},
    )  # fmt: skip
    with serving(scene.readable()) as served:
        page = reader.open(served)
        page.goto(f"{served.url}/#rollout={hash}")
        expect(page.locator("#reader-answers li").first).to_contain_text("<img src=x")
        expect(page.locator("#warnings li")).to_contain_text("\\x1b[31m\\u202e<script>")
        body = page.locator("body").inner_text()
        assert "\x1b" not in body and "\u202e" not in body
        assert page.locator("img[src=x], #main script, dialog script").count() == 0
        assert page.title() == "sapo · round 20"


def test_it_shows_the_snapshot_that_has_everything(reader: Reader) -> None:
    with serving(fake_readable(lambda: SNAPSHOT)) as served:
        page = reader.open(served)
        expect(page).to_have_title("sapo · round 124")
        for text in (
            "9 groups, 2 replayed, effective sample size 88 %",
            "0.063 nats per token",
            "own reward fell from 0.6 to 0.2 <i>[red]",
            "FILES OPEN (no Landlock), network and processes closed (seccomp)",
            "<b>the manifest says 13\\x1b[2J",
            "<script>alert(2)</script>\\x1b[31m[red]\\u2066",
        ):
            expect(page.locator("#main")).to_contain_text(text)


def test_news_is_shown_without_being_asked_for(reader: Reader) -> None:
    scene = Scene(num_rounds=30)
    with serving(scene.readable()) as served:
        page = reader.open(served)
        page.route("**/api/v1/status", lambda _: None)  # no answer: events alone have to tell it
        report = scene.add_round(31)
        learner = msgspec.structs.replace(scene.snapshot.learner, round=31, stage="updating")
        scene.snapshot = msgspec.structs.replace(
            scene.snapshot, learner=learner, last_round=report, warnings=("something is odd",)
        )
        served.do(lambda: scene.news.tell(Item(Event.ROUND, report, 31)))
        expect(page.locator("#stage")).to_have_text("Updating")
        expect(page.locator("#round")).to_have_text("31")
        expect(page.locator("#warnings")).to_contain_text("something is odd")
        expect(page.locator("#reward-chart canvas")).to_have_attribute(
            "aria-label", re.compile("own reward by round")
        )


def test_it_survives_a_restart_and_says_since_when_it_is_old(reader: Reader) -> None:
    scene = Scene(num_rounds=30)
    with serving(scene.readable()) as served:
        page = reader.open(served)
        served.stop()
        expect(page.locator("#stale")).to_contain_text(
            re.compile(r"No answer from the node since \d\d:\d\d:\d\d\. What you see is .* s old")
        )
        expect(page.locator("#pulse")).to_have_text("no answer")
        expect(page.get_by_role("button", name="Pause")).to_be_disabled()
        learner = msgspec.structs.replace(scene.snapshot.learner, round=44)
        scene.snapshot = msgspec.structs.replace(
            scene.snapshot, started=scene.snapshot.started + 100, learner=learner
        )
        served.start()
        expect(page.locator("#pulse")).to_have_text("live")
        expect(page.locator("#stale")).to_be_hidden()
        expect(page.locator("#round")).to_have_text("44")
        expect(page.get_by_role("button", name="Pause")).to_be_enabled()


def test_where_too_many_listen_it_asks_instead(reader: Reader) -> None:
    scene = Scene(num_rounds=5, news=News(max_listeners=0))
    with serving(scene.readable()) as served:
        reader.page.goto(served.way_in)
        expect(reader.page.locator("#pulse")).to_have_text("live, every 5 s")
        learner = msgspec.structs.replace(scene.snapshot.learner, round=6)
        scene.snapshot = msgspec.structs.replace(scene.snapshot, learner=learner)
        expect(reader.page.locator("#round")).to_have_text("6")


def test_without_its_chart_library_the_figures_still_stand(reader: Reader) -> None:
    with serving(Scene(num_rounds=20).readable()) as served:
        reader.page.route("**/Chart.bundle.js", lambda route: route.abort())
        page = reader.open(served)
        expect(page.locator("#peers tbody tr")).to_have_count(7)
        expect(page.locator("#tasks tbody tr")).to_have_count(len(TASKS))


def test_without_a_token_nothing_of_the_node_is_shown_and_one_is_asked_for_once(
    reader: Reader,
) -> None:
    scene = Scene(num_rounds=3)
    with serving(scene.readable()) as served:
        page = reader.page
        page.goto(served.url)
        expect(page.locator("h1")).to_have_text("This page needs the node's token")
        assert scene.snapshot.swarm_name not in page.content()
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_contain_text("not the token")
        page.get_by_label("Token").fill(served.way_in.partition("token=")[2])
        page.get_by_role("button", name="Open").click()
        expect(page.locator("#pulse")).to_have_text("live")
        assert page.url == f"{served.url}/"
        page.reload()
        expect(page.locator("#pulse")).to_have_text("live")
        assert page.evaluate("document.cookie") == ""  # scripts cannot read it


def test_a_token_that_was_replaced_is_said_to_be_missing(reader: Reader) -> None:
    with serving(Scene(num_rounds=3).readable()) as served:
        page = reader.open(served)
        page.context.clear_cookies()
        expect(page.locator("#stale")).to_contain_text("it asks for its token")


def test_a_peer_is_banned_and_unbanned_after_being_asked(reader: Reader, tmp_path: Path) -> None:
    scene, swarm = Scene(num_rounds=10), FakeSwarm()
    actions = fake_changeable(tmp_path, scene.store, swarm)
    peer = scene.authors[2].node_id
    with serving(scene.readable(), actions) as served:
        page = reader.open(served)
        page.get_by_role("button", name=f"Ban {peer[:8]}…{peer[-6:]}").click()
        confirm = page.locator("#confirm")
        confirm.get_by_role("button", name="Cancel").click()
        expect(confirm).to_be_hidden()
        assert swarm.told == []
        page.get_by_role("button", name=f"Ban {peer[:8]}…{peer[-6:]}").click()
        confirm.get_by_label("Why").fill("floods")
        confirm.get_by_label("For how long").select_option(label="a day")
        confirm.get_by_role("button", name="Ban").click()
        expect(page.locator("#done")).to_contain_text("is banned until")
        (ban,) = scene.store.bans.bans()
        assert (ban.node_id, ban.reason) == (peer, "floods")
        assert ("drop", peer) in swarm.told
        scene.snapshot = with_banned(scene.snapshot, peer)
        page.get_by_role("button", name=f"Unban {peer[:8]}…{peer[-6:]}").click()
        assert not is_cut_off(page)
        confirm.get_by_role("button", name="Unban").click()
        expect(page.locator("#done")).to_contain_text("is banned no more")
        assert not scene.store.bans.bans()


def with_banned(snapshot: Snapshot, node_id: str) -> Snapshot:
    peers = tuple(
        msgspec.structs.replace(one, banned=one.node_id == node_id) for one in snapshot.peers
    )
    return msgspec.structs.replace(snapshot, peers=peers)


def test_what_a_node_does_not_offer_is_said_and_nothing_is_shown_as_done(reader: Reader) -> None:
    with serving(Scene(num_rounds=3).readable()) as served:
        page = reader.open(served)
        page.get_by_role("button", name="Write checkpoint").click()
        page.locator("#confirm").get_by_role("button", name="Write").click()
        expect(page.locator("#done")).to_contain_text("Not done: this node does not offer that")


def test_the_learner_is_paused_after_being_asked(reader: Reader, tmp_path: Path) -> None:
    scene = Scene(num_rounds=3)
    with serving(scene.readable(), fake_changeable(tmp_path, scene.store)) as served:
        page = reader.open(served)
        page.get_by_role("button", name="Pause").click()
        page.locator("#confirm").get_by_role("button", name="Pause").click()
        expect(page.locator("#done")).to_contain_text("pauses when the round is finished")
        scene.snapshot = msgspec.structs.replace(scene.snapshot, paused=True)
        expect(page.get_by_role("button", name="Resume")).to_be_visible()


@pytest.mark.parametrize("num_peers", [0, 1, 64])
def test_it_is_whole_with_any_number_of_peers(reader: Reader, num_peers: int) -> None:
    with serving(Scene(num_rounds=20, num_peers=num_peers).readable()) as served:
        page = reader.open(served)
        expect(page.locator("#peers tbody tr")).to_have_count(num_peers)
        assert not is_cut_off(page)
        if num_peers:
            expect(page.locator("#map-chart canvas")).to_have_attribute(
                "aria-label", re.compile(f"map of {num_peers} peer")
            )
        else:
            expect(page.locator("#no-peers")).to_contain_text("Nobody yet")
            expect(page.locator("#no-givers")).to_contain_text("Nothing of a peer was used")


def test_a_node_that_has_just_begun_shows_no_empty_charts(reader: Reader) -> None:
    scene = Scene(num_rounds=0, num_peers=0)
    scene.snapshot = msgspec.structs.replace(scene.snapshot, heldout=())
    with serving(scene.readable()) as served:
        page = reader.open(served)
        expect(page.locator("#no-rounds")).to_have_text("The curve begins with the first round.")
        expect(page.locator("#no-rollouts")).to_contain_text("None yet")
        assert page.locator("canvas:visible").count() == 0


@pytest.mark.parametrize("mode", ["observe", "relay"])
def test_a_node_without_a_policy_has_no_place_for_one(reader: Reader, mode: str) -> None:
    scene = Scene(num_rounds=0)
    scene.snapshot = msgspec.structs.replace(scene.snapshot, mode=mode, model="")
    with serving(scene.readable()) as served:
        page = reader.open(served)
        expect(page.locator("#learning")).to_be_hidden()
        expect(page.locator("#rollouts")).to_be_hidden()
        expect(page.locator("#swarm-map")).to_be_visible()
        expect(page.get_by_role("button", name="Pause")).to_be_hidden()
        expect(page.get_by_role("button", name="Shut down")).to_be_visible()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_nothing_is_wider_than_the_screen(browser: Browser, width: int, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 844},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    with serving(Scene(num_rounds=40, num_peers=64).readable()) as served:
        page.goto(served.way_in)
        expect(page.locator("#pulse")).to_have_text("live")
        expect(page.locator("#peers tbody tr")).to_have_count(64)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("#rollout-table button").first.click()
        expect(page.locator("#reader-answers li").first).to_be_visible()
        assert page.evaluate("document.querySelector('#reader').scrollWidth") <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        shade = sum(int(one) for one in re.findall(r"\d+", ground)[:3]) / 3
        assert (shade < 60) == (scheme == "dark")
    context.close()


def test_it_can_be_used_by_keys_alone(reader: Reader) -> None:
    with serving(Scene(num_rounds=20).readable()) as served:
        page = reader.open(served)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        row = page.locator("#rollout-table button").first
        row.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#reader")).to_be_visible()
        assert page.evaluate("document.querySelector('#reader').contains(document.activeElement)")
        page.keyboard.press("Escape")
        expect(page.locator("#reader")).to_be_hidden()
        expect(row).to_be_focused()
        unnamed = page.evaluate(
            """() => Array.from(document.querySelectorAll("button, select, input"))
                 .filter((one) => one.checkVisibility() && !one.textContent.trim()
                   && !one.labels?.length && !one.getAttribute("aria-label")).length"""
        )
        assert unnamed == 0


def test_a_reload_asks_for_no_file_twice(reader: Reader) -> None:
    with serving(Scene(num_rounds=3).readable()) as served:
        page = reader.open(served)
        page.reload()
        expect(page.locator("#pulse")).to_have_text("live")
        moved = page.evaluate(
            """() => performance.getEntriesByType("resource")
                 .filter((one) => one.name.includes("/assets/") && one.transferSize > 1000)
                 .map((one) => one.name)"""
        )
        assert moved == []
