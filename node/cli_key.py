"""The commands of a node's key: `sapo key`."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from node.cli_options import AsJson, Home, errors, say, write_json
from node.config import find_home
from node.keys import TWO_MACHINES, export_key, import_key, node_id_of

key_app = typer.Typer(no_args_is_help=True, help="The node's key: who it is.")


class KeyFile(msgspec.Struct, frozen=True):
    """A key that was shown, exported or imported; never the key itself."""

    node_id: str
    file: str


@key_app.command("show")
def show_key(home: Home = None, as_json: AsJson = False) -> None:
    """Who the node is. The secret key is not shown."""
    home = find_home(home)
    _say(KeyFile(node_id_of(home), str(home / "identity.key")), as_json, "is in")


@key_app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="A new file; it gets mode 0600.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write the secret key to a new file: a backup, or to move the node to another machine."""
    found = KeyFile(export_key(find_home(home), file), str(file))
    _say(found, as_json, "is now also in")
    errors.print(f"sapo: {TWO_MACHINES}", markup=False, highlight=False, soft_wrap=True)


@key_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `sapo key export` wrote.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Give a home without a key this one."""
    home = find_home(home)
    found = KeyFile(import_key(home, file), str(home / "identity.key"))
    _say(found, as_json, "is now in")
    errors.print(f"sapo: {TWO_MACHINES}", markup=False, highlight=False, soft_wrap=True)


def _say(found: KeyFile, as_json: bool, where: str) -> None:
    if as_json:
        write_json(found)
    else:
        say(f"the key of {found.node_id} {where} {found.file}")
