import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.identity import (
    KEY_FILE,
    RESERVED_MS,
    SEQUENCE_FILE,
    Identity,
    IdentityError,
    Sequences,
    is_node_id,
    is_signed_by,
    load_key,
    open_identity,
)

SEED = bytes(range(32))


def test_the_node_id_is_libp2ps() -> None:
    from libp2p.crypto.ed25519 import Ed25519PrivateKey
    from libp2p.peer.id import ID

    public = Ed25519PrivateKey.from_bytes(SEED).get_public_key()
    assert Identity(SEED).node_id == str(ID.from_pubkey(public))


def test_a_key_signs_and_others_can_tell() -> None:
    mine, other = Identity(SEED), Identity(bytes(32))
    signature = mine.sign(b"message")
    assert is_signed_by(mine.node_id, b"message", signature)
    assert not is_signed_by(mine.node_id, b"massage", signature)
    assert not is_signed_by(other.node_id, b"message", signature)
    assert not is_signed_by(mine.node_id, b"message", signature[:-1])
    assert not is_signed_by(mine.node_id, b"message", signature[:-1] + bytes([signature[-1] ^ 1]))


def test_a_signature_has_one_form() -> None:
    """Else whoever carries a record could make another one of it, with another hash."""
    order = 2**252 + 27742317777372353535851937790883648493
    mine = Identity(SEED)
    signature = mine.sign(b"message")
    other = int.from_bytes(signature[32:], "little") + order
    assert not is_signed_by(mine.node_id, b"message", signature[:32] + other.to_bytes(32, "little"))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=64), st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdef")))
def test_any_text_is_nobody_who_signed(node_id: str) -> None:
    assert not is_signed_by(node_id, b"message", bytes(64))


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_keys_of_small_order_sign_nothing(key: bytes) -> None:
    import base58

    node_id = base58.b58encode(bytes.fromhex("002408011220") + key).decode()
    assert not is_signed_by(node_id, b"message", b"\x01" + bytes(63))
    assert not is_signed_by(node_id, b"message", bytes(64))


def test_an_identity_does_not_print_its_seed() -> None:
    identity = Identity(SEED)
    assert repr(identity) == f"Identity({identity.node_id})"
    assert SEED.hex() not in repr(identity)


def test_the_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    with open_identity(tmp_path) as first:
        pass
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    with open_identity(tmp_path) as second:
        assert second == first
    assert (tmp_path / KEY_FILE).read_text() == first.seed.hex() + "\n"


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with open_identity(tmp_path):
        pass
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(IdentityError, match="chmod 600"), open_identity(tmp_path):
        pass


def test_two_processes_cannot_be_one_node(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\nfrom swarm.identity import *\n"
        "try:\n"
        "    with open_identity(pathlib.Path(sys.argv[1])): print('open')\n"
        "except IdentityError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with open_identity(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
        assert "another process is this node" in done.stdout
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.stdout == "open\n"


@pytest.mark.parametrize("text", ["", "\n", "zz" * 32, "ab" * 31, "ab" * 33, "é"])
def test_what_is_no_key_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    file = tmp_path / KEY_FILE
    file.write_text(text)
    file.chmod(0o600)
    if not text:  # a crash before the key was written
        with open_identity(tmp_path) as made:
            assert len(made.seed) == 32
        return
    with pytest.raises(IdentityError, match="no key"), open_identity(tmp_path):
        pass
    assert file.read_text() == text


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError, match="cannot be opened"), open_identity(tmp_path):
        pass


def test_sequences_are_unix_milliseconds_that_rise(tmp_path: Path, clock: Any) -> None:
    sequences = Sequences(tmp_path / SEQUENCE_FILE, clock)
    first = sequences.take()
    assert first == int(clock() * 1000)
    assert [sequences.take() for _ in range(3)] == [first + 1, first + 2, first + 3]
    clock.now += 10
    assert sequences.take() == first + 10_000
    clock.now -= 1000
    assert sequences.take() == first + 10_001


def test_no_restart_uses_a_sequence_twice(tmp_path: Path, clock: Any) -> None:
    last = 0
    for _ in range(5):
        sequences = Sequences(tmp_path / SEQUENCE_FILE, clock)
        for _ in range(3):
            assert sequences.take() > last
            last = sequences._last
        clock.now -= 100  # a clock that goes backwards


def test_a_sequence_is_reserved_before_it_is_used(tmp_path: Path, clock: Any) -> None:
    file = tmp_path / SEQUENCE_FILE
    sequences = Sequences(file, clock)
    for _ in range(3):
        taken = sequences.take()
        assert int(file.read_text()) >= taken
        clock.now += RESERVED_MS / 1000 + 1


@pytest.mark.parametrize("text", ["", "x", "-5", "1" * 17, "٣"])
def test_a_sequence_file_without_a_number_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / SEQUENCE_FILE).write_text(text)
    with pytest.raises(IdentityError, match="no number"):
        Sequences(tmp_path / SEQUENCE_FILE)


def test_a_key_file_of_another_name_is_the_same_key_and_is_not_held(tmp_path: Path) -> None:
    with open_identity(tmp_path) as identity:
        assert load_key(tmp_path / KEY_FILE) == identity
    file = tmp_path / "owner.key"
    with pytest.raises(IdentityError, match=r"owner\.key: cannot be opened: No such file"):
        load_key(file)
    assert not file.exists()
    made = load_key(file, make=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_key(file) == load_key(file, make=True) == made


def test_a_key_that_is_none_or_that_others_may_read_is_not_loaded(tmp_path: Path) -> None:
    file = tmp_path / "owner.key"
    file.touch(mode=0o600)
    with pytest.raises(IdentityError, match="no key"):
        load_key(file)
    assert file.read_bytes() == b""
    load_key(file, make=True)
    file.chmod(0o640)
    for make in (True, False):
        with pytest.raises(IdentityError, match="chmod 600"):
            load_key(file, make=make)


def test_a_node_id_has_one_form() -> None:
    mine = Identity(SEED).node_id
    assert is_node_id(mine)
    for text in ("", mine + "\n", " " + mine, mine[:-1], "1" + mine, mine + "é", "1" * 10_000):
        assert not is_node_id(text)
