"""The console script `sapo`: its commands put together, and the user's mistakes told in one line.

Each group of commands has a file of its own, node/cli_*.py. Exit statuses: node/exit_status.py and
docs/exit-codes.md.
"""

import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from node.ask import NodeRefused, NodeUnreachable
from node.cli_bundle import support_bundle
from node.cli_config import config_app
from node.cli_demo import demo
from node.cli_doctor import doctor
from node.cli_eval import evaluate
from node.cli_experiment import experiment
from node.cli_home import init, rollback
from node.cli_key import key_app
from node.cli_manifest import join, manifest_app
from node.cli_options import console, errors
from node.cli_peers import peers_app
from node.cli_policy import policy_app
from node.cli_pool import pool_app
from node.cli_run import run
from node.cli_status import rounds, status
from node.cli_tasks import tasks_app
from node.cli_token import token_app
from node.config import ConfigError
from node.download import DownloadError
from node.escape import printable
from node.exit_status import Exit
from node.home import HomeError
from rewards.verifier import VerifierBroken
from swarm.identity import IdentityError, TwinFound
from swarm.manifest import ManifestError

MAX_ERROR_LINES, MAX_ERROR_CHARS = 50, 2000
"""Of an error, whose text may quote a stranger's file."""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(init)
app.command()(run)
app.command()(join)
app.command()(status)
app.command()(rounds)
app.add_typer(peers_app, name="peers")
app.add_typer(pool_app, name="pool")
app.command()(doctor)
app.command("support-bundle")(support_bundle)
app.command()(rollback)
app.add_typer(config_app, name="config")
app.add_typer(key_app, name="key")
app.add_typer(token_app, name="token")
app.add_typer(tasks_app, name="tasks")
app.add_typer(manifest_app, name="manifest")
app.command("eval")(evaluate)
app.command()(demo)
app.command()(experiment)
app.add_typer(policy_app, name="policy")


@app.callback(invoke_without_command=True)
def root(
    show_version: Annotated[bool, typer.Option("--version", help="Print it and end.")] = False,
) -> None:
    """A swarm node for SAPO (Swarm sAmpling Policy Optimization)."""
    if show_version:
        console.print(f"sapo-swarm {version('sapo-swarm')}", highlight=False)
        raise typer.Exit


def main() -> NoReturn:
    """Runs the command line; the user's mistakes become one clear line instead of a traceback."""
    try:
        app()
    except (ConfigError, ManifestError, HomeError, IdentityError, DownloadError) as error:
        _end(error, Exit.USAGE)
    except VerifierBroken as error:
        _end(error, Exit.BROKEN)
    except NodeUnreachable as error:
        _end(error, Exit.UNREACHABLE)
    except NodeRefused as error:
        _end(error, Exit.REFUSED)
    except TwinFound as error:
        _end(error, Exit.TWIN)
    sys.exit(Exit.DONE)


def _end(error: Exception, status: Exit) -> NoReturn:
    lines = str(error).splitlines()[:MAX_ERROR_LINES]
    text = escape("\n".join(printable(line, MAX_ERROR_CHARS) for line in lines))
    errors.print(f"[bold red]sapo:[/] {text}", highlight=False, soft_wrap=True)
    sys.exit(status)
