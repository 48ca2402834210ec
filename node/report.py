"""A running node, asked from a terminal: `sapo status` and `sapo peers ls`.

Everything that a stranger may have written is escaped (node/escape.py) and handed to rich as Text,
in which it finds no markup.
"""

import http.client
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.access import read_address, read_token
from node.escape import printable
from node.status import WHAT_IT_DOES, PeerStatus, RoundReport, Snapshot, Stage
from node.status_json import from_json
from node.summary import smooth
from node.view import sparkline
from node.words import closed_in, short_id, size, span

T = TypeVar("T")

TIMEOUT_S = 5.0
"""For the connection, and for each part of the answer."""

MAX_ANSWER_BYTES = 16 * 2**20

LATELY = 16
"""Rounds that "lately" means."""

DOING = {
    Stage.STARTING: "is starting: it loads the model",
    Stage.DRAWING: "draws questions",
    Stage.GENERATING: "generates answers",
    Stage.VERIFYING: "verifies its answers",
    Stage.SHARING: "shares rollouts with its peers",
    Stage.MIXING: "mixes its rollouts with those of peers, or waits for them",
    Stage.UPDATING: "updates its policy",
    Stage.SYNCING: "brings the new weights into the engine",
    Stage.CHECKPOINTING: "writes a checkpoint",
    Stage.EVALUATING: "measures itself on held-out questions",
    Stage.STOPPED: "has stopped",
}


class NodeUnreachable(RuntimeError):
    """No answer from a node; the message says why and what to do."""


def fetch_snapshot(home: Path) -> Snapshot:
    """What the node that runs in `home` says of itself.

    Raises:
        NodeUnreachable: none runs there, it does not answer, or not as this version expects.
        HomeError: its token cannot be read (node/access.py).
    """
    return _fetch(home, "/api/v1/status", Snapshot)


def fetch_rounds(home: Path, since: int, limit: int = 1000) -> list[RoundReport]:
    """Reports of at most `limit` rounds after `since`, oldest first. Raises as `fetch_snapshot`."""
    return _fetch(home, f"/api/v1/rounds?since={since}&limit={limit}", list[RoundReport])


