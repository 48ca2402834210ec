"""Snapshots and reports as JSON and back: bytes as hexadecimal digits, not-a-number as null."""

import math
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")


def to_json(value: msgspec.Struct | Sequence[msgspec.Struct]) -> bytes:
    """UTF-8 JSON. Lone surrogates, which UTF-8 has not, are shown escaped."""
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
