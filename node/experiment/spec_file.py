"""The file of an experiment: found, read, and checked as a whole, so that what is wrong in it is
said before anything is run."""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from node.config import ConfigError, known_keys
from node.experiment.spec import (
    ArmSpec,
    AttackSpec,
    Exams,
    Network,
    RoleSpec,
    Spec,
    declarable,
    flatten,
)
from swarm.manifest import load_manifest

MAX_FILE_BYTES = 1_000_000


def shipped_specs() -> list[Path]:
    """The experiment files that come with the program."""
    return sorted(Path(str(files("node") / "configs" / "experiments")).glob("*.toml"))


def load_spec(name: str) -> Spec:
    """The experiment of a file, or the shipped one of that name, checked as a whole.

    Raises:
        ConfigError: what is wrong, where, and what to change.
    """
    file = _find(name)
    try:
        raw = file.read_bytes()[: MAX_FILE_BYTES + 1]
        if len(raw) > MAX_FILE_BYTES:
            raise ConfigError(f"{file}: more than {MAX_FILE_BYTES} bytes")
        tree = tomllib.loads(raw.decode())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    if "name" in tree:
        raise ConfigError(f"{file}: leave out 'name': the file's name is the experiment's")
    try:
        spec = Spec.model_validate({"name": file.stem} | tree)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{file}: {line}" for line in _explain(error))) from None
    problems = [
        *_wrong_controls(spec),
        *_wrong_settings(spec),
        *_wrong_tasks(spec),
        *_wrong_attacks(spec),
    ]
    if problems:
        raise ConfigError("\n".join(f"{file}: {problem}" for problem in problems))
    return spec


def check_arms(spec: Spec, names: Iterable[str]) -> None:
    """Raises ConfigError: a name that is no arm's."""
    for name in names:
        if name not in spec.arms:
            raise ConfigError(f"{spec.name}: there is no arm {_quoted([name], spec.arms)}")


def _find(name: str) -> Path:
    shipped = {path.stem: path for path in shipped_specs()}
    if (path := Path(name)).is_file():
        return path
    if name in shipped:
        return shipped[name]
    raise ConfigError(f"there is no file '{name}', and shipped are only: {', '.join(shipped)}")


def _wrong_controls(spec: Spec) -> Iterator[str]:
    if unknown := [arm for arm in spec.controls if arm not in spec.arms]:
        yield f"controls: there is no arm {_quoted(unknown, spec.arms)}"


def _wrong_settings(spec: Spec) -> Iterator[str]:
    """Unknown keys first: the values of known ones are only right or wrong together."""
    trees = [("settings", spec.settings)]
    trees += [(f"roles.{role.name}.settings", role.settings) for role in spec.roles]
    trees += [(f"arms.{name}.settings", arm.settings) for name, arm in spec.arms.items()]
    unknown = [problem for where, tree in trees for problem in _unknown_settings(where, tree)]
    yield from unknown
    if unknown:
        return
    for name, arm in spec.arms.items():
        for role in spec.all_roles:
            try:
                spec.config(role, arm, spec.learning_rates[0])
            except ValidationError as error:
                for line in _explain(error):
                    yield f"the settings of arm {name}, role {role.name}: {line}"


def _unknown_settings(where: str, tree: Mapping[str, Any]) -> Iterator[str]:
    allowed = declarable()
    for key, _ in flatten(tree):
        if key in allowed:
            continue
        if key == "policy.model":
            yield f"{where}.{key}: say [[roles]] start"
        elif key == "learn.learning_rate":
            yield f"{where}.{key}: say learning_rates, or [arms.NAME] learning_rate"
        elif key in known_keys():
            yield f"{where}.{key} plays no part in an experiment"
        else:
            yield f"{where}: there is no setting '{key}'{_did_you_mean(key, allowed)}"


def _wrong_tasks(spec: Spec) -> Iterator[str]:
    known = [task.name for task in load_manifest(spec.manifest_file).rules.tasks]
    for role in spec.all_roles:
        if role.tasks is not None and not role.tasks:
            yield f"role {role.name}: tasks is empty; leave it out for all"
        if unknown := [task for task in role.tasks or () if task not in known]:
            yield f"role {role.name}: the manifest has no task {_quoted(unknown, known)}"


def _wrong_attacks(spec: Spec) -> Iterator[str]:
    chosen = {name: arm.attack.kind for name, arm in spec.arms.items() if arm.attack}
    if not chosen:
        return
    from node.experiment.attack import AttackKind  # half of the program

    known = [kind.value for kind in AttackKind]
    for name, kind in chosen.items():
        if kind not in known:
            yield f"arm {name}: there is no attack {_quoted([kind], known)}"


# --- what is wrong, in words ----------------------------------------------------------------------


def _explain(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        *parents, name = [str(part) for part in problem["loc"]] or [""]
        where = ".".join([*parents, name])
        if problem["type"] == "extra_forbidden":
            yield f"there is no key '{where}'{_did_you_mean(name, _known_names())}"
        elif problem["type"] == "missing":
            yield f"'{where}' is missing"
        elif problem["type"] == "value_error" and not where:
            yield str(problem["ctx"]["error"])
        else:
            yield f"{where} = {problem['input']!r}: {problem['msg']}"


def _known_names() -> list[str]:
    sections = (Spec, RoleSpec, ArmSpec, Exams, Network, AttackSpec)
    names = [name for section in sections for name in section.model_fields]
    return names + [f"settings.{key}" for key in declarable()]


def _did_you_mean(key: str, known: Sequence[str]) -> str:
    leaf = key.split(".")[-1]
    same_leaf = [one for one in known if one.split(".")[-1] == leaf]
    near = same_leaf or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _quoted(unknown: Sequence[str], known: Iterable[str]) -> str:
    return f"{unknown[0]!r}{_did_you_mean(unknown[0], list(known))}"
