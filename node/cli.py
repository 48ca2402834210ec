"""The console script `sapo`.

Exit status: 0 done; 1 our bug (a traceback), or the doctor found something bad; 2 wrong usage or
settings; 3 the demo ran and did not show what it should, a task or a swarm file failed its check,
or runs of an experiment failed, and says what; 4 the engine or the verifier does not work here; 5
no node answers. SIGTERM and Ctrl-C end in order: 0.
"""

import logging
import os
import signal
import sys
import threading
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from node.access import page_address
from node.cli_manifest import join, manifest_app
from node.config import SWARM_FILE, ConfigError, NodeConfig, find_home, load_config
from node.download import DownloadError
from node.escape import printable
from node.home import HomeError, clear_home
from node.log import log_to
from node.manifest_edit import write_digests
from node.report import NodeUnreachable, fetch_snapshot, print_peers, print_status
from node.status_json import to_json
from node.task_check import check_tasks
from node.task_tools import (
    TaskList,
    draw_samples,
    find_task,
    installed_kinds,
    list_tasks,
    opener,
)
from node.task_view import print_report, print_samples, print_task, print_tasks
from rewards.verifier import VerifierBroken
from swarm.identity import IdentityError, TwinFound
from swarm.manifest import Manifest, ManifestError, load_manifest

MAX_ERROR_LINES, MAX_ERROR_CHARS = 50, 2000
"""Of an error, whose text may quote a stranger's file."""

