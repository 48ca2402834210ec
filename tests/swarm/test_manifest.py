from pathlib import Path

import msgspec
import pytest

from rewards.question import Example
from swarm.manifest import DEFAULT_EPOCH_S, Manifest, ManifestError, load_manifest

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "swarms").glob("*.toml"))

TEXT = """
[about]
name = "test"
[rules]
max_new_tokens = 8
max_answer_bytes = 100
[[rules.tasks]]
name = "sums"
kind = "reasoning_gym"
dataset = "chain_sum"
version = "0.1.25"
[rules.tasks.params]
min_terms = 2
"""


def load(tmp_path: Path, text: str) -> Manifest:
    file = tmp_path / "swarm.toml"
    file.write_text(text)
    return load_manifest(file)


def test_a_manifest_is_read(tmp_path: Path) -> None:
    manifest = load(tmp_path, TEXT)
    assert manifest.rules.tasks[0].name == "sums"
    assert manifest.rules.tasks[0].params == {"min_terms": 2}


def test_rules_name_the_swarm_and_the_text_about_it_does_not(tmp_path: Path) -> None:
    first = load(tmp_path, TEXT).swarm_id
    assert load(tmp_path, TEXT.replace('"test"', '"other"')).swarm_id == first
    assert load(tmp_path, TEXT.replace("min_terms = 2", "min_terms = 3")).swarm_id != first
    assert load(tmp_path, TEXT.replace("= 100", "= 101")).swarm_id != first


def test_the_id_does_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    swapped = TEXT.replace(
        "max_new_tokens = 8\nmax_answer_bytes = 100", "max_answer_bytes = 100\nmax_new_tokens = 8"
    )
    assert swapped != TEXT
    assert load(tmp_path, swapped).swarm_id == load(tmp_path, TEXT).swarm_id


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("max_new_tokens = 8", "max_new_token = 8", "max_new_token"),
        ("max_new_tokens = 8", "max_new_tokens = 0", "1 to 32768"),
        ("max_new_tokens = 8", "max_new_tokens = 'many'", "max_new_tokens"),
        ("max_answer_bytes = 100", "max_answer_bytes = 0", "1 to 1000000"),
        ('name = "sums"', 'name = "Sums!"', "task name"),
        ("[rules]", "[rules", "swarm.toml"),
        ("min_terms = 2", "min_terms = {a = 1}", "params"),
    ],
)
def test_a_wrong_manifest_is_refused_and_says_where(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    assert old in TEXT
    with pytest.raises(ManifestError) as error:
        load(tmp_path, TEXT.replace(old, new))
    assert complaint in str(error.value)


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    task = TEXT[TEXT.index("[[rules.tasks]]") :]
    with pytest.raises(ManifestError, match="two tasks are named 'sums'"):
        load(tmp_path, TEXT + task)


def test_no_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="tasks"):
        load(
            tmp_path, TEXT[: TEXT.index("[[rules.tasks]]")].replace("[rules]", "[rules]\ntasks=[]")
        )


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="larger than"):
        load(tmp_path, TEXT + "#" * 1_000_000)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        load_manifest(tmp_path / "none.toml")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_manifests_load_and_state_their_digests(file: Path) -> None:
    manifest = load_manifest(file)
    assert all(len(task.digest) == 64 for task in manifest.rules.tasks)
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest


def test_there_are_shipped_manifests() -> None:
    assert {file.stem for file in SHIPPED} >= {"easy", "paper"}


PEER = "/ip4/127.0.0.1/tcp/8421/p2p/12D3KooWEfY2TmhEWp1scTkNTgGcB6sBdaeicFJXJjeBmUpFMyg8"


def test_bootstrap_peers_are_read_and_do_not_name_the_swarm(tmp_path: Path) -> None:
    manifest = load(tmp_path, TEXT + f'\n[bootstrap]\npeers = ["{PEER}"]\n')
    assert manifest.bootstrap.peers == (PEER,)
    assert manifest.swarm_id == load(tmp_path, TEXT).swarm_id


