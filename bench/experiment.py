"""Where the time of an experiment goes: one node-round of the embedded policy, 8 nodes a process.

    .venv/bin/python bench/experiment.py                        # four strategies, some six minutes
    .venv/bin/python bench/experiment.py --strategies paper --rounds 30

Every strategy runs in a process of its own, and the strategies take turns `--repeats` times, so
that a busy machine hurts all of them alike. A process makes two runs of other seeds: the first
shows what it takes to begin, the second is measured. Printed: seconds of one core and on the wall
per node-round, without exams, the share of each stage, and what an exam and the two starts take.
Beside the product's stages stands "between": what nodes hear and fetch of each other outside of
their own turns. The verifier's workers are processes of their own, and counted separately.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

STRATEGIES = ("own", "own-replay", "paper", "fill")
STAGES = (
    "drawing",
    "generating",
    "verifying",
    "sharing",
    "mixing",
    "updating",
    "syncing",
    "between",
)
EXAM_QUESTIONS = 64


def main() -> None:
    """Runs every strategy and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        found = measure(options.child, options.nodes, options.rounds, options.seed)
        sys.stdout.write(json.dumps(found))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.strategies}
    for repeat in range(options.repeats):
        for name in options.strategies:
            show(f"run {repeat + 1} of {options.repeats}: {name} ...")
            runs[name].append(run_child(name, options))
    show_table(runs)


def run_child(strategy: str, options: argparse.Namespace) -> dict[str, float]:
    """One strategy in a fresh process, on one core."""
    command = [sys.executable, __file__, "--child", strategy, "--nodes", str(options.nodes)]
    command += ["--rounds", str(options.rounds), "--seed", str(options.seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout[done.stdout.index("{") :])  # type: ignore[no-any-return]


def measure(strategy: str, num_nodes: int, num_rounds: int, seed: int) -> dict[str, float]:
    """Seconds per node-round, by stage and in all; of an exam of one node; of two starts."""
    began = time.perf_counter()
    import node
    from node.config import NodeConfig
    from node.experiment.plan import NodePlan, RunPlan
    from node.experiment.results import RunKey
    from node.experiment.swarm import run_swarm
    from node.experiment.verdicts import open_judging

    config = NodeConfig.model_validate({"manifest": "easy", "batch": {"strategy": strategy}})
    start = Path(node.__file__).parent / "tiny"

    def plan(run: int, num_rounds: int) -> RunPlan:
        seeds = [1000 * seed + 100 * run + number for number in range(num_nodes)]
        return RunPlan(
            key=RunKey(strategy, seed, config.learn.learning_rate),
            manifest=config.manifest_file,
            nodes=tuple(
                NodePlan("node", config.model_copy(update={"seed": one}), start) for one in seeds
            ),
            rounds=num_rounds,
            exam_every=num_rounds,
            exam_questions=EXAM_QUESTIONS,
        )

    marks: list[tuple[float, float, float]] = []

    def mark(round_number: int) -> None:
        workers_s = sum(map(cpu_seconds, child_ids()))
        marks.append((time.perf_counter(), time.process_time(), workers_s))

    with open_judging(config) as judging:
        run_swarm(plan(0, 1), mark, judging=judging)
        first_start_s = marks[0][0] - began
        marks.clear()
        began = time.perf_counter()
        found = run_swarm(plan(1, num_rounds), mark, judging=judging)
    next_start_s = marks[0][0] - began
    marks.pop()  # after the last round there was an exam
    rounds = (len(marks) - 1) * num_nodes
    wall_s, cpu_s, workers_s = (
        (last - first) / rounds for first, last in zip(marks[0], marks[-1], strict=True)
    )
    stages = {str(name): seconds / found.node_rounds for name, seconds in found.stage_s.items()}
    exam_s = stages.pop("evaluating") * found.node_rounds / (2 * num_nodes)
    return stages | {
        "between": wall_s - sum(stages.values()),
        "wall": wall_s,
        "cpu": cpu_s,
        "workers": workers_s,
        "exam": exam_s,
        "first_start": first_start_s,
        "next_start": next_start_s,
        "memory_mib": peak_memory_mib(),
    }


def child_ids() -> list[int]:
    """Processes that this one started."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    threads = Path("/proc/self/task").glob("*/children")
    return [int(word) for word in (text + " ".join(one.read_text() for one in threads)).split()]


def cpu_seconds(pid: int) -> float:
    """Of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory_mib() -> float:
    """Of this process."""
    text = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if "VmHWM" in line)) / 1024


def show_table(runs: dict[str, list[dict[str, float]]]) -> None:
    """One line per strategy: medians over its runs."""
    show("\nseconds per node-round, and the share of the wall's")
    show(
        f"{'strategy':13} {'one core':>9} {'workers':>8} {'wall':>7}  "
        + "  ".join(f"{stage:>11}" for stage in STAGES)
    )
    medians = {
        name: {key: statistics.median(run.get(key, 0.0) for run in each) for key in each[0]}
        for name, each in runs.items()
    }
    for name, found in medians.items():
        parts = "  ".join(
            f"{found[stage]:6.3f} {found[stage] / found['wall']:4.0%}" for stage in STAGES
        )
        show(f"{name:13} {found['cpu']:9.3f} {found['workers']:8.4f} {found['wall']:7.3f}  {parts}")
    show("")
    for name, found in medians.items():
        show(
            f"{name:13} exam of {EXAM_QUESTIONS} questions {found['exam']:.2f} s a node; from the "
            f"process's start to round 1 {found['first_start']:.1f} s, of a further run "
            f"{found['next_start']:.1f} s, first exams included; peak memory "
            f"{found['memory_mib']:.0f} MiB"
        )


def show(line: str) -> None:
    """A line of the report."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
