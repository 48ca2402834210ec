"""How quickly answers are judged, by kind of task, and how long peers can occupy the verifier.

    .venv/bin/python bench/verify.py                    # both, some four minutes
    .venv/bin/python bench/verify.py --hostile-s 0      # the first table only

First: one worker judges groups of 8 answers, half of them right, as the node sends them after a
round (64 groups a call) and as it judges a peer's (one answer a call). Printed: answers per second
of wall-clock time, and per second of CPU of the worker and of this process together; medians over
`--repeats` passes, with the smallest and the largest.

Second: one author, then many, send nothing but answers that hang until their deadline, as quickly
as the node's own admission lets them (swarm/admission.py, with its default budget), while this
node has 64 answers of its own judged once a second. Printed: for how many seconds of the time
peers' text held a worker, against the bound, and how long the own answers took, against the same
without peers.
"""

import argparse
import hashlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil
import trio

from rewards.extract import mark_answer
from rewards.question import Answer, Expansion, Judged, Question, is_held_out
from rewards.tasks import TaskSpec
from rewards.tasks.code import CodeLimits
from rewards.verifier import Limits, Verifier
from swarm.admission import Admission
from swarm.budget import TOTAL_BURSTS, Budget, BudgetLimits
from swarm.identity import Identity
from swarm.judge import VerifierJudge
from swarm.manifest import Rules, load_manifest
from swarm.offers import Offer
from swarm.refusal import Refusal
from swarm.rollout import Entry, Rollout
from swarm.wire import rollout_hash, seal

GROUP = 8
WRONG = "print('wrong')"
SWARM_ID = "0" * 64
CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "swarms"

