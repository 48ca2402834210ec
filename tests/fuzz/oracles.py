"""Second readings of answers, written for clarity and not for strangers.

Each says what must be true of an answer that a rule or checker called correct, by other means than
the code that it is compared with. They may be slow, and may raise: an answer that they cannot
read must not have been called correct.
"""

import ast
import itertools
import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from rewards.tasks.rules import Item

Oracle = Callable[[str, Item], bool]

_LEADING_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")
_OPERATORS: Mapping[type[ast.AST], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def value(expression: str, variables: Mapping[str, int] = {}) -> Fraction:
    """Of an expression as Python reads it, exactly; powers are of integers."""

    def of(node: ast.AST) -> Fraction:
        match node:
            case ast.Expression(body):
                return of(body)
            case ast.Constant(number) if type(number) is int:
                return Fraction(number)
            case ast.Name(name):
                return Fraction(variables[name])
            case ast.UnaryOp(ast.USub(), operand):
                return -of(operand)
            case ast.UnaryOp(ast.UAdd(), operand):
                return of(operand)
            case ast.BinOp(base, ast.Pow(), ast.Constant(exponent)):
                return of(base) ** exponent
            case ast.BinOp(left, sign, right):
                return _OPERATORS[type(sign)](of(left), of(right))
        raise ValueError(ast.dump(node))

    return of(ast.parse(_LEADING_ZEROS.sub("", expression.strip(" \t")), mode="eval"))


def integers(text: str) -> list[int]:
    """All in a text, signs included."""
    return [int(part) for part in re.findall(r"-?[0-9]+", text)]


def boxed(text: str) -> str | None:
    r"""What stands in the \boxed{} that closes last, if there is no box within."""
    starts, last = [], ""
    for token in re.finditer(r"\\boxed\{|\\.|[{}]", text, re.DOTALL):
        if token[0] == "}" and starts:
            start, opening = starts.pop()
            last = text[start : token.start()] if opening != "{" else last
        elif token[0] in ("{", "\\boxed{"):
            starts.append((token.end(), token[0]))
    return last.strip(" \t\n\r\f\v") or None if "\\boxed{" not in last else None


def same_text(answer: str, item: Item) -> bool:
    return answer == item.truth


def same_letters(answer: str, item: Item) -> bool:
    return answer.encode("ascii").upper() == item.truth.encode("ascii").upper()


def same_number(answer: str, item: Item) -> bool:
    return Fraction(answer.replace(",", "")) == Fraction(item.truth.replace(",", ""))


def same_hexadecimal(answer: str, item: Item) -> bool:
    return int(answer, 16) == int(item.truth, 16)


def same_complex(answer: str, item: Item) -> bool:
    one, other = (complex(text.replace(" ", "").replace("i", "j")) for text in (answer, item.truth))
    return one == other


def same_integers(answer: str, item: Item) -> bool:
    return integers(answer) == integers(item.truth)


def same_ratio(answer: str, item: Item) -> bool:
    one, other = (
        Fraction(*integers(text)) if re.search("[/{]", text) else Fraction(text)
        for text in (answer, item.truth)
    )
    return one == other


def same_table(answer: str, item: Item) -> bool:
    one, other = (
        [[Fraction(cell) for cell in line.split()] for line in text.split("\n")]
        for text in (answer, item.truth)
    )
    return one == other


def same_json(answer: str, item: Item) -> bool:
    return bool(json.loads(_LEADING_ZEROS.sub("", answer)) == json.loads(item.truth))


def same_groups(answer: str, item: Item) -> bool:
    one, other = (
        Counter(frozenset(Counter(group).items()) for group in ast.literal_eval(text))
        for text in (answer, item.truth)
    )
    return one == other


def same_partitions(answer: str, item: Item) -> bool:
    one, other = (Counter(map(tuple, ast.literal_eval(text))) for text in (answer, item.truth))
    return one == other


def same_number_list(answer: str, item: Item) -> bool:
    one, other = (
        [Fraction(part) for part in re.findall("[-+0-9.]+", text)] for text in (answer, item.truth)
    )
    return one == other and answer.count(",") == item.truth.count(",")


def same_words(answer: str, item: Item) -> bool:
    return re.findall(r"[^,\s]+", answer) == re.findall(r"[^,\s]+", item.truth)


def same_factors(answer: str, item: Item) -> bool:
    return Counter(integers(answer)) == Counter(integers(item.truth))


def same_roles(answer: str, item: Item) -> bool:
    one, other = (
        Counter(re.findall(r"(\w+) is an? (\w+)", text.lower())) for text in (answer, item.truth)
    )
    return one == other


def same_polynomial(answer: str, item: Item) -> bool:
    letters = sorted(set(re.findall("[a-zA-Z]", answer + item.truth)))
    points = [
        {letter: place + shift for place, letter in enumerate(letters, 2)} for shift in range(9)
    ]
    return all(value(answer, point) == value(item.truth, point) for point in points)


def _formula_value(text: str, row: Mapping[str, bool]) -> bool:
    """By replacing the innermost parts, strongest operators first."""
    for name, true in row.items():
        text = text.replace(name, "01"[true])
    text = re.sub("[ \t]", "", text)
    pairs: list[tuple[str, Callable[[bool, bool], bool]]] = [
        ("∧", lambda a, b: a and b),
        ("∨", lambda a, b: a or b),  # noqa: RUF001
        ("→", lambda a, b: not a or b),
        ("↔", lambda a, b: a == b),
    ]

    def flat(text: str) -> str:
        """Of a formula without parentheses."""
        while "¬0" in text or "¬1" in text:
            text = text.replace("¬0", "1").replace("¬1", "0")
        for sign, of in pairs:
            while match := re.search(f"([01]){sign}([01])", text):
                result = "01"[of(match[1] == "1", match[2] == "1")]
                text = text[: match.start()] + result + text[match.end() :]
        return text

    while match := re.search(r"\(([^()]*)\)", text):
        if (inner := flat(match[1])) not in ("0", "1"):
            raise ValueError(inner)
        text = text[: match.start()] + inner + text[match.end() :]
    return {"0": False, "1": True}[flat(text)]


def follows(conclusion: str, premises: Sequence[str]) -> bool:
    """Whether it does, by trying all values; says nothing of operators and tautologies."""
    names = sorted(set(re.findall("[A-Z]", "".join(premises))))
    rows = [
        dict(zip(names, values, strict=True))
        for values in itertools.product([False, True], repeat=len(names))
    ]
    true = [_formula_value(conclusion, row) for row in rows]
    possible = [all(_formula_value(premise, row) for premise in premises) for row in rows]
    return not all(true) and all(t or not p for t, p in zip(true, possible, strict=True))


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON in which no key stands twice."""
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


def is_near(answer: str, truth: str, tolerance: Fraction) -> bool:
    """Of two numbers as people write them."""
    one, other = (Fraction(re.sub(r"[\\$%,]|\.$", "", text)) for text in (answer, truth))
    return abs(one - other) <= tolerance


def is_letter(answer: str, truth: str) -> bool:
    """Whether a choice is the only letter of the answer."""
    return re.findall("[^\\W_]", answer.replace(r"\text", "").upper()) == [truth]


def same_lines(expected: str, put_out: str) -> bool:
    one, other = (
        re.sub(r"[ \t\r\f\v]+$", "", text, flags=re.MULTILINE).rstrip("\n")
        for text in (expected, put_out)
    )
    return one == other


def same_value(expected: str, put_out: str) -> bool:
    """Of two JSON texts, with a tolerance for fractions."""

    def same(one: object, other: object) -> bool:
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(same, one, other))
        if isinstance(one, dict) and isinstance(other, dict):
            return {*one} == {*other} and all(same(one[key], other[key]) for key in one)
        if float in (type(one), type(other)) and {type(one), type(other)} <= {int, float}:
            return bool(abs(one - other) <= 1e-8 * max(1, abs(one)))  # type: ignore[operator, arg-type]
        return type(one) is type(other) and one == other

    return same(json.loads(expected), json.loads(put_out))


def is_entailed(answer: str, item: Item) -> bool:
    return follows(answer, item.given)


def is_equation(answer: str, item: Item) -> bool:
    target, operators, *numbers = item.given
    return (
        value(answer) == int(target)
        and sorted(map(int, re.findall("[0-9]+", answer))) == sorted(map(int, numbers))
        and set(answer) <= {*operators, *"0123456789() \t"}
    )


def is_palindrome(answer: str, item: Item) -> bool:
    return [*answer] == [*reversed(answer)] and Counter(answer) == Counter(item.truth)


def is_letter_sum(answer: str, item: Item) -> bool:
    table = str.maketrans({pair[0]: pair[2] for pair in answer.replace(" ", "").split(",")})
    *added, total = (word.translate(table) for word in item.given)
    return (
        sum(map(int, added)) == int(total)
        and not any(word.startswith("0") for word in (*added, total))
        and len(set(table.values())) == len(table)
    )


def is_coloring(answer: str, item: Item) -> bool:
    colors = json.loads(_LEADING_ZEROS.sub("", answer))
    vertices, allowed, *edges = (part.split() for part in item.given)
    return (
        {*colors} == {*vertices}
        and {str(color) for color in colors.values()} <= {*allowed}
        and all(colors[one] != colors[other] for one, other in edges)
    )


def is_board_of_queens(answer: str, item: Item) -> bool:
    rows, given = (
        [re.findall("[Q_]", line) for line in text.split("\n")] for text in (answer, item.given[0])
    )
    columns = [row.index("Q") for row in rows]
    return (
        all(row.count("Q") == 1 for row in rows)
        and [len(row) for row in rows] == [len(row) for row in given]
        and sorted(columns) == list(range(len(given)))
        and all(
            abs(columns[a] - columns[b]) != b - a
            for a, b in itertools.combinations(range(len(columns)), 2)
        )
        and all(
            new == "Q"
            for row, before in zip(rows, given, strict=True)
            for new, old in zip(row, before, strict=True)
            if old == "Q"
        )
    )


def is_tower(answer: str, item: Item) -> bool:
    num_disks, _, start, target = map(int, item.given)
    peg_of = dict.fromkeys(range(1, num_disks + 1), start)
    for disk, source, goal in zip(*[iter(integers(answer))] * 3, strict=True):
        above = [other for other in peg_of if other < disk and peg_of[other] in (source, goal)]
        if peg_of[disk] != source or above or not 1 <= goal <= int(item.given[1]):
            return False
        peg_of[disk] = goal
    return set(peg_of.values()) == {target}


def is_pouring(answer: str, item: Item) -> bool:
    target, *room = map(int, item.given)
    held = dict.fromkeys("ABCDEFGH"[: len(room)], 0)
    rooms = dict(zip(held, room, strict=True))
    for move in json.loads(answer):
        verb, letters = move.split(" ")
        one = letters[0]
        if verb == "fill":
            held[one] = rooms[one]
        elif verb == "empty":
            held[one] = 0
        else:
            other = letters[-1]
            total = held[one] + held[other]
            held[other] = min(total, rooms[other])
            held[one] = total - held[other]
    return target in held.values()


def is_path(answer: str, item: Item) -> bool:
    cells = {
        complex(c, r): sign
        for r, row in enumerate(item.given[0].split("\n"))
        for c, sign in enumerate(row.split())
    }
    at = next(place for place, sign in cells.items() if sign == "*")
    for step in answer.split(" "):
        at += {"up": -1j, "down": 1j, "left": -1, "right": 1}[step]
        if cells[at] == "X":
            return False
    return cells[at] == "#" and len(answer.split(" ")) == len(item.truth.split(" "))


def has_same_sums(answer: str, item: Item) -> bool:
    def sums(text: str) -> list[int]:
        rows = [integers(line) for line in text.split("\n")]
        lines = [*rows, *zip(*rows, strict=True)]
        return [sum((at + 1) * cell for at, cell in enumerate(line)) for line in lines]

    return sums(answer) == sums(item.truth) and {*integers(answer)} <= {0, 1}


def is_filled(answer: str, item: Item) -> bool:
    rows, before = (
        [integers(line) for line in text.split("\n")] for text in (answer, item.given[0])
    )
    lines = [*rows, *zip(*rows, strict=True)]
    return (
        all(sum(line) == 2 * line[-1] for line in lines)
        and Counter(integers(answer)) == Counter(integers(item.truth))
        and all(
            old in (0, new)
            for row, old_row in zip(rows, before, strict=True)
            for new, old in zip(row, old_row, strict=True)
        )
    )
