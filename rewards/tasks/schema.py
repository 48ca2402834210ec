"""Whether a text is JSON that satisfies a schema: a safe part of JSON Schema, draft 2020-12.

No schema is ever fetched, no pattern is matched by a backtracking engine, nothing is recursive:
a schema is made of the keywords listed here, and $ref leads to #/$defs/NAME only, without
cycles. A text is bounded in bytes, depth, number of values and length of integers before or
while it is parsed; duplicate keys, NaN and infinities are refused. So one check takes at most as
many steps as there are schemas (every $ref written out) times values in the text; MAX_STEPS.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import SchemaError
from jsonschema.validators import extend
from referencing import Registry

MAX_JSON_BYTES = 16384
"""Of a text, and of a schema."""
MAX_DEPTH = 16
MAX_VALUES = 1000
"""Objects, lists and all they hold."""
MAX_SCHEMAS = 500
MAX_SCHEMA_DEPTH = 24
"""Both where every $ref is written out."""
MAX_STEPS = 10_000
"""Schemas times values. The more complex a schema, the fewer values an answer may have: 1,000 under
ten schemas, 100 under a hundred."""
MAX_INTEGER_DIGITS = 300
"""Any such integer is a finite float, too: multipleOf divides."""

_ONE = {"not", "if", "then", "else", "additionalProperties", "propertyNames", "items", "contains"}
_MANY = {"allOf", "anyOf", "oneOf", "prefixItems"}
_NAMED = {"properties", "dependentSchemas", "$defs"}
_PLAIN = {
    *("type", "enum", "const", "required", "dependentRequired", "minProperties", "maxProperties"),
    *("minItems", "maxItems", "uniqueItems", "minContains", "maxContains"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "title", "description", "default", "examples", "$comment"),
}
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_LOCAL = "#/$defs/"
_NAME = re.compile("[A-Za-z0-9_-]{1,64}")


def satisfies(schema: str) -> Callable[[str], bool]:
    """A function that says whether a text is JSON that satisfies the schema.

    Raises:
        ValueError: the schema is malformed, too large, or has what is not allowed here.
    """
    try:
        parsed = _read(schema, MAX_VALUES)
        Draft202012Validator.check_schema(parsed)
    except SchemaError as error:
        raise ValueError(f"no valid JSON schema: {error.message[:200]}") from error
    definitions = parsed.get("$defs", {}) if isinstance(parsed, dict) else {}
    max_values = min(MAX_VALUES, MAX_STEPS // _count_schemas(parsed, definitions))
    validator = _Validator(parsed, registry=Registry())

    def is_satisfied(text: str) -> bool:
        try:
            value = _read(text, max_values)
        except ValueError:
            return False
        return bool(validator.is_valid(value))

    return is_satisfied


def _read(text: str, max_values: int) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or beyond the limits.
    """
    if len(text.encode(errors="replace")) > MAX_JSON_BYTES:
        raise ValueError(f"longer than {MAX_JSON_BYTES} bytes")
    _check_nesting(text, max_values)
    return json.loads(
        text,
        parse_int=_integer,
        parse_float=_float,
        parse_constant=_refuse,
        object_pairs_hook=_object,
    )


def _check_nesting(text: str, max_values: int) -> None:
    depth, num_values, in_string, at = 0, 1, False, 0
    while at < len(text):
        char = text[at]
        if in_string:
            at += char == "\\"
            in_string = char != '"'
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth, num_values = depth + 1, num_values + 1
        elif char in "]}":
            depth -= 1
        elif char == ",":
            num_values += 1
        if depth > MAX_DEPTH or num_values > max_values:
            raise ValueError(f"nested deeper than {MAX_DEPTH}, or more than {max_values} values")
        at += 1


def _integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer of more than {MAX_INTEGER_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number beyond the range of floats")
    return value


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return value


def _count_schemas(schema: Any, definitions: Mapping[str, Any], depth: int = 0) -> int:
    """Schemas within a schema and itself, where every $ref is written out.

    Raises:
        ValueError: there are too many, or one has what is not allowed.
    """
    if depth > MAX_SCHEMA_DEPTH:
        raise ValueError(f"schemas within each other, deeper than {MAX_SCHEMA_DEPTH} or endlessly")
    if isinstance(schema, bool):
        return 1
    num_schemas = 1
    for keyword, value in schema.items():
        for part in _parts(keyword, value, definitions):
            num_schemas += _count_schemas(part, definitions, depth + 1)
            if num_schemas > MAX_SCHEMAS:
                raise ValueError(f"more than {MAX_SCHEMAS} schemas once every $ref is written out")
    return num_schemas


def _parts(keyword: str, value: Any, definitions: Mapping[str, Any]) -> Collection[Any]:
    """The schemas that a keyword applies."""
    if keyword in _ONE:
        return (value,)
    if keyword in _MANY:
        return list(value)
    if keyword in _NAMED:
        return list(value.values())
    if keyword == "$ref":
        name = value.removeprefix(_LOCAL)
        if not (_NAME.fullmatch(name) and value == _LOCAL + name and name in definitions):
            raise ValueError(f"$ref {value!r}: use {_LOCAL}NAME, defined there, of A-Za-z0-9_-")
        return (definitions[name],)
    if keyword == "$schema" and value.rstrip("#") != _DRAFT:
        raise ValueError(f"$schema {value!r}: only {_DRAFT} is read")
    if keyword not in _PLAIN and keyword != "$schema":
        raise ValueError(f"the keyword {keyword!r} is not allowed in a schema")
    return ()


def _unique_items(_: Any, wanted: bool, instance: Any, schema: Any) -> Any:
    """In place of the library's, which compares all pairs where items cannot be sorted."""
    is_list = wanted and isinstance(instance, list)
    if is_list and len(set(map(_hashable, instance))) < len(instance):
        yield ValidationError("items are not unique")


def _hashable(value: Any) -> Any:
    """Equal for equal JSON values, and only for them: 1 is 1.0, but not true."""
    match value:
        case bool():
            return "bool", value
        case list():
            return "list", tuple(map(_hashable, value))
        case dict():
            return "dict", frozenset((key, _hashable(part)) for key, part in value.items())
    return value


_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"uniqueItems": _unique_items}
)
