"""What an experiment found, in words computed from its numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from node.experiment import measures
from node.experiment.figures import (
    MIN_SEEDS,
    NUM_RESAMPLES,
    Comparison,
    Declared,
    PerSeed,
    Runs,
    TriedRate,
    Verdict,
    at_edge,
    best_control,
    best_rate,
    choose_rate,
    difference,
    figures_of,
    in_order,
    is_attacked,
    ratio,
)
from node.experiment.measures import Measure
from node.experiment.notation import enumerated, plain, write_difference, write_rate, write_ratio
from node.experiment.results import RunResult


@dataclass(frozen=True, slots=True)
class Criterion:
    """What arms are compared in."""

    name: str
    measure: Measure
    compare: Callable[[PerSeed, PerSeed], Comparison | None]
    write: Callable[[Comparison], str]


CRITERIA = (
    Criterion("cumulative own reward", measures.cumulative_reward, ratio, write_ratio),
    Criterion("final held-out pass@1", measures.final_pass_1, difference, write_difference),
)


def say_outcome(
    runs: Mapping[str, Runs], role: str, declared: Declared, criterion: Criterion
) -> str:
    """A sentence: which arms beat the best control, which do not, and which are undecided."""
    figures = figures_of(runs, role, criterion.measure)
    control = best_control(figures, declared.controls)
    if control is None:
        return f"No control is measured: nothing is said about {criterion.name}."
    found = {
        arm: comparison
        for arm, values in figures.items()
        if arm not in declared.controls
        and (comparison := criterion.compare(values, figures[control])) is not None
    }
    if not found:
        return (
            f"Of the controls, {plain(control)} is best in {criterion.name}; nothing else is known."
        )

    def listed(verdict: Verdict) -> list[str]:
        """Best first."""
        arms = sorted(found, key=lambda arm: -found[arm].value)
        return [
            f"{plain(arm)} ({criterion.write(found[arm])})"
            for arm in arms
            if found[arm].verdict is verdict
        ]

    best = f"{plain(control)}, the best control, in {criterion.name}"
    few, beating = listed(Verdict.TOO_FEW), listed(Verdict.BEATS)
    if len(few) == len(found):
        return f"Too few seeds to compare with {best}: {enumerated(few)}."
    who = f"{enumerated(beating)} beat{'s' * (len(beating) == 1)}" if beating else "No arm beats"
    rest = {
        "undecided": listed(Verdict.UNDECIDED),
        "worse": listed(Verdict.LOSES),
        "too few seeds": few,
    }
    parts = [
        f"{who} {best}",
        *(f"{word}: {enumerated(arms)}" for word, arms in rest.items() if arms),
    ]
    return "; ".join(parts) + "."


def say_progress(results: Sequence[RunResult], declared: Declared) -> str:
    """Said only while runs are missing."""
    num_runs = len({(result.key, result.is_tuning) for result in results})
    if declared.num_runs is not None and num_runs < declared.num_runs:
        return f"**{num_runs} of {declared.num_runs} runs so far: nothing here is final.**"
    return "" if results else "No run has ended yet."


def list_warnings(
    runs: Mapping[str, Runs],
    tried: Mapping[str, Sequence[TriedRate]],
    results: Sequence[RunResult],
    declared: Declared,
) -> list[str]:
    """What makes the comparison weaker than it looks."""
    found = []
    if edge := [arm for arm, rates in in_order(tried, declared).items() if at_edge(rates)]:
        best = {arm: best_rate(tried[arm]).learning_rate for arm in edge}
        arms = enumerated([f"{plain(arm)} ({write_rate(rate)})" for arm, rate in best.items()])
        found.append(
            f"**At the edge of the rates tried: {arms}.** A better rate may lie beyond, so that "
            "such an arm may be shown below its best."
        )
    if missing := [plain(arm) for arm in declared.arms if arm not in runs]:
        found.append(f"Not measured at the chosen rate: {enumerated(missing)}.")
    chosen = choose_rate(results)
    elsewhere = {
        f"{plain(key.arm)} at {write_rate(key.learning_rate)}"
        for result in results
        if not result.is_tuning
        and (key := result.key).learning_rate != chosen.get(key.arm, key.learning_rate)
    }
    if elsewhere:
        found.append(
            f"Measured at a rate not chosen, and left out: {', '.join(sorted(elsewhere))}."
        )
    return found


def list_notes(runs: Mapping[str, Runs], declared: Declared, is_tuned: bool) -> str:
    """What is measured, and how."""
    num_compared = sum(arm not in declared.controls for arm in runs)
    notes = [OF_SEEDS, OF_REWARD, OF_EXAMS.format(k=declared.k)]
    if declared.target is not None:
        notes.append(OF_TARGET.format(target=declared.target))
    if is_tuned:
        notes.append(OF_RATES)
    notes += [OF_INTERVALS, OF_CONTROLS]
    if num_compared > 1:
        notes.append(OF_MANY.format(num=num_compared))
    if is_attacked(runs):
        notes.append(OF_ATTACK)
    return "\n".join(f"- {note}" for note in notes)


OF_SEEDS = (
    "± is the sample standard deviation over seeds. A seed's figure is the mean over the nodes: "
    "those of a swarm learn from each other, so that only seeds are repetitions."
)
OF_REWARD = (
    "Cumulative own reward: the share of a node's own answers that are correct, summed over its "
    "rounds. Batch reward: the same over what it learned from, foreign and replayed groups "
    "included. That is the paper's number; those groups were selected for their successes."
)
OF_EXAMS = (
    "Held-out: questions that no node trains on; pass@1 and pass@{k} from sampled answers, greedy "
    "from one. Diversity: mean Vendi score of the answers to a question. Unable at the start: "
    "pass@1 over the tasks in which a node was below 0.05 before its first round."
)
OF_TARGET = (
    "Own tokens to {target:g}: generated by a node until held-out pass@1 first reached it, linear "
    "between exams; mean over the seeds that reached it, which flatters an arm where not all did."
)
OF_RATES = (
    "Learning rates: each arm's best on the tuning seeds, whose runs serve for nothing else, by "
    "held-out pass@1 averaged over all exams after the first (in brackets: seeds); of equal ones "
    "the smaller. The criterion is the same for all arms and was declared before."
)
OF_INTERVALS = (
    f"In square brackets: 95 % bootstrap intervals over seeds ({NUM_RESAMPLES:,} resamples), "
    "paired by seed: the same seed means the same start and the same questions. They are widened "
    "for few seeds (expanded percentile, Hesterberg 2014) and still somewhat narrow: of normal "
    "values they hold the true mean in 92 % of cases with 5 seeds, in 75 % with 3. Below "
    f"{MIN_SEEDS} there is none."
)
OF_CONTROLS = (
    "The best control is the one with the highest mean, for each measure by itself. Picking the "
    "best of several favours the control by chance: the comparison is conservative for arms that "
    "share."
)
OF_MANY = (
    "{num} arms are compared with it, each interval by itself: the more arms, the likelier that "
    "one beats it by chance."
)
OF_ATTACK = (
    "Attack success: share of honest nodes' own answers that carry the attackers' mark, mean of "
    f"the last {100 * measures.END_SHARE:.0f} % of the rounds. Growth of length: bytes of their "
    "own answers then, as a multiple of the first rounds. Honest accepted: of honest peers' "
    "rollouts that were judged, those admitted. Hostile groups used: in the batches of a node, "
    "over all rounds."
)
