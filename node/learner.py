"""The learner process: rollouts and updates, without network, watched by the control process.

    python -P -m node.learner IN OUT      # file descriptors of the pipe: see node/supervisor.py

It ignores SIGTERM and Ctrl-C, which reach whole process groups: the control process tells it to
stop. When the control process is gone, it ends at once (status 70). Else its exit
status is one of node/exit_status.py.
"""

import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.build import open_learner
from node.config import ConfigError, NodeConfig
from node.exit_status import Exit
from node.generate import GenerationFailed
from node.home import HomeError
from node.log import log_to
from node.log_lines import TellLines
from node.pipe import Checkpointed, Done, Failed, LearnerPipe, Logged, Narrator, PipeExchange
from node.status import Stage, Status
from rewards.verifier import VerifierBroken
from swarm.manifest import ManifestError, load_manifest

logger = logging.getLogger(__name__)

MAX_LOCK_WAIT_S = 60


def main() -> None:
    """Runs one learner to its end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    log_to(None)
    incoming, outgoing = (int(word) for word in sys.argv[1:3])
    os.set_inheritable(outgoing, False)
    os.set_inheritable(incoming, False)
    pipe = LearnerPipe(os.fdopen(incoming, "rb"), outgoing)
    config = NodeConfig.model_validate_json(pipe.begin().config)
    log_to(None, format=config.log.format)
    logging.getLogger().addHandler(TellLines(lambda line: pipe.tell(Logged(line))))
    try:
        run(pipe, config)
    except (ConfigError, ManifestError, HomeError) as error:
        pipe.tell(Failed(str(error), Exit.USAGE))
        sys.exit(Exit.USAGE)
    except (GenerationFailed, VerifierBroken) as error:
        logger.exception("the learner cannot go on")
        pipe.tell(Failed(str(error), Exit.BROKEN))
        sys.exit(Exit.BROKEN)


def run(pipe: LearnerPipe, config: NodeConfig) -> None:
    """Rounds until all are made or a stop is asked, then a checkpoint."""
    manifest = load_manifest(config.manifest_file)
    status = Status()
    narrator = Narrator(pipe, status)
    narrator.tell()
    exchange = PipeExchange(pipe, config.swarm.share)
    with (
        hold_learner_lock(config.home),
        open_learner(config, manifest, exchange, status) as node,
    ):
        node.orders = pipe.orders
        node.hear_checkpoint = lambda number: pipe.tell(Checkpointed(number))
        narrator.round, narrator.total_tokens = node.state.round, node.state.total_tokens
        narrator.tell()
        checkpoint = node.run(config.rounds)
        narrator.tell()
        all_rounds = config.rounds is not None and node.state.round >= config.rounds
        status.stage = Stage.STOPPED
        pipe.tell(Done(str(checkpoint), all_rounds))


@contextmanager
def hold_learner_lock(home: Path) -> Iterator[None]:
    """Keeps a second learner out of the same home.

    A control process that was killed with -9 may leave its learner for a moment; that one ends by
    itself, and this one waits for it.

    Raises:
        HomeError: the other one does not end.
    """
    handle = os.open(home / "learner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up = time.monotonic() + MAX_LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > give_up:
                    raise HomeError(
                        f"{home}: another learner works here and does not end; stop it"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


if __name__ == "__main__":
    main()
