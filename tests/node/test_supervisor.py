"""The supervisor against real processes that make rounds, crash, hang, refuse, or do not listen."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
import trio
from trio.testing import trio_test

from node.config import NodeConfig, load_config
from node.pipe import HeldOutDone, Questions, Reply, Request, RoundDone
from node.supervisor import LearnerAbsent, LearnerEnd, NoLearner, Supervisor

SCRIPT = str(Path(__file__).with_name("scripted_learner.py"))
DEADLINE_S = 60


def settings(home: Path, **flags: object) -> NodeConfig:
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    return load_config(flags={"home": home} | dotted, environment={})


class Life:
    """A supervisor of a scripted learner, and what was heard of it."""

    def __init__(self, config: NodeConfig, behaviour: str, is_paused: bool = False) -> None:
        self.rounds: list[int] = []
        self.heard = trio.Event()
        command = (sys.executable, "-P", SCRIPT, behaviour)
        self.supervisor = Supervisor(config, self.serve, self.hear, command, is_paused)

    async def serve(self, request: Request) -> Reply:
        return Questions(())

    async def hear(self, news: RoundDone | HeldOutDone) -> None:
        if isinstance(news, RoundDone):
            self.rounds.append(news.report.round)
            self.heard.set()

    async def reaches(self, stage: str) -> None:
        while self.supervisor.status().stage != stage:
            await trio.sleep(0.01)  # between looks at another process

    async def run(self) -> LearnerEnd:
        with trio.fail_after(DEADLINE_S):
            return await self.supervisor.run()


@trio_test
async def test_a_learner_makes_its_rounds_and_ends(tmp_path: Path) -> None:
    life = Life(settings(tmp_path, rounds=3), "rounds")
    end = await life.run()
    assert end == LearnerEnd(all_rounds=True)
    assert life.rounds == [1, 2, 3]
    status = life.supervisor.status()
    assert status.is_done
    assert status.pid is None
    assert status.round == 3
    assert status.restarts == 0


@trio_test
async def test_a_learner_that_crashes_is_started_again_and_the_error_is_shown(
    tmp_path: Path,
) -> None:
    life = Life(settings(tmp_path, rounds=1), "crash-once")
    end = await life.run()
    assert end.all_rounds
    status = life.supervisor.status()
    assert status.restarts == 1
    assert status.last_error == "ended by signal: Aborted"


@trio_test
async def test_a_learner_that_keeps_crashing_is_started_with_longer_waits_and_can_be_stopped(
    tmp_path: Path,
) -> None:
    life = Life(settings(tmp_path), "crash")
    waits = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run)
        with trio.fail_after(DEADLINE_S):
            while len(waits) < 2:
                await trio.sleep(0.01)
                status = life.supervisor.status()
                if status.restart_in_s is not None and status.restarts > len(waits):
                    waits.append(status.restart_in_s)
                    assert status.stage == "stopped"
        life.supervisor.stop()
    assert waits[1] > waits[0] > 0


@trio_test
async def test_a_learner_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    life = Life(settings(tmp_path, supervise__hang_s=0.5), "hang")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run)
        with trio.fail_after(DEADLINE_S):
            while not life.supervisor.status().restarts:
                await trio.sleep(0.01)
        assert life.supervisor.status().last_error == "hung: drawing for more than 0.5 s"
        life.supervisor.stop()


@trio_test
async def test_a_stop_lets_the_learner_end_in_order(tmp_path: Path) -> None:
    life = Life(settings(tmp_path), "wait")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_end, life, LearnerEnd(all_rounds=False))
        with trio.fail_after(DEADLINE_S):
            await life.heard.wait()
        life.supervisor.stop()


async def expect_end(life: Life, expected: LearnerEnd) -> None:
    assert await life.run() == expected


@trio_test
async def test_a_learner_that_does_not_heed_a_stop_is_killed(tmp_path: Path) -> None:
    life = Life(settings(tmp_path, supervise__stop_s=0.5), "deaf")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_end, life, LearnerEnd(was_killed=True))
        with trio.fail_after(DEADLINE_S):
            await life.heard.wait()
        pid = life.supervisor.status().pid
        life.supervisor.stop()
    assert pid is not None
    assert not psutil.pid_exists(pid)


@trio_test
async def test_what_a_person_must_change_ends_it_and_is_told_escaped(tmp_path: Path) -> None:
    life = Life(settings(tmp_path), "refuse")
    end = await life.run()
    assert end.exit_status == 2
    assert "there is no model" in end.failure
    assert "\x1b" not in life.supervisor.status().last_error


@trio_test
async def test_a_kill_is_noticed_and_the_learner_is_back(tmp_path: Path) -> None:
    life = Life(settings(tmp_path), "wait")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run)
        with trio.fail_after(DEADLINE_S):
            await life.heard.wait()
            first = life.supervisor.status().pid
            assert first is not None
            life.heard = trio.Event()
            os.kill(first, signal.SIGKILL)
            await life.heard.wait()
        status = life.supervisor.status()
        assert status.pid not in (None, first)
        assert status.restarts == 1
        assert status.last_error == "ended by signal: Killed"
        life.supervisor.stop()


@trio_test
async def test_a_learner_whose_supervisor_is_gone_ends_by_itself(tmp_path: Path) -> None:
    life = Life(settings(tmp_path), "hang")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.run)
            with trio.fail_after(DEADLINE_S):
                await life.heard.wait()
            pid = life.supervisor.status().pid
            scope.cancel()
    assert pid is not None
    assert not psutil.pid_exists(pid)


@trio_test
async def test_a_pause_lasts_over_lives_and_is_no_hang(tmp_path: Path) -> None:
    life = Life(settings(tmp_path, supervise__hang_s=0.5), "orders", is_paused=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run)
        with trio.fail_after(DEADLINE_S):
            await life.reaches("paused")
            await trio.sleep(1.2)  # more than a hang may last
            pid = life.supervisor.status().pid
            assert life.supervisor.status().restarts == 0 and pid is not None
            os.kill(pid, signal.SIGKILL)
            while life.supervisor.status().pid in (None, pid):
                await trio.sleep(0.01)
            await life.reaches("paused")
            assert life.rounds == []
            await life.supervisor.set_paused(False)
            await life.reaches("drawing")
            await life.supervisor.set_paused(True)
            await life.reaches("paused")
            made = len(life.rounds)
            await trio.sleep(0.3)
            assert len(life.rounds) == made
        life.supervisor.stop()


@trio_test
async def test_a_checkpoint_is_answered_when_it_is_written(tmp_path: Path) -> None:
    life = Life(settings(tmp_path), "orders")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run)
        with trio.fail_after(DEADLINE_S):
            await life.heard.wait()
            number = await life.supervisor.checkpoint()
            assert (tmp_path / "written").read_text() == str(number) and number >= 1
            await life.supervisor.set_paused(True)
            await life.reaches("paused")
            in_pause = await life.supervisor.checkpoint()
            assert in_pause == life.rounds[-1]
            assert (tmp_path / "written").read_text() == str(in_pause)
        life.supervisor.stop()


@trio_test
async def test_a_checkpoint_that_will_not_be_written_is_not_waited_for(tmp_path: Path) -> None:
    life = Life(settings(tmp_path), "orders")
    (tmp_path / "die").touch()
    with pytest.raises(LearnerAbsent, match="not running"):
        await life.supervisor.checkpoint()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run)
        with trio.fail_after(DEADLINE_S):
            await life.heard.wait()
            with pytest.raises(LearnerAbsent, match="before it was written: ended by signal: Abor"):
                await life.supervisor.checkpoint()
        life.supervisor.stop()


@trio_test
async def test_a_learner_that_ends_has_written_its_checkpoint(tmp_path: Path) -> None:
    stopped = Life(settings(tmp_path), "wait")
    found = []

    async def order() -> None:
        found.append(await stopped.supervisor.checkpoint())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stopped.run)
        with trio.fail_after(DEADLINE_S):
            await stopped.heard.wait()
            nursery.start_soon(order)
            await trio.testing.wait_all_tasks_blocked(0.01)
            stopped.supervisor.stop()
    assert found == [1]
    done = Life(settings(tmp_path, rounds=2), "rounds")
    await done.run()
    assert await done.supervisor.checkpoint() == 2


@trio_test
async def test_a_node_without_a_learner_says_so() -> None:
    for order in (NoLearner().checkpoint, lambda: NoLearner().set_paused(True)):
        with pytest.raises(LearnerAbsent, match="makes no rounds"):
            await order()
