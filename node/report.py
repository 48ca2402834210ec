"""What a node says of itself, in a terminal: `sapo status`, `sapo peers ls` and `show`.

Everything that a stranger may have written is escaped (node/escape.py) and handed to rich as Text,
in which it finds no markup.
"""

from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.escape import printable
from node.status import WHAT_IT_DOES, PeerStatus, RoundReport, Snapshot
from node.summary import smooth
from node.view import sparkline
from node.why import explain, unusual
from node.words import closed_in, short_id, size, span


def print_status(snapshot: Snapshot, console: Console, page: str | None = None) -> None:
    """One paragraph, some figures, the peers, and where peers can dial this node.

    Args:
        page: the address of the node's page, see `node.access.page_address`.
    """
    said = unusual(snapshot)
    console.print(Text.assemble(explain(snapshot), " " * bool(said), (said, "bold yellow")))
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
        print_peer(peer, snapshot, console)


def print_peer(peer: PeerStatus, snapshot: Snapshot, console: Console) -> None:
    """One of the snapshot's peers, whole."""
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
    if peer.banned:
        console.print(Text(f"  banned {_until(peer)}", style="bold yellow"), soft_wrap=True)
    for fact in facts:
        console.print(Text(f"  {fact}"), soft_wrap=True)
    if peer.lies:
        console.print(Text(f"  {peer.lies:,} proven lies", style="bold red"))


def _until(peer: PeerStatus) -> str:
    until = "for good"
    if peer.banned_until is not None:
        until = datetime.fromtimestamp(peer.banned_until).strftime("until %Y-%m-%d %H:%M")
    return f"{until}: {printable(peer.ban_reason)}" if peer.ban_reason else until


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
