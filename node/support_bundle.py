"""`sapo support-bundle`: what others need to see why a node misbehaves, without secrets.

Left out: the key, the API's token, the seed, model weights, and what strangers wrote (unless asked
for). Before a member is written, every secret of this home and of the environment, in the forms in
which it could be written down, is searched for in its bytes and blotted out.

Not covered: secrets that this program does not know and that stand in a log in no usual form, and
what is private but no secret: ids and addresses of this node and its peers, paths, names of models.
Look into the file before you publish it.
"""

import base64
import io
import os
import platform
import re
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import msgspec

from node.access import TOKEN_FILE
from node.ask import NodeUnreachable, fetch_snapshot
from node.checkpoint import find_rounds, read_state
from node.config import ConfigError, NodeConfig
from node.finding import Finding
from node.home import HomeError
from node.kept import open_kept
from node.settings_list import list_settings
from node.status_json import to_json
from swarm.identity import KEY_FILE
from swarm.manifest import ManifestError, load_manifest

MAX_LOG_BYTES = 4 * 2**20
"""Of the end of each log."""
MAX_LOGS = 16
LAST_ROUNDS = 500
MAX_FILES = 10_000
"""Of the home's listing."""
MIN_SECRET_CHARS = 8
SEED_KEY = "seed"
BLOT = b"(left out)"

