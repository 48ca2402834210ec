"""Snapshots and reports as JSON and back: bytes as hexadecimal digits, not-a-number as null."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")
Hexer = Callable[[Any], Any]


def to_json(value: msgspec.Struct | Sequence[msgspec.Struct]) -> bytes:
    """UTF-8 JSON. Lone surrogates, which UTF-8 has not, are shown escaped.

    What holds no bytes is msgspec's work alone, which has null for figures that are no numbers; of
    the rest only what holds any is walked through here, since long lists are asked for often.
    """
    try:
        return msgspec.json.encode(_quickly(value))
    except UnicodeEncodeError:
        return msgspec.json.encode(_plain(msgspec.to_builtins(value, builtin_types=(bytes,))))


def from_json(data: bytes, kind: type[T]) -> T:
    """What `to_json` wrote, again; a null that was a number becomes NaN.

    Raises:
        ValueError: it is none of that kind. Fields that this version does not know are skipped.
    """
    try:
        tree = _typed(msgspec.json.decode(data), inspect.type_info(kind))
        return msgspec.convert(tree, kind, builtin_types=(bytes,))
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not as expected: {error}") from None


def _quickly(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_quickly(one) for one in value]
    if not isinstance(value, msgspec.Struct) or (to_hex := _hexer(type(value))) is None:
        return value
    return to_hex(msgspec.to_builtins(value, builtin_types=(bytes,)))


@cache
def _hexer(kind: type) -> Hexer | None:
    """What makes hexadecimal digits of all bytes in the tree of a struct; None: it has none."""
    return _hexer_of(inspect.type_info(kind))


def _hexer_of(kind: inspect.Type) -> Hexer | None:
    match kind:
        case inspect.BytesType():
            return lambda tree: tree.hex()
        case inspect.StructType():
            found = {field.encode_name: _hexer_of(field.type) for field in kind.fields}
            parts = [(name, hexer) for name, hexer in found.items() if hexer is not None]
            return partial(_hex_fields, parts) if parts else None
        case inspect.VarTupleType() | inspect.ListType():
            item = _hexer_of(kind.item_type)
            return (lambda tree: [item(one) for one in tree]) if item else None
        case inspect.UnionType() if any(map(_hexer_of, kind.types)):
            return _plain
        case inspect.DictType() if _hexer_of(kind.value_type):
            return _plain
    return None


def _hex_fields(parts: list[tuple[str, Hexer]], tree: Any) -> Any:
    for name, hexer in parts:
        tree[name] = hexer(tree[name])
    return tree


def _plain(tree: object) -> object:
    match tree:
        case dict():
            return {key: _plain(item) for key, item in tree.items()}
        case list() | tuple():
            return [_plain(item) for item in tree]
        case bytes():
            return tree.hex()
        case float() if not math.isfinite(tree):
            return None
        case str():
            return tree.encode(errors="backslashreplace").decode()
    return tree


def _typed(tree: object, kind: inspect.Type) -> object:
    """The tree with bytes and NaN where the type has them; the rest is left to `convert`."""
    match kind, tree:
        case inspect.StructType(), dict():
            kinds = {field.encode_name: field.type for field in kind.fields}
            return {
                key: _typed(item, kinds[key]) if key in kinds else item
                for key, item in tree.items()
            }
        case inspect.DictType(), dict():
            return {key: _typed(item, kind.value_type) for key, item in tree.items()}
        case inspect.VarTupleType() | inspect.ListType(), list():
            return [_typed(item, kind.item_type) for item in tree]
        case inspect.UnionType(), dict():
            (struct,) = (one for one in kind.types if isinstance(one, inspect.StructType))
            return _typed(tree, struct)
        case inspect.BytesType(), str():
            return bytes.fromhex(tree)
        case inspect.FloatType(), None:
            return math.nan
    return tree
