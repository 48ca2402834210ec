"""Where the time of one node-round goes: the embedded policy, 8 questions x 8 answers.

    .venv/bin/python bench/round.py                   # all engines, some six minutes
    .venv/bin/python bench/round.py --engines vllm    # one of them

Every engine runs in a process of its own, and the engines take turns `--repeats` times, so that a
busy machine hurts all of them alike. Printed: the median over rounds of the seconds and the share
of each stage, the ratio of generation to the quickest engine, the peak memory of the process and
of its workers; and TRL's step against the hand-written one on the same batches.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ENGINES = ("vllm", "vllm-process", "transformers", "one-by-one")
STAGES = ("drawing", "generating", "verifying", "updating", "syncing", "checkpointing")
"""Those that take time in a node alone: sharing and mixing need peers."""


def main() -> None:
    """Runs every engine and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; 1 is what 'one core' means"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        sys.stdout.write(json.dumps(measure(options.child, options.rounds, options.seed)))
        return
    runs: dict[str, list[dict[str, object]]] = {engine: [] for engine in options.engines}
    for repeat in range(options.repeats):
        for engine in options.engines:
            show(f"run {repeat + 1} of {options.repeats}: {engine} ...")
            runs[engine].append(run_child(engine, options))
    show_stages(runs)
    show_steps([run for engine_runs in runs.values() for run in engine_runs])


def run_child(engine: str, options: argparse.Namespace) -> dict[str, object]:
    """One engine in a fresh process."""
    command = [sys.executable, __file__, "--child", engine]
    num_rounds = min(options.rounds, 5) if engine == "one-by-one" else options.rounds
    command += ["--rounds", str(num_rounds), "--seed", str(options.seed)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout[done.stdout.index("{") :])  # type: ignore[no-any-return]


def measure(engine: str, num_rounds: int, seed: int) -> dict[str, object]:
    """Seconds per stage of `num_rounds` rounds after three to warm up, peak memory, both steps."""
    from node.build import open_node
    from node.config import load_config
    from node.policy import LanguagePolicy
    from node.status import Status

    with tempfile.TemporaryDirectory() as home:
        flags = {
            "home": Path(home) / "node",
            "seed": seed,
            "rollout.engine": "transformers" if engine == "one-by-one" else engine,
            "checkpoint.every": 1,
        }
        status = Status()
        with open_node(load_config(flags=flags, environment={}), status) as node:
            assert isinstance(node.policy, LanguagePolicy)
            if engine == "one-by-one":
                node.policy.generator = OneByOne(node.policy.learner.model, node.policy.tokenizer)
            batches = record_batches(node.policy)
            node.run(3)
            status.reports.clear()
            checkpoint_s = []
            for _ in range(num_rounds):
                node.run_round()
                node.checkpoint()
                checkpoint_s.append(status.take_seconds()["checkpointing"])
            rounds = [
                report.seconds | {"checkpointing": seconds}
                for report, seconds in zip(status.reports, checkpoint_s, strict=True)
            ]
            memory = peak_memory_mib()
            steps = compare_steps(node.policy, batches)
            tokens = statistics.fmean(report.own_tokens for report in status.reports)
            return {"rounds": rounds, "memory": memory, "steps": steps, "tokens": tokens}