README = """\
What `sapo support-bundle` collected on {at}.

settings.json   every setting and where it comes from
versions.json   Python, system, packages
swarm.json      which swarm, and which tasks
status.json     what the running node says of itself, peers included; or why it says nothing
rounds.json     reports of the last rounds; heldout.json: evaluations
pool.json       counts of rollouts, without their texts
checkpoints.json  rounds of the checkpoints
files.json      names, sizes and modes in the home
doctor.json     what sapo doctor found
logs/           the ends of the logs
{texts}
Left out: key, token, seed, model weights{but}. Ids and addresses of this node and of its peers,
paths and the model's name are in here: look into it before you publish it.
"""
TEXTS = "rollouts.jsonl  questions and answers, strangers' included: as signed, do not print them\n"

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.I)
_PATTERNS = (
    re.compile(rb"(?<=token=)[A-Za-z0-9_%-]{8,}"),
    re.compile(rb"(?<=Bearer )[A-Za-z0-9_.=+/-]{8,}"),
    re.compile(rb"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(rb"\bhf_[A-Za-z0-9]{20,}"),
)
"""Secrets by their usual form: older tokens, others' tokens, passwords in URLs."""


class Member(msgspec.Struct, frozen=True):
    """A file of the bundle."""

    name: str
    num_bytes: int


class Bundle(msgspec.Struct, frozen=True):
    """What was written."""

    file: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Blotter:
    """Blots secrets out."""

    secrets: tuple[bytes, ...]
    """In each form, the longest first."""

    def __call__(self, data: bytes) -> bytes:
        """The bytes without them."""
        for secret in self.secrets:
            data = data.replace(secret, BLOT)
        for pattern in _PATTERNS:
            data = pattern.sub(BLOT, data)
        return data


def write_bundle(
    config: NodeConfig,
    file: Path,
    examine: Callable[[NodeConfig], Iterable[Finding]],
    *,
    with_texts: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Bundle:
    """Collects what there is into a new .tar.gz of mode 0600. The node may be running or stopped;
    what cannot be had is told in its place.

    Args:
        examine: the doctor.
        with_texts: questions and answers of the pool, too.
        environment: whose secrets are blotted out, too; by default the process's.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    blot = Blotter(tuple(find_secrets(config.home, environment)))
    prefix = file.name.removesuffix(".gz").removesuffix(".tar")
    members = []
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, data in collect(config, examine, with_texts):
                clean = blot(data)
                info = tarfile.TarInfo(f"{prefix}/{name}")
                info.size, info.mtime, info.mode = len(clean), int(time.time()), 0o600
                archive.addfile(info, io.BytesIO(clean))
                members.append(Member(name, len(clean)))
    except FileExistsError:
        raise ConfigError(f"{file} exists; name another file with --out") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror or error}") from None
    return Bundle(str(file), tuple(members))


def find_secrets(home: Path, environment: Mapping[str, str] | None = None) -> list[bytes]:
    """Key and token of a home, and values of the environment whose names say that they are secret;
    as they are, in hexadecimal digits, and in base64. The longest first."""
    found: list[bytes] = []
    for name in (KEY_FILE, TOKEN_FILE):
        try:
            with (home / name).open("rb") as opened:
                text = opened.read(1000).strip()
        except OSError:
            continue
        found.append(text)
        if name == KEY_FILE and re.fullmatch(rb"[0-9a-fA-F]{64}", text):
            found.append(bytes.fromhex(text.decode()))
    for name, value in (os.environ if environment is None else environment).items():
        if _SECRET_NAME.search(name):
            found.append(value.encode(errors="surrogateescape"))
    forms = {
        form
        for secret in found
        if len(secret) >= MIN_SECRET_CHARS
        for form in (
            secret,
            secret.lower(),
            secret.hex().encode(),
            secret.hex().upper().encode(),
            base64.b64encode(secret).rstrip(b"="),
            base64.urlsafe_b64encode(secret).rstrip(b"="),
        )
    }
    return sorted(forms, key=len, reverse=True)


def collect(
    config: NodeConfig, examine: Callable[[NodeConfig], Iterable[Finding]], with_texts: bool
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the members, not yet blotted."""
    at = time.strftime("%Y-%m-%d %H:%M:%S %z")
    said = {"texts": TEXTS, "but": ""} if with_texts else {"texts": "", "but": ", strangers' texts"}
    yield "README.txt", README.format(at=at, **said).encode()
    settings = [
        msgspec.structs.replace(one, value=BLOT.decode()) if one.key == SEED_KEY else one
        for one in list_settings(config)
    ]
    yield "settings.json", to_json(settings)
    yield "versions.json", msgspec.json.encode(_versions())
    yield "swarm.json", msgspec.json.encode(_swarm(config))
    yield "status.json", _status(config)
    yield from _kept(config, with_texts)
    yield "checkpoints.json", msgspec.json.encode(_checkpoints(config.home))
    yield "files.json", msgspec.json.encode(list(_listing(config.home)))
    yield "doctor.json", to_json(list(examine(config)))
    yield from _logs(config.home)


def _versions() -> dict[str, object]:
    packages = {one.metadata["Name"]: one.version for one in distributions()}
    return {
        "python": sys.version,
        "system": " ".join(platform.uname()[i] for i in (0, 2, 3, 4)),  # without the host's name
        "packages": {name: packages[name] for name in sorted(packages, key=str.lower)},
    }


def _swarm(config: NodeConfig) -> dict[str, object]:
    try:
        manifest = load_manifest(config.manifest_file)
    except (ConfigError, ManifestError) as error:
        return {"problem": str(error)[:2000]}
    tasks = [task.name for task in manifest.rules.tasks]
    return {"swarm_id": manifest.swarm_id, "is_signed": manifest.is_signed, "tasks": tasks}


def _status(config: NodeConfig) -> bytes:
    try:
        return to_json(fetch_snapshot(config.home))
    except (NodeUnreachable, HomeError) as error:
        return msgspec.json.encode({"problem": str(error)})


def _kept(config: NodeConfig, with_texts: bool) -> Iterator[tuple[str, bytes]]:
    try:
        with open_kept(config.home) as kept:
            yield "rounds.json", to_json(kept.rounds(config.mode, LAST_ROUNDS))
            yield "heldout.json", to_json(kept.heldout(config.mode))
            yield "pool.json", to_json(kept.stats())
            if with_texts:
                lines = (to_json(one) for one in kept.rollouts() if one is not None)
                yield "rollouts.jsonl", b"\n".join(lines)
    except HomeError as error:
        yield "pool.json", msgspec.json.encode({"problem": str(error)})


def _checkpoints(home: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for directory in ("checkpoints", "checkpoints/aside", "generated/rounds"):
        for path in find_rounds(home / directory):
            one: dict[str, object] = {"name": f"{directory}/{path.name}"}
            try:
                state = read_state(path)
                one |= {"round": state.round, "model": state.model, "tokens": state.total_tokens}
            except (OSError, msgspec.DecodeError) as error:
                one["problem"] = str(error)
            found.append(one)
    return found


def _listing(home: Path) -> Iterator[dict[str, object]]:
    num = 0
    for root, folders, names in os.walk(home):
        folders.sort()
        for name in sorted(names):
            if (num := num + 1) > MAX_FILES:
                return
            path = Path(root) / name
            try:
                found = path.lstat()
            except OSError:
                continue
            yield {
                "name": os.fsencode(path.relative_to(home)).decode(errors="backslashreplace"),
                "num_bytes": found.st_size,
                "mode": f"{found.st_mode & 0o7777:04o}",
                "changed": round(found.st_mtime),
            }


def _logs(home: Path) -> Iterator[tuple[str, bytes]]:
    """Their ends, from the first whole line on."""
    files = [*sorted((home / "logs").glob("*.log*")), *sorted(home.glob("*.log"))]
    for file in files[:MAX_LOGS]:
        if file.is_symlink() or not file.is_file():
            continue
        try:
            with file.open("rb") as opened:
                start = max(0, opened.seek(0, os.SEEK_END) - MAX_LOG_BYTES)
                opened.seek(start)
                data = opened.read(MAX_LOG_BYTES)
        except OSError:
            continue
        if start:
            data = data.partition(b"\n")[2]
        yield f"logs/{file.name}", data
