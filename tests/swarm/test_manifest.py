import re
from pathlib import Path

import msgspec
import pytest

from rewards.question import Example
from swarm.identity import Identity
from swarm.manifest import (
    DEFAULT_EPOCH_S,
    MAX_DOTS,
    Manifest,
    ManifestError,
    load_manifest,
    parse_manifest,
)

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
        ("min_terms = 2", "min_terms = nan", "params.min_terms is not finite"),
        ("min_terms = 2", "min_terms = [1.0, -inf]", "params.min_terms is not finite"),
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


SHIPPED_IDS = {
    "easy": "a067b041850730b022863dd15e9bd725c553f6cdadf6f3b22b689a1f4ae19078",
    "paper": "e6d6333cc9b639e118082ad32e945d5b09d378093e5a7c3f09759ace34a82657",
    "school": "77794811c676fc9be0f1f2aabcf02ca80b516635b5f2c851fd95aa1baab618af",
}


def test_shipped_swarms_keep_their_ids() -> None:
    """An id changes only with the file's tasks or limits: then write the new one here. If all
    change at once, a rule was added without a default, and every swarm there is was renamed."""
    assert {file.stem: load_manifest(file).swarm_id for file in SHIPPED} == SHIPPED_IDS


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
        ("shards = 0", "shards = 0; 1 to 64"),
        ("shards = 65", "shards = 65; 1 to 64"),
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


def test_shards_are_a_rule(tmp_path: Path) -> None:
    one = load(tmp_path, TEXT.replace("[rules]", "[rules]\nshards = 1"))
    two = load(tmp_path, TEXT.replace("[rules]", "[rules]\nshards = 2"))
    assert (one.rules.shards, two.rules.shards) == (1, 2)
    assert load(tmp_path, TEXT).swarm_id == one.swarm_id != two.swarm_id


OWNER, OTHER = Identity(bytes(range(32))), Identity(bytes(32))
OWNED = TEXT.replace("[rules]", f'[rules]\nowner = "{OWNER.node_id}"')


def signed(text: str, version: int = 1, by: Identity = OWNER) -> str:
    value = by.sign(parse_manifest(text.encode(), "test").signed_bytes(version)).hex()
    return f'{text}\n[signature]\nversion = {version}\nvalue = "{value}"\n'


def test_what_the_owner_signs_is_exactly_this(tmp_path: Path) -> None:
    plain = load(tmp_path, OWNED + f'\n[bootstrap]\npeers = ["{PEER}"]\n')
    described = load(tmp_path, OWNED.replace('"test"', '"té\\nst"\ndescription = "d"'))
    assert plain.signed_bytes(7).decode() == (
        'sapo-manifest-1\n{"about":{"name":"test"},"bootstrap":{"peers":["' + PEER + '"]},'
        '"swarm_id":"' + plain.swarm_id + '","version":7}'
    )
    assert described.signed_bytes(1).decode() == (
        'sapo-manifest-1\n{"about":{"description":"d","name":"té\\nst"},"bootstrap":{},'
        '"swarm_id":"' + described.swarm_id + '","version":1}'
    )


def test_an_owner_is_a_rule_and_the_signature_is_none(tmp_path: Path) -> None:
    owned, with_signature = load(tmp_path, OWNED), load(tmp_path, signed(OWNED))
    assert load(tmp_path, TEXT).swarm_id != owned.swarm_id == with_signature.swarm_id
    assert not owned.is_signed and with_signature.is_signed
    assert not load(tmp_path, TEXT).is_signed
    nobody = load(tmp_path, TEXT.replace("[rules]", "[rules]\nowner = ''"))
    assert nobody.swarm_id == load(tmp_path, TEXT).swarm_id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "test"', 'name = "tess"'),
        ('name = "test"', 'name = "test"\ndescription = "of another"'),
        ("[signature]", f'[bootstrap]\npeers = ["{PEER}"]\n[signature]'),
        ("version = 3", "version = 4"),
        ("max_answer_bytes = 100", "max_answer_bytes = 101"),
        (OWNER.node_id, OTHER.node_id),
    ],
)
def test_nothing_that_is_signed_can_be_changed(tmp_path: Path, old: str, new: str) -> None:
    text = signed(OWNED, version=3)
    assert load(tmp_path, text).is_signed and old in text
    with pytest.raises(ManifestError, match="its signature is not that of the owner"):
        load(tmp_path, text.replace(old, new))
    changed = load_manifest(tmp_path / "swarm.toml", verify=False)
    assert changed.signature is not None and not changed.is_signed


def test_another_key_cannot_sign_for_the_owner(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not that of the owner"):
        load(tmp_path, signed(OWNED, by=OTHER))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (f'owner = "{OWNER.node_id}"', "", "rules.owner names nobody"),
        (OWNER.node_id, OWNER.node_id[:-1], "rules.owner = '12D3KooW"),
        (OWNER.node_id, OWNER.node_id + "\\n", "rules.owner"),
        (OWNER.node_id, "1" * 5000, "rules.owner"),
        (OWNER.node_id, "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "rules.owner"),
        ("version = 1\nvalue", "version = 0\nvalue", "signature.version = 0; 1 to 2^53"),
        ("version = 1\nvalue", f"version = {2**53 + 1}\nvalue", "signature.version"),
        ("version = 1\nvalue", "version = true\nvalue", "version"),
        ('value = "', 'value = "0', "signature.value is not 64 bytes in hex"),
        ('value = "', 'by = 1\nvalue = "', "by"),
        ("version = 1\nvalue", "value", "version"),
    ],
)
def test_a_wrong_owner_or_signature_is_refused_and_says_where(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    text = signed(OWNED)
    assert old in text
    for verify in (True, False):
        with pytest.raises(ManifestError, match=re.escape(complaint)):
            parse_manifest(text.replace(old, new, 1).encode(), "test", verify=verify)


@pytest.mark.parametrize(("key", "limit"), [("name", 80), ("description", 1000)])
def test_texts_about_a_swarm_are_bounded(tmp_path: Path, key: str, limit: int) -> None:
    def about(length: int) -> str:
        fields = {"name": "test"} | {key: "é" * length}
        lines = "".join(f'{name} = "{value}"\n' for name, value in fields.items())
        return TEXT.replace('name = "test"\n', lines)

    load(tmp_path, about(limit))
    with pytest.raises(ManifestError, match=f"about.{key} has {limit + 1} characters, at most"):
        load(tmp_path, about(limit + 1))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("x = " + "[" * 100_000, "nested too deep"),
        ("x = " + "{a = " * 100_000, "nested too deep"),
        ("x = " + "1" * 100_000, "Exceeds the limit"),
        (".".join(["a"] * (MAX_DOTS + 2)) + " = 1", f"a line has more than {MAX_DOTS} dots"),
        ("x = '\x00'", "invalid character"),
    ],
)
def test_what_breaks_or_delays_a_parser_is_a_clear_error(line: str, complaint: str) -> None:
    with pytest.raises(ManifestError, match=complaint):
        parse_manifest(f"{line}\n{TEXT}".encode(), "test")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ManifestError, match="utf-8"):
        parse_manifest(b"\xff" + TEXT.encode(), "test")