def _fetch(home: Path, path: str, kind: type[T]) -> T:
    url = read_address(home)
    if url is None:
        raise NodeUnreachable(f"no node runs in {home} (start it with: sapo run --home {home})")
    try:
        status, body = _get(url, path, read_token(home))
    except ConnectionRefusedError:
        raise NodeUnreachable(
            f"no node runs in {home} any more: it was killed, and left {url} as its address "
            f"(start it with: sapo run --home {home})"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        why = printable(str(error) or type(error).__name__)
        raise NodeUnreachable(f"the node at {url} does not answer: {why}") from None
    if status != 200:
        raise NodeUnreachable(f"{url} answers with status {status}: is it the node of {home}?")
    try:
        return from_json(body, kind)
    except ValueError as error:
        why = printable(str(error))
        raise NodeUnreachable(f"the node at {url} is of another version: {why}") from None


def _get(url: str, path: str, token: str) -> tuple[int, bytes]:
    """Straight to this machine, whatever proxy the environment names."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES + 1)
    finally:
        connection.close()
    if len(body) > MAX_ANSWER_BYTES:
        raise http.client.HTTPException(f"more than {MAX_ANSWER_BYTES} bytes")
    return response.status, body


def print_status(snapshot: Snapshot, console: Console, page: str | None = None) -> None:
    """Warnings, one paragraph, some figures, the peers, and where peers can dial this node.

    Args:
        page: the address of the node's page, see `node.access.page_address`.
    """
    for warning in snapshot.warnings:
        console.print(Text(f"! {printable(warning, 500)}", style="bold yellow"))
    console.print(Text(_paragraph(snapshot)))
    console.print(_figures(snapshot))
    if snapshot.peers:
        console.print(_short_table(snapshot))
    for address in snapshot.addresses:
        console.print(Text(f"dial: {printable(address, 500)}"), style="dim", soft_wrap=True)
    if page is not None:
        console.print(Text(page), style="dim", soft_wrap=True)


def print_peers(snapshot: Snapshot, console: Console) -> None:
    """Each peer with its whole id, its figures, and why what it sent was refused."""
    if not snapshot.peers:
        console.print(Text("This node has met no peer yet."))
        return
    for peer in _in_order(snapshot):
        state = f"connected for {span(peer.connected_s)}" if peer.connected else "not connected"
        heard = f"heard {span(snapshot.now - peer.last_heard)} ago" if peer.last_heard else "silent"
        facts = [
            f"{state}, {heard}",
            f"offered {peer.rollouts_offered:,}, admitted {peer.rollouts_admitted:,}, "
            f"used {peer.rollouts_used:,}, announcements {peer.announcements:,}",
        ]
        if peer.address:
            facts.insert(0, printable(peer.address))
        if peer.refused:
            facts.append(f"refused: {_reasons(peer.refused)}")
        console.print(Text(printable(peer.node_id), style="bold"), soft_wrap=True)
        for fact in facts:
            console.print(Text(f"  {fact}"), soft_wrap=True)
        if peer.lies:
            console.print(Text(f"  {peer.lies:,} proven lies", style="bold red"))


def _paragraph(snapshot: Snapshot) -> str:
    learner = snapshot.learner
    since = datetime.fromtimestamp(snapshot.started).strftime("%Y-%m-%d %H:%M")
    of = "" if learner.target_rounds is None else f" of {learner.target_rounds:,}"
    made = f" and has made {learner.round:,}{of} rounds" if snapshot.has_policy else ""
    lines = [
        f"{short_id(snapshot.node_id)} in the swarm {printable(snapshot.swarm_name)} runs since "
        f"{since} ({span(snapshot.now - snapshot.started)}){made}.",
    ]
    if snapshot.has_policy:
        lines.append(_doing(snapshot))
    connected = sum(peer.connected for peer in snapshot.peers)
    if snapshot.learns and (used := snapshot.foreign_groups_used[-LATELY:]):
        wanted = snapshot.last_round.foreign_wanted if snapshot.last_round else 0
        lines.append(
            f"Of its last {len(used)} rounds, {sum(count > 0 for count in used)} learned from "
            f"peers: {sum(used):,} foreign groups, with {wanted:,} wanted in each round."
        )
    if snapshot.mode == "generate" and (last := snapshot.last_round):
        lines.append(
            f"It shared {last.num_shared:,} of the {last.num_questions:,} rollouts of its last "
            "round."
        )
    if not connected:
        lines.append(f"No peer is connected{': it learns alone' * snapshot.learns}.")
    return " ".join(lines)


def _doing(snapshot: Snapshot) -> str:
    learner = snapshot.learner
    if learner.is_done:
        return "All rounds are made."
    if learner.restart_in_s is not None:
        return (
            f"Its learner is down and is started again in {span(learner.restart_in_s)}; "
            f"it ended with: {printable(learner.last_error) or 'no message'}."
        )
    stages = {str(stage): words for stage, words in DOING.items()}
    if not snapshot.learns:
        stages |= dict.fromkeys((Stage.MIXING, Stage.UPDATING, Stage.SYNCING), "ends its round")
    doing = stages.get(learner.stage) or f"is busy with {printable(learner.stage)}"
    return f"It {doing}, for {span(learner.stage_age_s)} so far."


def _figures(snapshot: Snapshot) -> Table:
    learner, pool = snapshot.learner, snapshot.pool
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column(overflow="fold")

    def add(name: str, value: str, is_unusual: bool = False) -> None:
        table.add_row(name, Text(value, style="bold yellow" if is_unusual else ""))

    what = WHAT_IT_DOES.get(snapshot.mode, "does what this version does not know")
    add("mode", f"{printable(snapshot.mode)}: it {what}")
    if snapshot.has_policy:
        add("model", f"{printable(snapshot.model)} on {printable(learner.engine) or '(loading)'}")
    if learner.engine_warning:
        add("", printable(learner.engine_warning, 500), is_unusual=True)
    if rewards := smooth(list(snapshot.own_reward)):
        add("own reward", f"{rewards[-1]:.3f}  {sparkline(rewards, 40)}")
    for name, one in zip(("held out", "and now"), _first_and_last(snapshot), strict=False):
        add(name, one)
    if learner.restarts:
        add("learner restarts", f"{learner.restarts:,}", is_unusual=True)
    if last := snapshot.last_round:
        if last.shaped_reward is not None:
            add("with own terms", f"{last.shaped_reward:.3f} in the last round")
        if last.num_groups and snapshot.learns:
            add("batch", _batch(last))
        if last.brake:
            add("brake", printable(last.brake, 500), is_unusual=True)
        if last.update_skipped is not None:
            add("update skipped", printable(last.update_skipped), is_unusual=True)
        if last.num_unscorable:
            add("unscorable", f"{last.num_unscorable:,} of {last.num_answers:,}", is_unusual=True)
    add(
        "pool",
        f"{pool.fresh:,} fresh, {pool.used:,} used, {pool.own:,} own, {size(pool.num_bytes)}; "
        f"{pool.offers:,} offers",
    )
    add("kept", f"{pool.announcements:,} announcements, for peers that were away")
    if any(pool.evicted.values()):
        add("gave way", _reasons(pool.evicted))
    add("refused", _reasons(snapshot.refused) or "nothing")
    add("traffic", f"{size(snapshot.bytes_sent)} out, {size(snapshot.bytes_received)} in")
    if snapshot.announcements_dropped:
        add("dropped", f"{snapshot.announcements_dropped:,} announcements", is_unusual=True)
    if snapshot.connections_refused:
        add("closed", f"{snapshot.connections_refused:,} connections beyond a limit")
    if snapshot.messages_unsent:
        add("unsent", f"{snapshot.messages_unsent:,} messages", is_unusual=True)
    if limited := _reasons(snapshot.limited):
        add("limited", limited)
    if (caught := snapshot.catch_up).times:
        add(
            "caught up",
            f"{caught.announcements:,} announcements from {caught.peers:,} peers in "
            f"{caught.times:,} times, {size(caught.num_bytes)}",
        )
    if relay := snapshot.relay:
        add(
            "relay",
            f"{relay.reserved:,} peers reached through it, {relay.circuits:,} circuits, "
            f"{size(relay.num_bytes)} carried; {relay.refused:,} refused, {relay.slowed:,} slowed",
        )
    parts = (f"{printable(part)} {mib:,.0f} MiB" for part, mib in snapshot.memory_mib.items())
    add("memory", ", ".join(parts) or "unknown")
    if isolation := snapshot.isolation:
        add("verifier", closed_in(isolation), is_unusual=not isolation.is_complete)
        for sentence in isolation.missing:
            add("", printable(sentence, 500), is_unusual=True)
    for name, reason in snapshot.tasks_left_out.items():
        add("left out", f"{printable(name)}: {printable(reason, 500)}", is_unusual=True)
    return table


def _batch(last: RoundReport) -> str:
    parts = [
        f"{last.num_groups:,} groups, {last.foreign_groups_used:,} of them foreign, "
        f"{last.num_replayed:,} replayed",
        f"effective sample size {last.effective_sample_size:.0%}",
    ]
    if last.kl_to_start is not None:
        parts.append(f"{last.kl_to_start:.3f} nats from the start")
    return "; ".join(parts)


def _first_and_last(snapshot: Snapshot) -> list[str]:
    ends = [snapshot.heldout[0], snapshot.heldout[-1]] if len(snapshot.heldout) > 1 else []
    return [
        f"{one.mean:.3f} ± {one.standard_error:.3f} at round {one.round:,}, "
        f"{one.num_questions:,} questions"
        + (f"; pass@{one.k} {one.pass_k:.3f}" if one.pass_k is not None else "")
        for one in ends or snapshot.heldout
    ]


def _short_table(snapshot: Snapshot) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("peer")
    for name in ("connected", "offered", "admitted", "used", "refused", "lies"):
        table.add_column(name, justify="right")
    for peer in _in_order(snapshot):
        table.add_row(
            Text(short_id(peer.node_id)),
            Text(span(peer.connected_s) if peer.connected else "no"),
            f"{peer.rollouts_offered:,}",
            f"{peer.rollouts_admitted:,}",
            f"{peer.rollouts_used:,}",
            f"{sum(peer.refused.values()):,}",
            Text(f"{peer.lies:,}", style="bold red" if peer.lies else ""),
        )
    return table


def _in_order(snapshot: Snapshot) -> list[PeerStatus]:
    """Those that are there first, then by what was learned from them."""
    return sorted(snapshot.peers, key=lambda peer: (not peer.connected, -peer.rollouts_used))


def _reasons(refused: dict[str, int]) -> str:
    most_first = sorted(refused.items(), key=lambda item: -item[1])
    return ", ".join(f"{printable(reason)} {count:,}" for reason, count in most_first if count)
