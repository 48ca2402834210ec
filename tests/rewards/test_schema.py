"""JSON answers: which texts are JSON within the limits, and which schemas are refused."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rewards.tasks.schema import MAX_DEPTH, MAX_JSON_BYTES, MAX_VALUES, satisfies


@pytest.mark.parametrize(
    "text",
    [
        *("1", "-1.5e3", "null", "true", '""', '"\\ud800"', '"[[[["', '"\\"[["', "[]", "{}"),
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        "[" + ",".join(["1"] * (MAX_VALUES - 1)) + "]",
        '"' + "x" * (MAX_JSON_BYTES - 2) + '"',
        "9" * 300,
        '{"a": {"a": 1}, "b": 1}',
    ],
)
def test_any_json_within_the_limits_satisfies_an_empty_schema(text: str) -> None:
    assert satisfies("{}")(text)


@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "Infinity", "-Infinity", "[NaN]", "1e999", "-1e999", "9" * 301, "01", "+1", ".5"),
        *("'a'", "True", "None", "[1,]", '{"a":1,}', "{1: 2}", "", " ", "1 2", "// 1", "\ufeff1"),
        *('{"a": 1, "a": 1}', '[{"a": {"b": 1, "b": 2}}]', "[" * 100_000, '{"a":' * 100_000),
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "[" + ",".join(["1"] * MAX_VALUES) + "]",
        '"' + "x" * (MAX_JSON_BYTES - 1) + '"',
        '"' + "é" * (MAX_JSON_BYTES // 2) + '"',
    ],
)
def test_what_is_no_json_or_beyond_the_limits_is_wrong(text: str) -> None:
    assert not satisfies("true")(text)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ('{"$ref": "http://example.org/schema"}', "defined there"),
        ('{"$ref": "file:///etc/passwd"}', "defined there"),
        ('{"$ref": "#"}', "defined there"),
        ('{"$ref": "#/$defs/a"}', "defined there"),
        ('{"$ref": "#/properties/a", "properties": {"a": {}}}', "defined there"),
        ('{"$ref": "#/$defs/a/items", "$defs": {"a/items": {}}}', "defined there"),
        ('{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}', "endlessly"),
        ('{"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}', "endlessly"),
        ('{"items": {"$dynamicRef": "#a"}}', "not allowed"),
        ('{"properties": {"a": {"pattern": "(a+)+"}}}', "not allowed"),
        ('{"allOf": [{"patternProperties": {"a": {}}}]}', "not allowed"),
        ('{"format": "regex"}', "not allowed"),
        ('{"$id": "http://example.org"}', "not allowed"),
        ('{"unevaluatedItems": false}', "not allowed"),
        ('{"$schema": "http://json-schema.org/draft-07/schema#"}', "only https"),
        ('{"type": "number", "type": "string"}', "twice"),
        ('{"type": "nonsense"}', "no valid JSON schema"),
        ('{"minimum": NaN}', "not JSON"),
        ("[]", "no valid JSON schema"),
        ('{"not": ' * 17 + "{}" + "}" * 17, "nested"),
    ],
)
def test_a_schema_that_may_cost_or_fetch_is_refused(schema: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        satisfies(schema)


def test_a_schema_that_doubles_with_every_definition_is_refused() -> None:
    definitions: dict[str, object] = {
        f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(10)
    }
    schema = {"$ref": "#/$defs/a0", "$defs": {**definitions, "a10": {}}}
    with pytest.raises(ValueError, match="more than 500 schemas"):
        satisfies(json.dumps(schema))


def test_a_complex_schema_leaves_room_for_fewer_values() -> None:
    fits = satisfies(json.dumps({"anyOf": [{"minimum": i} for i in range(99)]}))
    assert fits("[" + ",".join(["1"] * 90) + "]")
    assert not fits("[" + ",".join(["1"] * 110) + "]")


def test_local_definitions_are_followed() -> None:
    point = {"type": "array", "prefixItems": [{"$ref": "#/$defs/n"}] * 2, "items": False}
    fits = satisfies(json.dumps({"$ref": "#/$defs/p", "$defs": {"n": {"minimum": 0}, "p": point}}))
    assert fits("[1, 2]") and fits("[]")
    assert not fits("[1, -2]") and not fits("[1, 2, 3]")


def test_a_property_may_have_the_name_of_a_keyword() -> None:
    fits = satisfies('{"properties": {"pattern": {"type": "string"}, "$ref": {"const": 1}}}')
    assert fits('{"pattern": "(", "$ref": 1}') and not fits('{"pattern": 1}')


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from([0.0, 1.0, "1", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(VALUES, max_size=5))
@example([1, True, 0, False])
@example([1, 1.0])
@example([[1], [True]])
@example([{"a": 1, "b": 2}, {"b": 2, "a": 1.0}])
def test_unique_items_are_those_of_the_library(values: list[object]) -> None:
    schema = {"uniqueItems": True}
    assert satisfies(json.dumps(schema))(json.dumps(values)) == Draft202012Validator(
        schema
    ).is_valid(values)
