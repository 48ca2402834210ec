"""The OpenAPI document of the API: every answer with the schema of the struct that it is made of.

    python -m node.api_schema > docs/openapi.json

FastAPI knows the paths and parameters. Schemas come from msgspec, with the documentation that
stands under each field, as `to_json` (node/status_json.py) writes them: bytes in hexadecimal
digits, and null for a figure that is no number.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from node.actions import BanDone, CheckpointDone, PauseState, Stopping, UnbanDone
from node.api_views import (
    CheckpointView,
    PeerView,
    Problem,
    Refusals,
    Setting,
    TaskView,
    Version,
)
from node.curve import RoundPoint
from node.gate import OPEN_PATHS
from node.log_lines import LogLine
from node.news import Data
from node.rollout_view import RolloutSummary, RolloutView
from node.status import (
    ForeignGroup,
    HeldOutStatus,
    RoundReport,
    Snapshot,
    TaskHeldOut,
)

Schema = dict[str, Any]

KINDS: tuple[Any, ...] = (
    Snapshot,
    RoundReport,
    RoundPoint,
    TaskView,
    RolloutSummary,
    RolloutView,
    PeerView,
    Refusals,
    CheckpointView,
    Setting,
    LogLine,
    Version,
    Problem,
    BanDone,
    UnbanDone,
    PauseState,
    CheckpointDone,
    Stopping,
    *get_args(Data),
)
"""Of all answers."""

MAY_BE_NO_NUMBER = {RoundReport, ForeignGroup, HeldOutStatus, TaskHeldOut}
"""Structs whose figures may be infinite or no number, when training diverges: null in JSON."""

TEXT = {"text/plain": {"schema": {"type": "string"}}}
PROBLEM = {
    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
}
WHY = {
    400: "The body cannot be read.",
    401: "No token, or a wrong one.",
    403: "A page of another origin asked through a browser.",
    404: "There is none of that name.",
    408: "The body did not arrive in time.",
    409: "It cannot be done; the detail says why.",
    413: "The body is too long.",
    421: "Asked under a name that is not this machine's.",
    422: "A parameter is out of its range; the detail names it.",
    429: "Too many wrong tokens from this address.",
    500: "A bug; the node's log has more.",
    503: "Not now; the detail says why.",
}

ABOUT = """What a node does, as JSON, and what may be changed in it.

Send the token of the file `api-token` in the node's home as `Authorization: Bearer TOKEN`. Errors
are problems (RFC 9457). Times are Unix seconds, durations end in `_s`. Fields and kinds of events
may be added in any version; docs/api.md says what stays."""


def returns(kind: Any, *problems: int) -> dict[int | str, Any]:
    """The `responses` of a path that answers with JSON of a struct, of a list of them, or of one of
    several such kinds, given as a tuple."""
    schemas, _ = _components(kind if isinstance(kind, tuple) else (kind,))
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
    content = {"application/json": {"schema": schema}}
    return refuses(*problems) | {200: {"description": "The answer.", "content": content}}


def refuses(*problems: int) -> dict[int | str, Any]:
    """The `responses` of a path's errors."""
    return {status: {"description": WHY[status], "content": PROBLEM} for status in problems}


def describe(app: FastAPI) -> Schema:
    """The document."""
    document = get_openapi(
        title=app.title, version=app.version, description=ABOUT, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):  # problems are told instead
        schemas.pop(unused, None)
    schemas.update(_described())
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "HOME/api-token"}
    }
    for path, methods in document["paths"].items():
        for operation in methods.values():
            answers = operation["responses"]
            answers |= {str(code): one for code, one in refuses(413, 421, 500).items()}
            if "422" in answers:
                answers["422"] = refuses(422)[422]
            if path not in OPEN_PATHS:
                operation["security"] = [{"token": []}]
                answers |= {str(code): one for code, one in refuses(401, 403, 429).items()}
            operation["responses"] = dict(sorted(answers.items()))
    return document


def _components(kinds: tuple[Any, ...]) -> tuple[tuple[Schema, ...], dict[str, Schema]]:
    return msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")


def _described() -> dict[str, Schema]:
    _, schemas = _components(KINDS)
    structs = {kind.__name__: kind for kind in _structs(KINDS)}
    for name, schema in schemas.items():
        schema.pop("title", None)
        if (kind := structs.get(name)) is None:
            continue
        texts = field_texts(kind)
        schema["required"] = list(schema["properties"])  # answers leave nothing out
        for field, shape in schema["properties"].items():
            shape.pop("default", None)
            if field in texts:
                shape["description"] = texts[field]
        if kind in MAY_BE_NO_NUMBER:
            _admit_null(schema["properties"])
    _write_as_json(schemas)
    return schemas


def _structs(kinds: tuple[Any, ...]) -> Iterator[type]:
    """All struct types within."""
    waiting: list[Any] = list(msgspec.inspect.multi_type_info(kinds))
    seen: set[type] = set()
    while waiting:
        found = waiting.pop()
        if isinstance(found, msgspec.inspect.StructType):
            if found.cls in seen:
                continue
            seen.add(found.cls)
            yield found.cls
            waiting += [field.type for field in found.fields]
        elif isinstance(found, msgspec.inspect.UnionType):
            waiting += found.types
        elif isinstance(found, msgspec.inspect.DictType):
            waiting.append(found.value_type)
        elif isinstance(found, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
            waiting.append(found.item_type)


def field_texts(kind: type) -> dict[str, str]:
    """What stands under each field of a class and those that it inherits from."""
    texts: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if "__annotations__" not in vars(one) or one.__module__.partition(".")[0] == "msgspec":
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                assert isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                texts[field.target.id] = " ".join(str(below.value.value).split())
    return texts


def _admit_null(properties: Schema) -> None:
    for shape in properties.values():
        if shape.get("type") == "number":
            shape["type"] = ["number", "null"]


def _write_as_json(tree: Any) -> None:
    """Bytes as `to_json` writes them."""
    if isinstance(tree, dict):
        if tree.get("contentEncoding") == "base64":
            del tree["contentEncoding"]
            tree["pattern"] = "^([0-9a-f]{2})*$"
        for one in tree.values():
            _write_as_json(one)
    elif isinstance(tree, list):
        for one in tree:
            _write_as_json(one)


def main() -> None:
    """Writes the document of a node without a swarm to standard output."""
    from node.api import create_app
    from node.api_fake import fake_changeable, fake_readable

    document = create_app(fake_readable(), "t" * 43, fake_changeable()).openapi()
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


if __name__ == "__main__":
    main()
