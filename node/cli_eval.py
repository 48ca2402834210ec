"""The command `sapo eval`."""

from typing import Annotated

import typer

from node.cli_options import (
    AsJson,
    ConfigFile,
    Engine,
    ManifestName,
    Seed,
    Settings,
    console,
    errors,
    parse_settings,
    write_json,
)
from node.config import SWARM_FILE, load_config
from swarm.manifest import load_manifest


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
    as_json: AsJson = False,
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
    chosen = load_config(config, flags | parse_settings(settings))
    names = [target] if against is None else [against, target]
    targets = [find_target(name, chosen.home) for name in names]
    home = targets[-1].home
    if home is not None and (home / SWARM_FILE).is_file():
        chosen = chosen.model_copy(update={"home": home})
    swarm = load_manifest(chosen.manifest_file)
    from node.build import open_examinee

    with show_progress(chosen.evaluate.questions or NUM_QUESTIONS, errors) as advance:
        report = examine(targets, chosen, swarm, open_examinee, advance)
    if as_json:
        write_json(report)
    else:
        print_exam(report, console)
