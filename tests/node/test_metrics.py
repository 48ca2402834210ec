import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from node.metrics import METRICS, OF_A_POLICY, OF_UPDATES, Row, metrics_text
from node.status import Snapshot
from node.status_json import from_json

SNAPSHOT = from_json(Path(__file__).with_name("snapshot.json").read_bytes(), Snapshot)
FRESH = msgspec.structs.replace(
    SNAPSHOT, last_round=None, heldout=(), peers=(), refused={}, memory_mib={}
)
Values = dict[tuple[str, ...], float]


def read(snapshot: Snapshot) -> dict[str, Values]:
    """Name -> values of labels -> value, as Prometheus reads them."""
    found: dict[str, Values] = {}
    for family in text_string_to_metric_families(metrics_text(snapshot).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_what_the_table_lists_is_emitted_and_nothing_else() -> None:
    assert set(read(SNAPSHOT)) == {row.name for row in METRICS}
    assert len(METRICS) == len({row.name for row in METRICS})


def test_each_metric_carries_the_help_and_the_kind_of_the_table() -> None:
    text = metrics_text(SNAPSHOT).decode()
    for row in METRICS:
        assert f"# HELP {row.name} {row.help}\n# TYPE {row.name} {row.kind}\n" in text


@pytest.mark.parametrize("row", METRICS, ids=lambda row: str(row.name))
def test_a_metric_is_named_and_explained_as_prometheus_wants_it(row: Row) -> None:
    assert re.fullmatch(r"sapo(_[a-z]+)+", row.name)
    assert row.name.endswith("_total") == (row.kind == "counter")
    assert row.help.endswith(".")
    labels = {len(names) for names, _ in row.read(SNAPSHOT)}
    assert labels == {len(row.labels)}, "as many values as labels, and at least one sample"


@pytest.mark.parametrize("mode", ["generate", "observe", "relay"])
def test_what_a_mode_does_not_do_has_no_value(mode: str) -> None:
    found = read(msgspec.structs.replace(SNAPSHOT, mode=mode))
    assert {"sapo_peers_connected", "sapo_announcements_kept", "sapo_sent_bytes_total"} <= set(
        found
    )
    assert mode in next(iter(found["sapo_node_info"]))
    gone = {row.name for row in METRICS} - set(found)
    assert gone >= OF_UPDATES
    if mode == "generate":
        assert gone == OF_UPDATES
    else:
        of_policy = {row.name for row in METRICS if row.name.startswith(OF_A_POLICY)}
        assert gone == OF_UPDATES | of_policy | {"sapo_tasks"}


def test_only_a_relay_has_figures_of_one() -> None:
    assert read(SNAPSHOT)["sapo_relay_bytes_total"] == {(): 51200.0}
    found = read(msgspec.structs.replace(SNAPSHOT, relay=None))
    assert not [name for name in found if name.startswith("sapo_relay")]


def test_before_the_first_round_there_are_metrics_too() -> None:
    found = read(FRESH)
    assert "sapo_round_own_reward" not in found
    assert found["sapo_peers_connected"] == {(): 0.0}
    assert {row.name for row in METRICS if f"# HELP {row.name} " in metrics_text(FRESH).decode()}


def test_the_values_are_those_of_the_snapshot() -> None:
    found = read(SNAPSHOT)
    assert found["sapo_control_lag_seconds"] == {(): 0.75}
    assert found["sapo_disk_free_bytes"] == {(): 50 * 2**30}
    assert found["sapo_policy_round"] == {(): 124.0}
    assert found["sapo_peer_rollouts_used_total"] == {(): 214.0}
    assert found["sapo_peers_connected"] == {(): 2.0}
    assert found["sapo_peers_known"] == {(): 3.0}
    assert found["sapo_memory_bytes"][("control",)] == 182.5 * 2**20
    assert found["sapo_heldout_accuracy"] == {("first",): 0.125, ("last",): 0.5}
    assert found["sapo_heldout_pass_k"] == {("last",): 0.875}, "the first was not measured"
    assert found["sapo_heldout_k"] == {("last",): 8.0}
    assert found["sapo_heldout_greedy_accuracy"] == {("last",): 0.5625}
    assert found["sapo_heldout_diversity"] == {("last",): 3.25}
    assert found["sapo_round_foreign_groups"][("used",)] == 1.0
    assert found["sapo_round_foreign_groups"][("too_long_for_model",)] == 1.0
    assert sum(found["sapo_learner_stage"].values()) == 1.0
    assert found["sapo_refused_total"][("claims_differ",)] == 7.0
    assert found["sapo_round_shaped_reward"] == {(): 0.375}
    assert found["sapo_round_groups"] == {(): 9.0}
    assert found["sapo_round_groups_replayed"] == {(): 2.0}
    assert found["sapo_round_effective_sample_ratio"] == {(): 0.875}
    assert found["sapo_round_kl_to_start_nats"] == {(): 0.0625}
    assert found["sapo_round_braked"] == {(): 1.0}
    assert found["sapo_verifier_closed"] == {("files",): 0.0, ("network",): 1.0}
    assert found["sapo_tasks"][("left_out",)] == 1.0
    assert found["sapo_limited_total"][("announcements",)] == 5.0
    assert sum(found["sapo_limited_total"].values()) == 5.0, "no label is made up"
    assert found["sapo_announcements_kept"] == {(): 118.0}
    assert found["sapo_shards_heard"] == {(): 3.0}
    assert found["sapo_announcements_told_total"] == {(): 17.0}
    assert found["sapo_messages_unsent_total"] == {(): 2.0}
    assert found["sapo_catch_up_announcements_total"] == {("taken",): 37.0, ("refused",): 1.0}
    assert found["sapo_catch_up_peers_total"] == {("answered",): 9.0, ("left",): 2.0}


def test_the_number_of_series_does_not_grow_with_the_peers() -> None:
    many = msgspec.structs.replace(SNAPSHOT, peers=SNAPSHOT.peers * 100)
    count = sum(len(values) for values in read(SNAPSHOT).values())
    assert sum(len(values) for values in read(many).values()) == count


def test_odd_text_stays_within_its_label() -> None:
    odd = msgspec.structs.replace(SNAPSHOT, model='a"} 1\nsapo_fake 7\\', swarm_name="\x1b[2J")
    assert set(read(odd)) == set(read(SNAPSHOT))


def test_the_table_in_the_documents_is_that_of_the_program() -> None:
    """On a difference, the lines to be written there are shown."""
    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    written = [line for line in text.splitlines() if line.startswith("| `sapo_")]
    assert written == [
        f"| `{row.name}` | {row.kind} | {', '.join(row.labels)} | {row.help} |" for row in METRICS
    ]
    for name in OF_UPDATES:
        assert f"`{name}`" in text.partition("| metric |")[0]
