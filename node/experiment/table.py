"""table.md: what an experiment found, first in words and then in tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from node.experiment import measures
from node.experiment.figures import (
    Comparison,
    Declared,
    PerSeed,
    Runs,
    TriedRate,
    Verdict,
    at_edge,
    best_control,
    best_rate,
    difference,
    figures_of,
    in_order,
    is_attacked,
    measured_runs,
    num_nodes,
    per_seed,
    ratio,
    role_names,
    tried_rates,
)
from node.experiment.measures import Measure
from node.experiment.notation import (
    NONE,
    aligned,
    arm_name,
    percent,
    plain,
    three_digits,
    two_digits,
    write_count,
    write_difference,
    write_rate,
    write_ratio,
    write_spread,
)
from node.experiment.outcome import CRITERIA, list_notes, list_warnings, say_outcome, say_progress
from node.experiment.results import RunResult


@dataclass(frozen=True, slots=True)
class Column:
    """A measure in a table."""

    header: str
    measure: Measure
    write: Callable[[float], str]
    with_deviation: bool = True


def as_table(results: Sequence[RunResult], declared: Declared) -> str:
    """The whole of table.md, from the runs that are there.

    Raises:
        ValueError: see `measured_runs`.
    """
    runs = in_order(measured_runs(results), declared)
    tried = tried_rates(results)
    roles = role_names(runs)
    outcomes = [
        (f"- **{plain(role)}**: " if len(roles) > 1 else "- ")
        + say_outcome(runs, role, declared, criterion)
        for role in roles
        for criterion in CRITERIA
    ]
    blocks = [f"# {plain(declared.title)}", say_progress(results, declared), "\n".join(outcomes)]
    blocks += list_warnings(runs, tried, results, declared)
    for role in roles:
        blocks += _section(runs, role, declared)
    if tried:
        blocks += ["## Learning rates", table_of_rates(tried, declared)]
    blocks += ["## What is measured, and how", list_notes(runs, declared, is_tuned=bool(tried))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _section(runs: Mapping[str, Runs], role: str, declared: Declared) -> list[str]:
    """All tables of a role."""
    low, high = num_nodes(runs, role)
    count = f"{low} to {high}" if low < high else str(low)
    nodes = f"{count} node{'' if high == 1 else 's'}"
    blocks = [
        f"## {plain(role)} ({nodes})" if len(role_names(runs)) > 1 else f"## {nodes}",
        table_against_best(runs, role, declared),
        "Held-out at the end:",
        table_of_answers(runs, role, declared),
        "What it took, and what batches were made of:",
        table_of_cost(runs, role, declared),
    ]
    if is_attacked(runs):
        blocks += ["Under attack:", table_of_attack(runs, role, declared)]
    if declared.against:
        blocks += ["What a defence changes:", table_of_defences(runs, role, declared)]
    return blocks


def table_against_best(runs: Mapping[str, Runs], role: str, declared: Declared) -> str:
    """Cumulative own reward and final held-out pass@1, each against its best control."""
    rewards = figures_of(runs, role, measures.cumulative_reward)
    accuracies = figures_of(runs, role, measures.final_pass_1)
    best_reward = best_control(rewards, declared.controls)
    best_accuracy = best_control(accuracies, declared.controls)
    header = [
        "arm",
        "rate",
        "seeds",
        "cumulative own reward",
        f"of {plain(best_reward or 'the best control')}",
        "",
        "final held-out pass@1",
        f"above {plain(best_accuracy or 'the best control')}",
        "",
    ]
    rows = [
        [
            arm_name(arm, declared),
            write_rate(runs[arm][0].key.learning_rate),
            str(len(rewards[arm])),
            write_spread(rewards[arm], two_digits),
            *_compared(arm, best_reward, rewards, ratio, write_ratio),
            write_spread(accuracies[arm], three_digits),
            *_compared(arm, best_accuracy, accuracies, difference, write_difference),
        ]
        for arm in rewards
    ]
    return aligned(header, rows, left=(0, 5, 8))


def table_of_answers(runs: Mapping[str, Runs], role: str, declared: Declared) -> str:
    """What else the held-out exams say."""
    columns = [
        Column("pass@1 before", measures.first_pass_1, three_digits),
        Column("pass@1", measures.final_pass_1, three_digits),
        Column(f"pass@{declared.k}", measures.final_pass_k, three_digits),
        Column("greedy", measures.final_greedy, three_digits),
        Column("unable at the start", measures.final_unable, three_digits),
        Column("diversity", measures.final_diversity, two_digits),
    ]
    return aligned(*_cells(columns, runs, role, declared))


def table_of_cost(runs: Mapping[str, Runs], role: str, declared: Declared) -> str:
    """What it took, and what batches were made of."""
    columns = [
        Column("own tokens per node", measures.own_tokens, write_count, with_deviation=False),
        Column("batch reward", measures.cumulative_batch_reward, two_digits),
        Column("foreign groups a round", measures.foreign_used, two_digits, with_deviation=False),
        Column("replayed a round", measures.replayed, two_digits, with_deviation=False),
        Column("zero advantage", measures.zero_advantage_share, percent, with_deviation=False),
    ]
    header, rows = _cells(columns, runs, role, declared)
    if (target := declared.target) is not None:
        tokens = figures_of(runs, role, measures.tokens_to(target))
        num_seeds = {arm: len(per_seed(runs[arm], role, measures.own_tokens)) for arm in tokens}
        header = [*header, f"own tokens to {target:g}"]
        rows = [
            [*row, _reached(tokens[arm], num_seeds[arm])]
            for arm, row in zip(tokens, rows, strict=True)
        ]
    return aligned(header, rows)


def table_of_attack(runs: Mapping[str, Runs], role: str, declared: Declared) -> str:
    """What attackers achieved."""
    columns = [
        Column("attack success", measures.attack_success, percent),
        Column("growth of length", measures.length_growth, two_digits),
        Column("honest accepted", measures.honest_acceptance, percent),
        Column("hostile groups used", measures.hostile_used, two_digits),
        Column("final held-out pass@1", measures.final_pass_1, three_digits),
    ]
    return aligned(*_cells(columns, runs, role, declared))


def table_of_defences(runs: Mapping[str, Runs], role: str, declared: Declared) -> str:
    """Each arm with a defence against the same without it."""
    columns = {
        "attack success": measures.attack_success,
        "growth of length": measures.length_growth,
        "final held-out pass@1": measures.final_pass_1,
    }
    found = {header: figures_of(runs, role, measure) for header, measure in columns.items()}
    rows = []
    for arm, other in declared.against.items():
        compared = [
            difference(figures.get(arm, {}), figures.get(other, {})) for figures in found.values()
        ]
        cells = [write_difference(one) if one else NONE for one in compared]
        rows.append([plain(arm), plain(other), *cells])
    return aligned(["arm", "above", *columns], rows, left=(0, 1))


def table_of_rates(tried: Mapping[str, Sequence[TriedRate]], declared: Declared) -> str:
    """All learning rates that were tried, the chosen one bold."""
    rates = sorted({one.learning_rate for found in tried.values() for one in found})
    rows = []
    for arm, found in in_order(tried, declared).items():
        best = best_rate(found)
        written = {one.learning_rate: f"{one.area:.3f} ({one.num_seeds})" for one in found}
        written[best.learning_rate] = f"**{written[best.learning_rate]}**"
        edge = "at the edge of the rates tried" if at_edge(found) else ""
        edge = "the only rate tried" if len(found) == 1 else edge
        cells = (written.get(rate, NONE) for rate in rates)
        rows.append([arm_name(arm, declared), *cells, write_rate(best.learning_rate), edge])
    header = ["arm", *(write_rate(rate) for rate in rates), "chosen", ""]
    return aligned(header, rows, left=(0, len(header) - 1))


def _cells(
    columns: Sequence[Column], runs: Mapping[str, Runs], role: str, declared: Declared
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: an arm each."""
    figures = [figures_of(runs, role, column.measure) for column in columns]
    arms = figures_of(runs, role, measures.cumulative_reward)  # which every run has
    rows = [
        [
            arm_name(arm, declared),
            *(
                write_spread(found[arm], column.write, column.with_deviation)
                for column, found in zip(columns, figures, strict=True)
            ),
        ]
        for arm in arms
    ]
    return ["arm", *(column.header for column in columns)], rows


def _compared(
    arm: str,
    control: str | None,
    figures: Mapping[str, PerSeed],
    compare: Callable[[PerSeed, PerSeed], Comparison | None],
    write: Callable[[Comparison], str],
) -> tuple[str, str]:
    """Two cells: the figure, and what follows from it."""
    if arm == control:
        return NONE, "best control"
    found = compare(figures[arm], figures[control]) if control is not None else None
    if found is None:
        return NONE, NONE
    verdict = str(found.verdict)
    return write(found), f"**{verdict}**" if found.verdict is Verdict.BEATS else verdict


def _reached(tokens: PerSeed, num_seeds: int) -> str:
    if not tokens:
        return "never"
    written = write_spread(tokens, write_count)
    if len(tokens) == num_seeds:
        return written
    return f"{written} ({len(tokens)} of {num_seeds} seeds)"