class OneByOne:
    """What a loop around `model.generate` costs: one answer at a time."""

    name = "one-by-one"

    def __init__(self, model, tokenizer) -> None:  # type: ignore[no-untyped-def]
        self.model = model
        self.tokenizer = tokenizer

    def generate(self, prompts, seeds, sampling):  # type: ignore[no-untyped-def]
        """As the seam says, without log-probabilities."""
        return [
            [
                self._answer(prompt, seed + number, sampling)
                for number in range(sampling.num_answers)
            ]
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def _answer(self, prompt, seed, sampling):  # type: ignore[no-untyped-def]
        import torch

        from node.generate import Completion

        torch.manual_seed(seed)
        ids = torch.tensor([prompt])
        self.model.eval()
        found = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=sampling.temperature,
            top_k=0,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        answer = tuple(found[0, len(prompt) :].tolist())
        self.model.train()
        return Completion(answer, (0.0,) * len(answer), answer[-1] == self.tokenizer.eos_token_id)

    def sync(self, model: object) -> None:
        """Nothing: the trainer's own weights."""

    def close(self) -> None:
        """Nothing to free."""


def record_batches(policy):  # type: ignore[no-untyped-def]
    """The groups of every batch that the policy's learner gets from now on."""
    batches: list[object] = []
    learn = policy.learner.learn

    def recording(batch):  # type: ignore[no-untyped-def]
        batches.append(batch)
        return learn(batch)

    policy.learner.learn = recording
    return batches


def compare_steps(policy, batches) -> list[tuple[float, float]]:  # type: ignore[no-untyped-def]
    """Seconds of TRL's step and of the hand-written one, in turns, on the same batches."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    import grpo_by_hand

    learner = policy.learner
    by_hand = type(learner.model)(learner.model.config)
    by_hand.load_state_dict(learner.model.state_dict())
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-6, weight_decay=0.0)
    pairs = []
    for batch in batches[-20:]:
        if not any(any(group.advantages) for group in batch):
            continue
        began = time.perf_counter()
        learner.learn(batch)
        middle = time.perf_counter()
        grpo_by_hand.step(by_hand, optimizer, batch)
        pairs.append((middle - began, time.perf_counter() - middle))
    return pairs


def peak_memory_mib() -> dict[str, float]:
    """Highest resident memory of this process and of each of its descendants, in MiB."""
    import psutil

    me = psutil.Process()
    found = {}
    for process in [me, *me.children(recursive=True)]:
        text = Path(f"/proc/{process.pid}/status").read_text()
        kib = next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM"))
        name = "node" if process == me else f"{process.pid} {' '.join(process.cmdline())[-40:]}"
        found[name] = int(kib) / 1024
    return found


def show_stages(runs: dict[str, list[dict[str, object]]]) -> None:
    """One line per engine."""
    show("")
    show(f"{'engine':13} {'round s':>8}  " + "  ".join(f"{stage:>14}" for stage in STAGES))
    generating = {}
    for engine, engine_runs in runs.items():
        rounds = [one for run in engine_runs for one in run["rounds"]]  # type: ignore[attr-defined]
        medians = {
            stage: statistics.median(one.get(stage, 0.0) for one in rounds) for stage in STAGES
        }
        total = statistics.median(sum(one.values()) - one["checkpointing"] for one in rounds)
        spread = statistics.quantiles(
            [sum(one.values()) - one["checkpointing"] for one in rounds], n=10
        )
        generating[engine] = medians["generating"]
        parts = "  ".join(
            f"{medians[stage]:7.3f} {medians[stage] / total:5.0%} " for stage in STAGES
        )
        show(f"{engine:13} {total:8.3f}  {parts}  (10-90 %: {spread[0]:.3f}-{spread[-1]:.3f})")
    show("shares are of a round without its checkpoint\n")
    quickest = min(generating.values())
    for engine, engine_runs in runs.items():
        memory: dict[str, float] = engine_runs[-1]["memory"]  # type: ignore[assignment]
        others = " + ".join(f"{mib:.0f}" for name, mib in memory.items() if name != "node")
        tokens = statistics.fmean(float(run["tokens"]) for run in engine_runs)  # type: ignore[arg-type]
        show(
            f"{engine:13} generation {generating[engine] / quickest:5.1f} x the quickest, "
            f"{tokens / generating[engine]:7.0f} tokens/s; peak memory MiB: "
            f"node {memory['node']:.0f}, its processes {others}"
        )


def show_steps(runs: Sequence[dict[str, object]]) -> None:
    """TRL's step against the hand-written one."""
    pairs = [pair for run in runs for pair in run["steps"]]  # type: ignore[attr-defined]
    ratios = [trl / by_hand for trl, by_hand in pairs]
    deciles = statistics.quantiles(ratios, n=10)
    show(
        f"\nupdate: TRL {statistics.median(one for one, _ in pairs):.3f} s, by hand "
        f"{statistics.median(one for _, one in pairs):.3f} s, "
        f"ratio {statistics.median(ratios):.2f} "
        f"(10-90 %: {deciles[0]:.2f}-{deciles[-1]:.2f}, {len(pairs)} batches)"
    )


def show(line: str) -> None:
    """A line of the report."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
