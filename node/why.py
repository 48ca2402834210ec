"""What a node does, since when, what it waits for, and why it does not contribute, in words.

Made of one Snapshot only: what a snapshot does not say (a firewall in front of a peer, settings
that nobody asked about) is not known here. `sapo doctor` looks at the machine.
"""

from datetime import datetime

from node.escape import printable
from node.status import ForeignFate, Snapshot, Stage
from node.words import short_id, span

LATELY = 16
"""Rounds that "lately" means."""

MAX_UNUSUAL_CHARS = 300

DOING = {
    Stage.STARTING: "is starting, and waits for the model to be loaded",
    Stage.DRAWING: "draws questions",
    Stage.GENERATING: "generates answers, and waits for the engine",
    Stage.VERIFYING: "verifies its answers, and waits for the verifier's workers",
    Stage.SHARING: "shares rollouts with its peers",
    Stage.MIXING: "mixes its rollouts with those of peers, and waits for these where it is to",
    Stage.UPDATING: "updates its policy",
    Stage.SYNCING: "brings the new weights into the engine",
    Stage.CHECKPOINTING: "writes a checkpoint, and waits for the disk",
    Stage.EVALUATING: "measures itself on held-out questions",
    Stage.PAUSED: "is paused by its operator, and makes no rounds until it is resumed",
    Stage.STOPPED: "has stopped",
}


def explain(snapshot: Snapshot, with_stage: bool = True) -> str:
    """One paragraph: who it is, what it does and waits for, and whether it contributes.

    Args:
        with_stage: what it does at this moment, too.
    """
    learner = snapshot.learner
    since = datetime.fromtimestamp(snapshot.started).strftime("%Y-%m-%d %H:%M")
    of = "" if learner.target_rounds is None else f" of {learner.target_rounds:,}"
    made = f" and has made {learner.round:,}{of} rounds" if snapshot.has_policy else ""
    sentences = [
        f"{short_id(snapshot.node_id)} in the swarm {printable(snapshot.swarm_name)} runs since "
        f"{since} ({span(snapshot.now - snapshot.started)}){made}.",
    ]
    if snapshot.has_policy:
        sentences += [_doing(snapshot) if with_stage else "", _giving(snapshot)]
    if snapshot.learns:
        sentences.append(_taking(snapshot))
    if not _is_connected(snapshot) and not any(map(_is_of_nobody, snapshot.warnings)):
        sentences.append(f"No peer is connected{': it learns alone' * snapshot.learns}.")
    return " ".join(filter(None, sentences))


def unusual(snapshot: Snapshot) -> str:
    """What of it a person should look at, as the end of that paragraph; empty if nothing."""
    if not snapshot.warnings:
        return ""
    named = "; ".join(printable(one, MAX_UNUSUAL_CHARS) for one in snapshot.warnings)
    return f"Unusual: {named}."


def _is_connected(snapshot: Snapshot) -> bool:
    return any(peer.connected for peer in snapshot.peers)


def _is_of_nobody(warning: str) -> bool:
    return warning.startswith("no peer is connected")


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


def _giving(snapshot: Snapshot) -> str:
    """Whether peers get something of it, and if not, why."""
    last = snapshot.last_round
    if last is None:
        return "It has shared nothing yet: its first round is not finished."
    if last.num_shared:
        all_own = f"the {last.num_questions:,} rollouts of its last round"
        return f"It shared {last.num_shared:,} of {all_own}."
    if last.zero_advantage_share == 1:
        why = "all answers to each question were judged alike, which teaches nobody"
    elif last.num_questions == 0:
        why = "no question was answered"
    else:
        why = "its settings share none (swarm.share), or none was judged"
    return f"It shared none of the {last.num_questions:,} rollouts of its last round: {why}."


def _taking(snapshot: Snapshot) -> str:
    """How much of peers it used lately, and if nothing, why."""
    used, last = snapshot.foreign_groups_used[-LATELY:], snapshot.last_round
    if last is None or not used:
        return ""
    said = (
        f"Of its last {len(used)} rounds, {sum(count > 0 for count in used)} learned from peers: "
        f"{sum(used):,} foreign groups, with {last.foreign_wanted:,} wanted in the last one"
    )
    return f"{said}." if any(used) else f"{said}: {_why_nothing(snapshot)}."


def _why_nothing(snapshot: Snapshot) -> str:
    last, pool = snapshot.last_round, snapshot.pool
    assert last is not None
    if last.brake:
        return "the brake is on"
    if not last.foreign_wanted:
        return "its settings want none (swarm.foreign, batch.strategy), or its own were enough"
    if unusable := [group.fate for group in last.foreign if group.fate is not ForeignFate.USED]:
        return f"{len(unusable):,} were drawn in the last one and not usable ({unusable[0]})"
    if pool.fresh:
        return f"{pool.fresh:,} lie in the pool and were not drawn yet"
    if pool.offers:
        return f"{pool.offers:,} are announced and not fetched yet"
    if not _is_connected(snapshot):
        return "no peer is connected"
    offered = sum(peer.rollouts_offered for peer in snapshot.peers)
    if not offered:
        return "no peer has offered anything yet"
    refused = {name: num for name, num in snapshot.refused.items() if num}
    if refused:
        worst = max(refused, key=lambda name: refused[name])
        return (
            f"of {offered:,} offers {sum(peer.rollouts_admitted for peer in snapshot.peers):,} "
            f"were admitted, most others refused as {printable(worst)}"
        )
    return f"of {offered:,} offers none is at hand now"
