"""The main job on one machine: a node learns, and its held-out accuracy says whether it did."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from node.build import open_node
from node.config import NodeConfig, find_manifest
from node.evaluate import HeldOut, evaluate
from node.loop import Node
from node.status import Stage, Status
from node.summary import NodeSummary, Summary, write_summary
from rewards.question import Expansion
from swarm.manifest import load_manifest

logger = logging.getLogger(__name__)


def run_demo(
    config: NodeConfig,
    status: Status,
    *,
    max_train_s: float,
    num_heldout: int,
    stop_asked: threading.Event,
) -> Summary:
    """Trains one node in `config.home`/node-0 and writes summary.json and summary.png beside it.

    Training ends after `config.rounds`, after `max_train_s` seconds, or when a stop is asked.
    """
    began = time.monotonic()
    home = config.home
    manifest = load_manifest(find_manifest(config.manifest))
    with open_node(config.model_copy(update={"home": home / "node-0"}), status) as node:
        node.stop_asked = stop_asked
        questions = node.exchange.draw_held_out(num_heldout)
        before = _evaluate(node, questions, status, "before")
        deadline = threading.Timer(max_train_s, stop_asked.set)
        deadline.daemon = True
        deadline.start()
        checkpoint = node.run(config.rounds)
        deadline.cancel()
        after = _evaluate(node, questions, status, "after")
        summary = Summary(
            wall_s=time.monotonic() - began,
            seed=node.state.seed,
            manifest=manifest.about.name,
            swarm_id=manifest.swarm_id,
            model=config.policy.model,
            nodes=(_summarise(node, status, before, after, checkpoint),),
        )
    write_summary(summary, home)
    return summary


def _evaluate(node: Node, questions: Sequence[Expansion], status: Status, when: str) -> HeldOut:
    with status.during(Stage.EVALUATING):
        heldout = evaluate(node.policy, node.exchange, questions)
    status.take_seconds()
    found = heldout.overall
    logger.info(
        "held-out accuracy %s: %.3f +- %.3f on %d questions",
        when,
        found.mean,
        found.standard_error,
        found.num_questions,
    )
    return heldout


def _summarise(
    node: Node, status: Status, before: HeldOut, after: HeldOut, checkpoint: Path
) -> NodeSummary:
    return NodeSummary(
        id="node-0",
        engine=status.engine,
        engine_warning=status.engine_warning,
        rounds=len(status.reports),
        own_reward=tuple(report.own_reward for report in status.reports),
        round_s=tuple(report.round_s for report in status.reports),
        own_tokens=sum(report.own_tokens for report in status.reports),
        heldout_before=before,
        heldout_after=after,
        checkpoint=str(checkpoint),
    )
