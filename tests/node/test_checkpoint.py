from pathlib import Path

import pytest

from node.checkpoint import Checkpoints, NodeState


def state(round_number: int) -> NodeState:
    return NodeState(round_number, seed=1, swarm_id="s", model="m")


def save(directory: Path) -> None:
    (directory / "weights").write_bytes(b"w" * 100)


def test_the_newest_checkpoint_is_found_with_its_policy(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    assert checkpoints.latest() is None
    for number in (9, 10, 11):
        checkpoints.write(state(number), save)
    found = Checkpoints(tmp_path, keep=3).latest()
    assert found is not None
    assert found[0] == state(11)
    assert (found[1] / "weights").read_bytes() == b"w" * 100


def test_only_the_last_n_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for number in range(5):
        checkpoints.write(state(number), save)
    assert [path.name for path in checkpoints.rounds()] == ["round-00000003", "round-00000004"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_the_earlier_one_and_no_rest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(state(1), save)

    def fail(directory: Path) -> None:
        save(directory)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.write(state(2), fail)
    found = checkpoints.latest()
    assert found is not None
    assert found[0].round == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_kill_left_half_written_is_never_resumed_from(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.write(state(1), save)
    (tmp_path / ".writing-round-00000002" / "policy").mkdir(parents=True)
    (tmp_path / ".removing-round-00000000").mkdir()
    again = Checkpoints(tmp_path, keep=2)
    found = again.latest()
    assert found is not None
    assert found[0].round == 1
    assert [path.name for path in tmp_path.iterdir()] == ["round-00000001"]


def test_a_checkpoint_with_a_broken_state_is_passed_over_and_can_be_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.write(state(1), save)
    (checkpoints.write(state(2), save) / "state.json").write_text("{")
    found = checkpoints.latest()
    assert found is not None
    assert found[0].round == 1
    assert "unusable" in caplog.text
    checkpoints.write(state(2), save)
    found = checkpoints.latest()
    assert found is not None
    assert found[0].round == 2
    assert len(list(tmp_path.iterdir())) == 2