def test_a_rule_at_its_default_does_not_rename_the_swarm_and_another_value_does(
    tmp_path: Path,
) -> None:
    plain = load(tmp_path, TEXT)
    said = load(tmp_path, TEXT.replace("[rules]", "[rules]\nlifetime_s = 3600"))
    other = load(tmp_path, TEXT.replace("[rules]", "[rules]\nlifetime_s = 60"))
    assert plain.rules.lifetime_s == 3600
    assert plain.swarm_id == said.swarm_id != other.swarm_id
    hour, minute = (
        load(tmp_path, TEXT.replace("[rules]", f"[rules]\nepoch_s = {epoch_s}"))
        for epoch_s in (DEFAULT_EPOCH_S, 60)
    )
    assert (plain.rules.epoch_s, minute.rules.epoch_s) == (DEFAULT_EPOCH_S, 60)
    assert plain.swarm_id == hour.swarm_id != minute.swarm_id


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("max_answers = 1", "2 to 64"),
        ("max_answers = 65", "2 to 64"),
        ("lifetime_s = 9", "lifetime_s = 9"),
        ("epoch_s = 9", "epoch_s = 9; 10 to"),
        ("epoch_s = 2_592_001", "epoch_s = 2592001"),
    ],
)
def test_rules_out_of_range_are_refused(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(ManifestError, match=complaint):
        load(tmp_path, TEXT.replace("[rules]", f"[rules]\n{line}"))


@pytest.mark.parametrize("peer", ["127.0.0.1:8421", "/ip4/127.0.0.1/tcp/1", PEER + "\\u001b[31m"])
def test_a_bootstrap_peer_that_is_no_address_is_refused(tmp_path: Path, peer: str) -> None:
    with pytest.raises(ManifestError, match="is no address of a peer"):
        load(tmp_path, TEXT + f'\n[bootstrap]\npeers = ["{peer}"]\n')


ROWS = """
kind = "rows"
dataset = "sums.jsonl"
version = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
"""


def with_rows(extra: str = "") -> str:
    old = 'kind = "reasoning_gym"\ndataset = "chain_sum"\nversion = "0.1.25"\n'
    assert old in TEXT
    return TEXT.replace(old, ROWS + extra)


def test_data_prompts_and_examples_are_read_and_name_the_swarm(tmp_path: Path) -> None:
    plain = load(tmp_path, with_rows())
    shown = 'system = "Be brief."\nexamples = [{question = "1 + 1", answer = "2"}]\n'
    told = load(tmp_path, with_rows(shown))
    assert told.rules.tasks[0].system == "Be brief."
    assert told.rules.tasks[0].examples == (Example("1 + 1", "2"),)
    assert told.swarm_id != plain.swarm_id
    said = load(tmp_path, with_rows('system = ""\nexamples = []\n'))
    assert said.swarm_id == plain.swarm_id


EXAMPLE = '{question = "1 + 1", answer = "2"}'


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (f"system = '{'x' * 32769}'", "have 32769 bytes together, at most 32768"),
        (f"examples = [{{question = '{'x' * 32768}', answer = 'é'}}]", "have 32770 bytes"),
        (f"examples = [{', '.join([EXAMPLE] * 33)}]", "33 examples, at most 32"),
        ("examples = [{question = '1 + 1', answer = ' '}]", "needs a question and an answer"),
        ("examples = [{question = '1 + 1'}]", "examples"),
        ("examples = [{question = '1', answer = '2', role = 'tool'}]", "role"),
    ],
)
def test_what_is_shown_before_questions_is_bounded(
    tmp_path: Path, extra: str, complaint: str
) -> None:
    with pytest.raises(ManifestError, match=complaint):
        load(tmp_path, with_rows(extra + "\n"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("sums.jsonl", "../sums.jsonl", "write the name of a file"),
        ("sums.jsonl", "identity.key", "write the name of a file"),
        ("sums.jsonl", "x" * 513, "dataset is longer than 512"),
        ("sha256:", "md5:", "write 'sha256:'"),
        ('kind = "rows"', 'kind = "other"\n', ""),
    ],
)
def test_files_are_named_and_pinned_in_one_way(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    text = with_rows().replace(old, new)
    assert text != with_rows()
    if not complaint:  # a kind of another package may have files, too
        assert load(tmp_path, text).rules.tasks[0].kind == "other"
        return
    with pytest.raises(ManifestError, match=complaint):
        load(tmp_path, text)


def test_a_swarm_has_few_files(tmp_path: Path) -> None:
    task = with_rows()[with_rows().index("[[rules.tasks]]") :]
    tasks = [
        task.replace('"sums"', f'"sums{number}"').replace("sha256:01", f"sha256:{number:02d}")
        for number in range(17)
    ]
    text = with_rows()
    load(tmp_path, text[: text.index("[[rules.tasks]]")] + "\n".join(tasks[:16]))
    with pytest.raises(ManifestError, match="17 files of rows, at most 16"):
        load(tmp_path, text[: text.index("[[rules.tasks]]")] + "\n".join(tasks))
