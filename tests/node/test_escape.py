import pytest

from node.escape import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("12D3KooW é 日本 🐸", "12D3KooW é 日本 🐸"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x9b31m\x7f\x00", "\\x9b31m\\x7f\\x00"),
        ("\u202aa\u202eb\u2066c\u2069", "\\u202aa\\u202eb\\u2066c\\u2069"),
        ("\u200b\ufeff\u00ad\u2028\xa0", "\\u200b\\ufeff\\xad\\u2028\\xa0"),
        ("\ud800\U000e0041", "\\ud800\\U000e0041"),
        ("[red]<script>", "[red]<script>"),
        ("", ""),
    ],
)
def test_what_could_act_on_a_terminal_is_shown_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["a" * 1000, "\x1b" * 1000, "a" * 9 + "\x1b"])
def test_the_length_is_bounded_also_after_escaping(text: str) -> None:
    shown = printable(text, 10)
    assert len(shown) == 10
    assert shown.endswith("…")


def test_a_text_that_fits_is_not_cut() -> None:
    assert printable("a" * 10, 10) == "a" * 10