EXIT_BAD = 1
EXIT_USAGE, EXIT_NOT_LEARNED, EXIT_BROKEN, EXIT_UNREACHABLE = 2, 3, 4, 5
EXIT_TWIN = 6
"""Another machine uses this node's key (swarm/twin.py)."""
EXIT_TASK_FAILS = 3
EXIT_RUNS_FAILED = 3

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
policy_app = typer.Typer(no_args_is_help=True, help="The embedded policy.")
config_app = typer.Typer(no_args_is_help=True, help="Settings.")
peers_app = typer.Typer(no_args_is_help=True, help="The node's peers.")
tasks_app = typer.Typer(no_args_is_help=True, help="Tasks, for those who read or write them.")
app.add_typer(policy_app, name="policy")
app.add_typer(config_app, name="config")
app.add_typer(peers_app, name="peers")
app.add_typer(tasks_app, name="tasks")
app.add_typer(manifest_app, name="manifest")
console = Console()
_errors = Console(stderr=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of differences.")]
Home = Annotated[Path | None, typer.Option(help="The node's directory.")]
Model = Annotated[str | None, typer.Option(help="'tiny', a directory, or a hub id.")]
Engine = Annotated[str | None, typer.Option(help="auto, vllm, vllm-process or transformers.")]
Rounds = Annotated[int | None, typer.Option(help="Stop after this many rounds.")]
Seed = Annotated[int | None, typer.Option(help="Of questions and sampling.")]
ManifestName = Annotated[str | None, typer.Option("--manifest", help="A swarm file or its name.")]
AsJson = Annotated[bool, typer.Option("--json", help="The snapshot as JSON.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting, e.g. --set learn.learning_rate=1e-5"),
]


@app.callback(invoke_without_command=True)
def root(
    show_version: Annotated[bool, typer.Option("--version", help="Print it and end.")] = False,
) -> None:
    """A swarm node for SAPO (Swarm sAmpling Policy Optimization)."""
    if show_version:
        console.print(f"sapo-swarm {version('sapo-swarm')}", highlight=False)
        raise typer.Exit


@app.command()
def run(
    config: ConfigFile = None,
    home: Home = None,
    model: Model = None,
    engine: Engine = None,
    rounds: Rounds = None,
    seed: Seed = None,
    manifest: ManifestName = None,
    generate_only: Annotated[
        bool, typer.Option("--generate-only", help="Share rollouts of a model that stays as it is.")
    ] = False,
    observe: Annotated[
        bool, typer.Option("--observe", help="See the swarm, without a policy.")
    ] = False,
    relay: Annotated[
        bool,
        typer.Option("--relay", help="Be a public bootstrap node and relay, without a policy."),
    ] = False,
    settings: Settings = None,
) -> None:
    """Run the node until it is stopped. SIGTERM: finish the round, checkpoint, end."""
    flags = {
        "mode": _mode(generate_only, observe, relay),
        "home": home,
        "policy.model": model,
        "rollout.engine": engine,
        "rounds": rounds,
        "seed": seed,
        "manifest": manifest,
    }
    chosen = load_config(config, flags | _parse_settings(settings))
    if not chosen.has_policy:
        for name, given in (("--model", model), ("--engine", engine), ("--rounds", rounds)):
            if given is not None:
                raise ConfigError(f"{name}: mode {chosen.mode} has no policy; leave it out")
    _ = chosen.manifest_file  # a wrong name is told before the seconds of the imports
    log_to(None)
    from node.control import run_node

    end = run_node(chosen)
    if end.failure:
        _errors.print(f"[bold red]sapo:[/] {escape(end.failure)}", highlight=False, soft_wrap=True)
    raise typer.Exit(end.exit_status)


app.command()(join)


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """What the node does now, since when, what it learned from whom, and what is unusual."""
    home = find_home(home)
    snapshot = fetch_snapshot(home)
    if as_json:
        sys.stdout.write(to_json(snapshot).decode() + "\n")
    else:
        print_status(snapshot, console, page_address(home))


@peers_app.command("ls")
def list_peers(home: Home = None, as_json: AsJson = False) -> None:
    """The node's peers: what they offered, what was used, what was refused and why."""
    snapshot = fetch_snapshot(find_home(home))
    if as_json:
        sys.stdout.write(to_json(snapshot.peers).decode() + "\n")
    else:
        print_peers(snapshot, console)


@app.command()
def doctor(
    config: ConfigFile = None,
    home: Home = None,
    manifest: ManifestName = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """What of this machine a node depends on, found by trying. Status 1 if something is bad."""
    from node.doctor import Level, examine, print_finding

    flags = {"home": home, "manifest": manifest}
    chosen = load_config(config, flags | _parse_settings(settings))
    findings = []
    logging.disable()  # all that matters is in the findings
    try:
        for finding in examine(chosen):
            findings.append(finding)
            if not as_json:
                print_finding(finding, console)
    finally:
        logging.disable(logging.NOTSET)
    if as_json:
        sys.stdout.write(to_json(findings).decode() + "\n")
    if any(finding.level is Level.BAD for finding in findings):
        raise typer.Exit(EXIT_BAD)


@app.command()
def demo(
    config: ConfigFile = None,
    home: Annotated[Path, typer.Option(help="Where everything goes.")] = Path(".demo"),
    nodes: Annotated[int, typer.Option(help="Nodes of the swarm.", min=1, max=64)] = 4,
    rounds: Annotated[int, typer.Option(help="Of each node.", min=1)] = 40,
    control: Annotated[
        bool, typer.Option("--control", help="Once more with J = 0, at the same own rollouts.")
    ] = False,
    model: Model = None,
    engine: Engine = None,
    seed: Seed = None,
    manifest: ManifestName = None,
    heldout: Annotated[int, typer.Option(help="Held-out questions per node.", min=2)] = 256,
    max_s: Annotated[float, typer.Option(help="Seconds for everything at most.")] = 600.0,
    settings: Settings = None,
) -> None:
    """Run a swarm of whole nodes on this machine and measure whether they learned."""
    flags = {
        "home": home,
        "policy.model": model,
        "rollout.engine": engine,
        "seed": 1 if seed is None else seed,
        "manifest": manifest,
    }
    shared = config or Path(str(files("node") / "configs" / "nodes" / "demo.toml"))
    chosen = load_config(shared, flags | _parse_settings(settings))
    if chosen.mode != "train":
        raise ConfigError(f"mode = '{chosen.mode}': the demo's nodes train; leave it out")
    _ = chosen.manifest_file  # a wrong name is told before anything is removed
    clear_home(chosen.home)
    from node.demo import run_demo
    from node.view import show_summary

    log_to(chosen.home / "demo.log", also_stderr=not console.is_terminal)
    stop_asked = threading.Event()
    stop_on_signal(stop_asked)
    summary = run_demo(
        chosen,
        num_nodes=nodes,
        rounds=rounds,
        num_heldout=heldout,
        with_control=control,
        max_s=max_s,
        stop_asked=stop_asked,
        console=console,
    )
    show_summary(summary, console, str(home))
    if summary.failures:
        raise typer.Exit(EXIT_NOT_LEARNED)


@app.command("eval")
def evaluate(
    target: Annotated[
        str,
        typer.Argument(help="A checkpoint, a home (its newest), a model's directory or hub id."),
    ] = "",
    against: Annotated[
        str | None, typer.Option(help="Another: what was before. Shows the difference.")
    ] = None,
    questions: Annotated[int | None, typer.Option(help="Held-out ones.", min=1)] = None,
    answers: Annotated[int | None, typer.Option(help="To each question (k).", min=2)] = None,
    config: ConfigFile = None,
    engine: Engine = None,
    seed: Seed = None,
    manifest: ManifestName = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
) -> None:
    """Ask a policy questions that no node trains on: pass@1, pass@k, diversity, with intervals."""
    from node.exam import NUM_QUESTIONS, examine, find_target
    from node.exam_view import print_report as print_exam
    from node.exam_view import show_progress

    flags = {
        "evaluate.questions": questions,
        "rollout.answers": answers,
        "rollout.engine": engine,
        "seed": seed,
        "manifest": manifest,
    }
    chosen = load_config(config, flags | _parse_settings(settings))
    names = [target] if against is None else [against, target]
    targets = [find_target(name, chosen.home) for name in names]
    home = targets[-1].home
    if home is not None and (home / SWARM_FILE).is_file():
        chosen = chosen.model_copy(update={"home": home})
    swarm = load_manifest(chosen.manifest_file)
    from node.build import open_examinee

    with show_progress(chosen.evaluate.questions or NUM_QUESTIONS, _errors) as advance:
        report = examine(targets, chosen, swarm, open_examinee, advance)
    if as_json:
        sys.stdout.write(to_json(report).decode() + "\n")
    else:
        print_exam(report, console)


@app.command()
def experiment(
    file: Annotated[str, typer.Argument(help="The experiment's file, or a shipped one's name.")],
    out: Annotated[Path | None, typer.Option(help="Default: results/ and its name.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at once; default: cores.", min=1)] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this arm; repeatable.")] = None,
    max_s: Annotated[float | None, typer.Option(help="Then start no more runs.", min=0)] = None,
    list_runs: Annotated[bool, typer.Option("--list", help="Show the runs, make none.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Only write table and curves.")] = False,
) -> None:
    """Make the runs that an experiment's file declares; go on where the last call ended."""
    from node.experiment.listing import print_outcome, print_runs
    from node.experiment.run import (
        find_materials,
        make_logs,
        read_kept,
        run_experiment,
        write_report,
    )
    from node.experiment.spec_file import check_arms, load_spec

    spec = load_spec(file)
    check_arms(spec, only or ())
    directory = out or Path("results") / spec.name
    num_jobs = jobs or len(os.sched_getaffinity(0))
    materials = find_materials(spec)
    if list_runs or report:
        kept = read_kept(spec, materials, directory)
        if report:
            write_report(spec, directory, list(kept.results.values()))
        print_runs(spec, kept, only or (), num_jobs, console)
        return
    log_to(make_logs(directory) / "experiment.log", also_stderr=False)
    stop_asked = threading.Event()
    stop_on_signal(stop_asked)
    outcome = run_experiment(
        spec,
        materials,
        directory,
        jobs=num_jobs,
        only=only or (),
        max_s=max_s,
        stop_asked=stop_asked,
        console=console,
    )
    print_outcome(outcome, directory, console)
    if outcome.failures:
        raise typer.Exit(EXIT_RUNS_FAILED)


@policy_app.command("make-tiny")
def make_tiny_command(
    out: Annotated[Path, typer.Option(help="A directory that does not exist yet, or is empty.")],
    seed: Annotated[int, typer.Option(help="Of weights, data and order.")] = 0,
) -> None:
    """Train the embedded policy from nothing (about eight minutes on one core)."""
    from node.make_tiny import make_tiny

    log_to(None)
    report = make_tiny(out, seed=seed)
    console.print(str(report), highlight=False)


@tasks_app.command("ls")
def list_tasks_command(
    manifest: ManifestName = None, home: Home = None, as_json: AsJson = False
) -> None:
    """The tasks of a swarm file, what this machine makes of them, and the kinds installed."""
    config, chosen = _tasks_of(manifest, home)
    entries = list_tasks(chosen.rules.tasks, opener(config, chosen))
    kinds = installed_kinds()
    if as_json:
        found = TaskList(chosen.swarm_id, tuple(entries), tuple(kinds))
        sys.stdout.write(to_json(found).decode() + "\n")
    else:
        print_tasks(chosen, entries, kinds, console)


@tasks_app.command("show")
def show_task(
    name: Annotated[str, typer.Argument(help="A task of the swarm file.")],
    manifest: ManifestName = None,
    home: Home = None,
) -> None:
    """Everything of one task: parameters, prompting, limits, digest, what counts as right."""
    config, chosen = _tasks_of(manifest, home)
    (entry,) = list_tasks([find_task(chosen, name)], opener(config, chosen))
    print_task(chosen, entry, config.verify.deadline_s, console)


@tasks_app.command("sample")
def sample_task(
    name: Annotated[str, typer.Argument(help="A task of the swarm file.")],
    number: Annotated[int, typer.Option("-n", help="Questions.", min=1, max=1000)] = 5,
    seed: Annotated[int, typer.Option(help="Another one, other questions.")] = 0,
    manifest: ManifestName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What the model reads, and what counts as right."""
    config, chosen = _tasks_of(manifest, home)
    samples = draw_samples(find_task(chosen, name), opener(config, chosen), number, seed)
    if as_json:
        sys.stdout.write(to_json(samples).decode() + "\n")
    else:
        print_samples(samples, console)


@tasks_app.command("check")
def check_tasks_command(
    manifest: Annotated[str, typer.Argument(help="A swarm file or its name.")],
    write: Annotated[
        bool, typer.Option("--write", help="Put the digests of tasks that hold into the file.")
    ] = False,
) -> None:
    """The gate for those who write tasks: 0 only if strangers can rely on every one."""
    config, chosen = _tasks_of(manifest, None, verify=False)
    reports = []
    with console.status("starting workers") as status:
        rules = chosen.rules
        for report in check_tasks(
            rules.tasks, opener(config, chosen), rules.max_answer_bytes, status.update
        ):
            print_report(report, console)
            reports.append(report)
    new = {report.spec.name: report.digest for report in reports if report.needs_digest}
    if write and new:
        write_digests(config.manifest_file, new)
        made = load_manifest(config.manifest_file, verify=False)
        wrote = f"wrote {len(new)} digests into {config.manifest_file}; its swarm is now "
        unsigned = "; sign it again" if made.rules.owner and not made.is_signed else ""
        console.print(Text(wrote + made.swarm_id + unsigned))
    failed = [r.spec.name for r in reports if not r.holds or (r.needs_digest and not write)]
    if failed:
        said = f"{len(failed)} of {len(reports)} tasks fail: {', '.join(failed)}"
        console.print(Text(said, style="bold red"))
        raise typer.Exit(EXIT_TASK_FAILS)
    console.print(Text(f"{len(reports)} tasks, and all hold", style="bold green"))


def _tasks_of(
    manifest: str | None, home: Path | None, *, verify: bool = True
) -> tuple[NodeConfig, Manifest]:
    """Settings and swarm file; what becomes of workers stands in the answer, not in the log."""
    logging.getLogger("rewards").setLevel(logging.CRITICAL)
    config = load_config(None, {"manifest": manifest, "home": home})
    return config, load_manifest(config.manifest_file, verify=verify)


@config_app.command("show")
def show_config(config: ConfigFile = None, settings: Settings = None) -> None:
    """The settings in force, as JSON."""
    chosen = load_config(config, _parse_settings(settings))
    console.print_json(chosen.model_dump_json())


def _mode(generate_only: bool, observe: bool, relay: bool) -> str | None:
    """The mode that a flag names; None where the settings say it."""
    given = {"generate": generate_only, "observe": observe, "relay": relay}
    modes = [mode for mode, is_asked in given.items() if is_asked]
    if len(modes) > 1:
        raise ConfigError("give one of --generate-only, --observe and --relay")
    return modes[0] if modes else None


def _parse_settings(settings: list[str] | None) -> dict[str, object]:
    pairs: dict[str, object] = {}
    for text in settings or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: write it as KEY=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs


def stop_on_signal(stop_asked: threading.Event) -> None:
    """The first SIGTERM or SIGINT asks for a stop, a second one ends the process at once."""

    def ask(number: int, _: FrameType | None) -> None:
        if stop_asked.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop_asked.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)


def main() -> NoReturn:
    """Runs the command line; the user's mistakes become one clear line instead of a traceback."""
    try:
        app()
    except (ConfigError, ManifestError, HomeError, IdentityError, DownloadError) as error:
        _end(error, EXIT_USAGE)
    except VerifierBroken as error:
        _end(error, EXIT_BROKEN)
    except NodeUnreachable as error:
        _end(error, EXIT_UNREACHABLE)
    except TwinFound as error:
        _end(error, EXIT_TWIN)
    sys.exit(0)


def _end(error: Exception, status: int) -> NoReturn:
    lines = str(error).splitlines()[:MAX_ERROR_LINES]
    text = escape("\n".join(printable(line, MAX_ERROR_CHARS) for line in lines))
    _errors.print(f"[bold red]sapo:[/] {text}", highlight=False, soft_wrap=True)
    sys.exit(status)
