"""A support bundle: every member is searched for every secret, in every form."""

import base64
import gzip
import json
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from node.access import open_token
from node.checkpoint import NodeState
from node.finding import Finding, Level
from node.history import History
from node.status import RoundReport, Snapshot
from node.status_json import from_json
from node.support_bundle import MAX_LOG_BYTES, find_secrets
from rewards.question import Answer, Expansion, Question
from swarm.database import open_database
from swarm.identity import Identity, load_key
from swarm.pool import Pool
from swarm.rollout import Rollout
from swarm.wire import seal

Sapo = Callable[..., tuple[object, str, str]]
SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)
STRANGE = "a stranger wrote this answer"
WEIGHTS = b"these are weights of a model" * 1000
SEED = 774411223344
ENVIRONMENT_SECRET = "pa55word-of-something"
HUB_TOKEN = "hf_" + "abcDEF1234567890" * 2


@pytest.fixture(autouse=True)
def quick_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding("disk", Level.OK, "there is some")]
    monkeypatch.setattr("node.doctor.examine", lambda config, offline: found)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose files hold secrets in places where they may well get."""
    home = tmp_path / "sapo-home"
    home.mkdir()
    identity, token = load_key(home / "identity.key", make=True), open_token(home)
    monkeypatch.setenv("WANDB_API_KEY", ENVIRONMENT_SECRET)
    (home / "seed").write_text(f"{SEED}\n")
    (home / "node.toml").write_text(f"seed = {SEED}\n# {token}\n[learn]\nlearning_rate = 1e-5\n")
    (home / "logs").mkdir()
    (home / "logs" / "node.log").write_bytes(
        b"\n".join(
            [
                b"page http://127.0.0.1:8420/?token=" + token.encode(),
                b"Authorization: Bearer " + b"of-another-node-" * 3,
                b"key "
                + identity.seed.hex().encode()
                + b" "
                + identity.seed.hex().upper().encode(),
                b"raw " + identity.seed + b" base64 " + base64.b64encode(identity.seed),
                b"fetched https://me:hunter2secret@example.org/x with " + HUB_TOKEN.encode(),
                b"environment " + ENVIRONMENT_SECRET.encode(),
                b"round 7: own reward 0.5",
            ]
        )
    )
    checkpoint = home / "checkpoints" / "round-00000007"
    (checkpoint / "policy").mkdir(parents=True)
    (checkpoint / "policy" / "model.safetensors").write_bytes(WEIGHTS)
    state = NodeState(7, SEED, "ab" * 32, "tiny", 1234)
    (checkpoint / "state.json").write_bytes(msgspec.json.encode(state))
    fill_database(home)
    return home


def fill_database(home: Path) -> None:
    database = open_database(home / "pool.sqlite")
    pool = Pool(database, 3600.0, 2**20, clock=lambda: 1000.0)
    author, question = Identity(bytes([9] * 32)), Question("sums", 1)
    answers = (Answer(STRANGE, True), Answer("no", True))
    rollout = Rollout("ab" * 32, author.node_id, 1, question, answers, "m", 1, 1000.0)
    expansion = Expansion(question, "the question", "the truth")
    pool.add_foreign(seal(rollout, author), rollout, expansion, (True, False), 999.0)
    assert isinstance(SNAPSHOT.last_round, RoundReport)
    History(database).put_round(SNAPSHOT.last_round)
    database.close()


def members(file: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(file) as archive:
        for info in archive.getmembers():
            opened = archive.extractfile(info)
            assert opened is not None and info.isfile() and info.mode == 0o600
            found[info.name.partition("/")[2]] = opened.read()
    return found


def test_no_secret_is_in_any_member(home: Path, sapo: Sapo, tmp_path: Path) -> None:
    status, out, _ = sapo("support-bundle", "--out", "b.tar.gz", "--with-texts")
    assert status == 0 and "look into it before you publish it" in out
    key = load_key(home / "identity.key").seed
    token = (home / "api-token").read_bytes().strip()
    forms = [
        *(key, key.hex().encode(), key.hex().upper().encode()),
        *(
            base64.b64encode(key),
            base64.urlsafe_b64encode(key),
            base64.b64encode(key.hex().encode()),
        ),
        *(token, token.hex().encode(), base64.b64encode(token)),
        *(ENVIRONMENT_SECRET.encode(), HUB_TOKEN.encode(), b"hunter2secret", b"of-another-node-"),
        *(str(SEED).encode(), WEIGHTS[:28]),
    ]
    found = members(tmp_path / "b.tar.gz")
    for name, data in found.items():
        for form in forms:
            assert form not in data, (name, form)
    whole = gzip.decompress((tmp_path / "b.tar.gz").read_bytes())
    assert not any(form in whole for form in forms)
    assert b"round 7: own reward 0.5" in found["logs/node.log"], "the rest of the log is there"


def test_strangers_texts_are_there_only_if_asked_for(
    home: Path, sapo: Sapo, tmp_path: Path
) -> None:
    sapo("support-bundle", "--out", "without.tar.gz")
    sapo("support-bundle", "--out", "with.tar.gz", "--with-texts")
    without, with_texts = members(tmp_path / "without.tar.gz"), members(tmp_path / "with.tar.gz")
    for data in without.values():
        assert STRANGE.encode() not in data and b"the question" not in data
    assert STRANGE in json.loads(with_texts["rollouts.jsonl"])["answers"][0]["text"]
    assert with_texts.keys() - without.keys() == {"rollouts.jsonl"}
    assert b"strangers' texts" in without["README.txt"]


def test_what_is_needed_to_help_is_there(
    home: Path, sapo: Sapo, tmp_path: Path, fake_node: Callable[..., object]
) -> None:
    answers = {"/api/v1/status": (200, Path(__file__).with_name("snapshot.json").read_bytes())}
    with fake_node(home, answers):  # type: ignore[attr-defined]
        status, out, _ = sapo("support-bundle", "--out", "b.tar.gz", "--json")
    listed = json.loads(out)
    found = members(tmp_path / "b.tar.gz")
    assert status == 0 and listed["file"] == "b.tar.gz"
    assert [one["name"] for one in listed["members"]] == list(found)
    decoded = {name: json.loads(data) for name, data in found.items() if name.endswith(".json")}
    settings = {one["key"]: one for one in decoded["settings.json"]}
    assert settings["learn.learning_rate"]["origin"] == "sapo-home/node.toml"
    assert settings["seed"]["value"] == "(left out)"
    assert decoded["status.json"]["node_id"] == SNAPSHOT.node_id
    assert decoded["rounds.json"][0]["round"] == 124 and decoded["pool.json"]["num"] == 1
    assert decoded["versions.json"]["packages"]["libp2p"] == "0.8.1"
    assert decoded["doctor.json"][0]["name"] == "disk"
    assert decoded["checkpoints.json"] == [
        {"name": "checkpoints/round-00000007", "round": 7, "model": "tiny", "tokens": 1234}
    ]
    names = {one["name"]: one for one in decoded["files.json"]}
    assert names["identity.key"]["mode"] == "0600"
    assert "checkpoints/round-00000007/policy/model.safetensors" in names
    assert os.uname().nodename not in decoded["versions.json"]["system"].split()


def test_a_stopped_or_empty_home_gives_a_bundle_that_says_so(sapo: Sapo, tmp_path: Path) -> None:
    status, out, _ = sapo("support-bundle", "--home", "nowhere", "--out", "b.tar.gz")
    assert status == 0 and "status.json" in out
    found = members(tmp_path / "b.tar.gz")
    assert "no node runs" in json.loads(found["status.json"])["problem"]
    assert "no node ever ran there" in json.loads(found["pool.json"])["problem"]
    assert not (tmp_path / "nowhere").exists()


def test_a_bundle_is_a_new_file_for_its_owner_only(home: Path, sapo: Sapo, tmp_path: Path) -> None:
    assert sapo("support-bundle", "--out", "b.tar.gz")[0] == 0
    assert stat.S_IMODE((tmp_path / "b.tar.gz").stat().st_mode) == 0o600
    before = (tmp_path / "b.tar.gz").read_bytes()
    status, _, err = sapo("support-bundle", "--out", "b.tar.gz")
    assert status == 2 and "exists" in err
    assert (tmp_path / "b.tar.gz").read_bytes() == before
    assert sapo("support-bundle", "--out", "no/such/b.tar.gz")[0] == 2
    assert sapo("support-bundle")[0] == 0 and list(tmp_path.glob("sapo-support-*.tar.gz"))


def test_of_a_long_log_the_end_is_there_and_no_link_is_followed(
    home: Path, sapo: Sapo, tmp_path: Path
) -> None:
    line = b"x" * 99 + b"\n"
    (home / "logs" / "node.log").write_bytes(line * (2 * MAX_LOG_BYTES // 100) + b"the end\n")
    (home / "logs" / "link.log").symlink_to(home / "identity.key")
    sapo("support-bundle", "--out", "b.tar.gz")
    found = members(tmp_path / "b.tar.gz")
    data = found["logs/node.log"]
    assert data.endswith(b"the end\n") and data.startswith(line) and len(data) <= MAX_LOG_BYTES
    assert "logs/link.log" not in found


def test_short_values_are_no_secrets(tmp_path: Path) -> None:
    assert find_secrets(tmp_path, {"MY_TOKEN": "on", "PATH": "/usr/bin:/something/long"}) == []
    assert b"long-enough" in find_secrets(tmp_path, {"my_secret": "long-enough"})