SQUARES = "n = int(input())\nprint(n * n)"
SLEEP = mark_answer("import time\ntime.sleep(3600)", "code_block")
NUM_ROWS = 200


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each pass, about")
    parser.add_argument("--hostile-s", type=float, default=60.0, help="of each hostile run")
    parser.add_argument("--authors", type=int, default=20, help="of the last hostile run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        specs, data = make_rows(Path(directory))
        sums = TaskSpec("arithmetic", "reasoning_gym", "chain_sum", "0.1.25")
        paper = load_manifest(CONFIGS / "paper.toml").rules.tasks
        kinds = {"arithmetic (chain_sum)": [sums], "the paper's nine": list(paper)}
        kinds |= {f"rows, {spec.name}": [spec] for spec in specs}
        show_rates(kinds, data, options)
        if options.hostile_s:
            code = next(spec for spec in specs if spec.name == "code")
            trio.run(show_hostile, [sums, code], data, options)


def make_rows(directory: Path) -> tuple[list[TaskSpec], dict[str, Path]]:
    """A task of rows for each check."""
    params: dict[str, tuple[str, dict[str, str | float]]] = {
        "exact": ("last_line", {}),
        "number": ("last_line", {"tolerance": 0.001}),
        "choice": ("boxed", {"choices": "choices"}),
        "math": ("boxed", {}),
        "regex": ("last_line", {"example": "example"}),
        "json": ("last_line", {"example": "example"}),
        "code": ("code_block", {"example": "example"}),
    }
    specs, data = [], {}
    for check, (answer_format, more) in params.items():
        file = directory / f"{check}.jsonl"
        file.write_text("".join(json.dumps(make_row(check, n)) + "\n" for n in range(NUM_ROWS)))
        version = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
        checked: dict[str, str | float] = {"check": check, **more}
        specs.append(
            TaskSpec(check, "rows", file.name, version, checked, answer_format)  # type: ignore[arg-type]
        )
        data[check] = file
    return specs, data


def make_row(check: str, number: int) -> dict[str, object]:
    """A row like those of usual data sets; the code is tested on three inputs."""
    row: dict[str, object] = {"question": f"{check} {number}", "answer": str(number)}
    match check:
        case "choice":
            row |= {"answer": "B", "choices": ["no", "yes", "perhaps", "never"]}
        case "math":
            row |= {"answer": rf"\frac{{{number}\sqrt{{3}}}}{{97}} + x^2"}
        case "regex":
            row |= {"answer": f"(a|b){{{number % 50 + 1}}}c*", "example": "a" * (number % 50 + 1)}
        case "json":
            schema = {"type": "object", "properties": {"n": {"const": number}}, "required": ["n"]}
            row |= {"answer": json.dumps(schema), "example": json.dumps({"n": number})}
        case "code":
            inputs = ["3", "12", str(number)]
            tests = {"inputs": inputs, "outputs": [f"{int(n) ** 2}\n" for n in inputs]}
            row |= {"answer": json.dumps(tests), "example": SQUARES}
    return row


# --- how quickly ---


@dataclass(frozen=True, slots=True)
class Rate:
    """Answers per second."""

    wall: float
    cpu: float


def show_rates(
    kinds: dict[str, list[TaskSpec]], data: dict[str, Path], options: argparse.Namespace
) -> None:
    """A row per kind: groups of a round at once, and one answer a call."""
    show("\nAnswers judged per second by one worker: median (smallest, largest)\n")
    show(f"{'':26}{'a round at once':>34}{'one answer a call':>34}")
    show(f"{'':26}{'wall':>22}{'per core':>12}{'wall':>22}{'per core':>12}")
    for name, specs in kinds.items():
        files = {spec.name: data[spec.name] for spec in specs if spec.name in data}
        with Verifier(specs, Limits(), data=files) as verifier:
            requests = make_requests(verifier, specs)
            for question, verdicts in zip(requests, verifier.judge(requests), strict=True):
                assert verdicts == [Judged(n % 2 == 0) for n in range(GROUP)], (question, verdicts)
            singles = [(question, [one]) for question, answers in requests for one in answers]
            columns = "".join(
                show_rate(
                    [measure(verifier, calls, options.seconds) for _ in range(options.repeats)]
                )
                for calls in ([requests], [[single] for single in singles])
            )
        show(f"{name:26}{columns}")


def make_requests(
    verifier: Verifier, specs: Sequence[TaskSpec]
) -> list[tuple[Question, list[Answer]]]:
    """64 groups of the tasks in turn, every second answer right."""
    formats = {spec.name: spec.answer_format for spec in specs}
    turns = itertools.islice(itertools.cycle(specs), 64)
    questions = [Question(spec.name, place) for place, spec in enumerate(turns)]
    requests = []
    for found in verifier.expand(questions):
        assert isinstance(found, Expansion), found
        marks = formats[found.question.task]
        right, wrong = mark_answer(found.truth, marks), mark_answer(WRONG, marks)
        answers = [Answer(wrong if n % 2 else right, True) for n in range(GROUP)]
        requests.append((found.question, answers))
    return requests


def measure(
    verifier: Verifier, calls: list[list[tuple[Question, list[Answer]]]], seconds: float
) -> Rate:
    """Judges for about so long."""
    num, began, cpu_began = 0, time.perf_counter(), cpu_s()
    for call in itertools.cycle(calls):
        num += sum(len(answers) for _, answers in call)
        verifier.judge(call)
        if time.perf_counter() - began > seconds:
            break
    return Rate(num / (time.perf_counter() - began), num / (cpu_s() - cpu_began))


def cpu_s() -> float:
    """CPU seconds of this process and of all that it started, those that have ended included."""
    own = psutil.Process().cpu_times()
    alive = psutil.Process().children(recursive=True)
    running = sum(sum(child.cpu_times()[:4]) for child in alive)
    return float(sum(own[:4]) + running)


def show_rate(rates: list[Rate]) -> str:
    """Two columns."""
    walls = [rate.wall for rate in rates]
    wall = f"{statistics.median(walls):,.0f} ({min(walls):,.0f}, {max(walls):,.0f})"
    return f"{wall:>22}{statistics.median(rate.cpu for rate in rates):>12,.0f}"


# --- how long peers can occupy it ---


async def show_hostile(
    specs: list[TaskSpec], data: dict[str, Path], options: argparse.Namespace
) -> None:
    """A row per run: nobody, one hostile author, many."""
    limits = BudgetLimits()
    show(f"\nA verifier of one worker for {options.hostile_s:.0f} s, 64 own answers a second\n")
    show(
        f"{'hostile authors':18}{'held by peers':>15}{'bound':>9}{'rollouts':>10}{'refused':>34}",
        "",
    )
    show(f"{'own answers: median, longest':>34}")
    for num_authors in (0, 1, options.authors):
        held_s, refused, own = await run_hostile(specs, data, num_authors, options.hostile_s)
        one_more_s = Limits().deadline_s + CodeLimits().cpu_s
        author_s = limits.author_burst_s + limits.author_share * options.hostile_s + one_more_s
        total_s = TOTAL_BURSTS * limits.author_burst_s + limits.total_share * options.hostile_s
        total_s += num_authors * one_more_s
        bound_s = min(num_authors * author_s, total_s, options.hostile_s)
        reasons = ", ".join(f"{reason} {num}" for reason, num in sorted(refused.items()))
        show(f"{num_authors:<18}{held_s:>13.1f} s{bound_s:>7.0f} s", "")
        show(f"{sum(refused.values()):>10}{reasons:>34}", "")
        show(f"{1000 * statistics.median(own):>22.0f} ms{1000 * max(own):>6.0f} ms")


async def run_hostile(
    specs: list[TaskSpec], data: dict[str, Path], num_authors: int, seconds: float
) -> tuple[float, dict[str, int], list[float]]:
    """Seconds held by peers, refusals by reason, and seconds of each own call."""
    refused: dict[str, int] = {}
    own: list[float] = []
    files = {spec.name: data[spec.name] for spec in specs if spec.name in data}
    with Verifier(specs, Limits(), data=files) as verifier:
        requests = make_requests(verifier, specs[:1])[:GROUP]
        budget = MeteredBudget()
        rules = Rules(tuple(specs), max_new_tokens=512, max_answer_bytes=16384)
        admission = Admission(
            SWARM_ID, "me", rules, VerifierJudge(verifier), nobody_knows, wants_all, budget=budget
        )
        admission.judged_tasks = {spec.name for spec in specs}
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in range(num_authors):
                    nursery.start_soon(attack, admission, number, refused)
                while True:
                    began = time.perf_counter()
                    await trio.to_thread.run_sync(verifier.judge, requests)
                    own.append(time.perf_counter() - began)
                    await trio.sleep(1)
    return budget.held_s, refused, own


class MeteredBudget(Budget):
    """The budget of a node, with a meter."""

    held_s = 0.0

    def spend(self, author: str, seconds: float) -> None:
        """As the node does."""
        self.held_s += seconds
        super().spend(author, seconds)


async def attack(admission: Admission, number: int, refused: dict[str, int]) -> None:
    """Rollouts whose answers hang, one after the other, without end."""
    identity = Identity((number + 1).to_bytes(32))
    for sequence in itertools.count(1):
        question = next(
            Question("code", index)
            for index in itertools.count(sequence)
            if not is_held_out(f"code {index % NUM_ROWS}")
        )
        question = msgspec.structs.replace(question, index=question.index % NUM_ROWS)
        answers = tuple(Answer(SLEEP, True) for _ in range(GROUP))
        now = time.time()
        rollout = Rollout(SWARM_ID, identity.node_id, sequence, question, answers, "", 1, now)
        record = seal(rollout, identity)
        entry = Entry(rollout_hash(record), question, len(record), (True,) * GROUP, 1)
        offer = Offer(entry, identity.node_id, sequence, identity.node_id, b"", now, now + 3600)
        found = await admission.admit(offer, record)
        name = str(found) if isinstance(found, Refusal) else "admitted"
        refused[name] = refused.get(name, 0) + 1
        await trio.sleep(0.05)


async def nobody_knows(_hash: bytes, _rollout: Rollout) -> None:
    """No rollout was seen before."""


def wants_all(_entry: Entry) -> bool:
    """Every rollout could be used."""
    return True


def show(text: str, end: str = "\n") -> None:
    """Prints at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
