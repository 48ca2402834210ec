# ruff: noqa: RUF001 - signs of logic and products
"""Words of which texts for each target are made: Hypothesis joins them, a fuzzer inserts them."""

from collections.abc import Mapping

_JSON = r"""{ } [ ] : , " 1 0.5 true null "x" "a": "b": "c": {"a":[ }]} """

# a middle dot stands for a blank, which is a word, too, as is a line feed
_WORDS: Mapping[str, str] = {
    "extract": r"<answer> </answer> \boxed{ \ { } ``` ```` ```python ```json 7",
    "rules": r"""** / * + - . , ^ × i x y e+4 0x 1 3 4 [[ ]] [ ] ],[ "a" 'b' { } "0": $ \frac{ }{
        ·+·2i "0":1, "1":2, A=1, S=9,·R=8 Ann·is·a·knight ·and· bo·is·an·knave right down·right
        Q _ P Q·∧·P → ¬ ( ) Move·disk·1·from·Peg·1·to·Peg·2 "fill·B" "pour·B->A" "empty·A" """,
    "formulas": "∧ ∨ → ↔ ¬ ( ) P Q R S",
    "arithmetic": "+ - * / ( ) 0 1 2 7 10 999999999",
    "checks": r"Paris 1 7 234 .5 , . $ \$ % \% e3 - + C c ( ) : \text{ } ab c d 12 x",
    "json": _JSON,
    "schema": _JSON
    + r"""\ "type":"array" "items": "enum":[ "const": "$ref":"#/$defs/a" "$defs":{"a": "oneOf":[
        "not": "if": "then":false "uniqueItems":true "pattern":"(a+)+" "minLength":1 "contains":
        "multipleOf":0 "properties":{"a": "$schema": "required":["a"] "prefixItems":[""",
    "pattern": r"""( ) (?: (?i) (?P<a> [ ] [^ - | * + ? {1000} {,9} ^ $ \b \d \pL \1 \Q \C . a
        [[:alpha:]] \x{10ffff}""",
    "output": _JSON + r'1·2 ··3 [1, 1e400 NaN 0.5000000001 {"a": [1,',
    "tests": _JSON + r'{"inputs":[ "outputs":[ "fn_name":"f" "fn_name":"1" "\ud800" 1e999 [[ ]]',
    "latex": r"""\frac{ }{ } { ^ _ \sqrt [3] \pi \cdot ( ) ! \log \begin{pmatrix} &
        \\ \end{pmatrix} \{ \} , \infty \text{cm} \binom{5}{2} \sum \int = < \in x 7 99 . \% $ | - +
        \frac{7·x^{2}}{3}""",
}
WORDS: Mapping[str, tuple[str, ...]] = {
    target: (*(word.replace("·", " ") for word in words.split()), " ", "\n")
    for target, words in _WORDS.items()
}
