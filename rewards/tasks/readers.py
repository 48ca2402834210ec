"""From what reasoning-gym's generators make to items: what is unsound is skipped or mended.

A reader returns None for a question that is not sound. Each says what it does and why; which data
set it reads is in audit.py.
"""

import ast
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from itertools import product
from typing import Any

from rewards.tasks.formulas import are_consistent
from rewards.tasks.rules import Item, read_any_number

RawItem = Mapping[str, Any]
"""What the library generates: question, answer, metadata. Not passed on beyond this file."""


def as_generated(raw: RawItem) -> Item | None:
    """The library's question and answer, unchanged."""
    return Item(raw["question"], raw["answer"])


def with_exact_division(raw: RawItem) -> Item | None:
    """Skips the 1 % whose answer is that of floor division where the division is not exact."""
    exact = _evaluate(raw["metadata"]["expression"])
    return as_generated(raw) if exact == Fraction(raw["answer"]) else None


_SIGNIFICANT = re.compile(r"maximum of ([0-9]+) significant digits")


def rounded_once(raw: RawItem) -> Item | None:
    """The exact result, rounded once and half up, as the question asks; the library rounds every
    step, and halves to even."""
    text: str = raw["question"]
    instruction, _, expression = text.partition("\n")
    digits = _SIGNIFICANT.search(instruction)
    exact = _evaluate(expression.removesuffix(" = ?"))
    assert digits is not None
    context = Context(prec=int(digits[1]), rounding=ROUND_HALF_UP)
    return Item(text, f"{context.divide(Decimal(exact.numerator), Decimal(exact.denominator)):f}")


_ARITHMETIC: dict[type[ast.AST], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _evaluate(expression: str) -> Fraction:
    """The exact value of a generated expression of + - * / and parentheses.

    Raises:
        ZeroDivisionError.
    """

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=number):
                return Fraction(str(number))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=sign, right=right):
                return _ARITHMETIC[type(sign)](value(left), value(right))
        raise ValueError(f"not arithmetic: {expression}")

    return value(ast.parse(expression, mode="eval").body)


def within_its_year(raw: RawItem) -> Item | None:
    """Skips counts of business days that end in the next year: the text names the wrong year."""
    about = raw["metadata"]
    if about["task"] == "count_business_days" and about["start_date"][:4] != about["end_date"][:4]:
        return None
    return as_generated(raw)


def with_example(raw: RawItem) -> Item | None:
    """The example conclusion as truth; skips contradictory premises, from which all follows."""
    premises = tuple(raw["metadata"]["premises"])
    item = Item(raw["question"], raw["metadata"]["example_answer"], premises)
    return item if are_consistent(premises) else None


def exact_power(raw: RawItem) -> Item | None:
    """Three significant digits of the exact power; the library's float depends on the platform."""
    base, exponent = Fraction(str(raw["metadata"]["base"])), raw["metadata"]["exponent"]
    exact = base**exponent
    context = Context(prec=3, rounding=ROUND_HALF_UP)
    power = context.divide(Decimal(exact.numerator), Decimal(exact.denominator))
    return Item(raw["question"], f"{power:.2e}")


def sound_interval(raw: RawItem) -> Item | None:
    """Skips negative durations, milliseconds cut wrongly, and one format whose time of day the
    library's own answer ignores."""
    about = raw["metadata"]
    start, end = (datetime.fromisoformat(about[key]) for key in ("start_time", "end_time"))
    milliseconds = (end - start).microseconds // 1000
    if (
        end < start
        or "(%A) %H" in about["format"]
        or (about["task_type"] == "time_ms" and int(raw["answer"][-3:]) != milliseconds)
        or (about["task_type"].startswith("time") and end - start >= timedelta(days=1))
    ):
        return None
    return as_generated(raw)


def convex(raw: RawItem) -> Item | None:
    """Skips polygons called convex whose last angle is 180 degrees or more."""
    return as_generated(raw) if Fraction(raw["answer"]) < 180 else None


# Puzzles: the item gets what its rule needs beside the truth.


def countdown(raw: RawItem) -> Item | None:
    """Adds the target, the operators and the numbers."""
    about = raw["metadata"]
    return Item(raw["question"], raw["answer"], _texts(about["target"], "+-*/", *about["numbers"]))


def puzzle24(raw: RawItem) -> Item | None:
    """Adds the target, the operators that the question names, and the numbers."""
    operators = raw["question"].partition("the operators ")[2].partition(".\n")[0]
    given = _texts(24, operators.replace(", ", ""), *raw["metadata"]["numbers"])
    return Item(raw["question"], raw["answer"], given)


def cryptarithm(raw: RawItem) -> Item | None:
    """Adds the words, and their sum."""
    about = raw["metadata"]
    return Item(raw["question"], raw["answer"], (*about["words_letters"], about["result_letters"]))


def graph_color(raw: RawItem) -> Item | None:
    """Adds the graph, and as truth the coloring that the library keeps to itself."""
    about = raw["metadata"]
    truth = {str(vertex): color for vertex, color in about["possible_answer"].items()}
    graph = about["puzzle"]
    lines = [graph["vertices"], graph["color_options"], *graph["edges"]]
    return Item(raw["question"], json.dumps(truth), tuple(" ".join(map(str, x)) for x in lines))


def hanoi(raw: RawItem) -> Item | None:
    """Adds the numbers of disks and pegs, the start and the target."""
    given = [raw["metadata"][key] for key in ("num_disks", "num_pegs", "start_peg", "target_peg")]
    return Item(raw["question"], raw["answer"], _texts(*given))


def jugs(raw: RawItem) -> Item | None:
    """Adds the target and what the jugs hold."""
    text = raw["question"]
    rooms, target = re.findall("[A-Z]:([0-9]+)", text), re.findall("target is: ([0-9]+)", text)
    return Item(text, raw["answer"], (*target, *rooms))


def with_board(raw: RawItem) -> Item | None:
    """Adds the board that is to be completed."""
    return Item(raw["question"], raw["answer"], (_board(raw["metadata"]["puzzle"]),))


def shortest_path(raw: RawItem) -> Item | None:
    """Adds the grid."""
    return Item(raw["question"], raw["answer"], (_board(raw["metadata"]["matrix"]),))


def _texts(*given: object) -> tuple[str, ...]:
    return tuple(map(str, given))


def _board(rows: Sequence[Sequence[object]]) -> str:
    return "\n".join(" ".join(map(str, row)) for row in rows)


# Unsound output: skipped, computed anew, or worded anew.


def says_directions(raw: RawItem) -> Item | None:
    """Words two operations anew: what the library calls a horizontal mirror others call vertical,
    and rotations do not say which way."""
    text = raw["question"]
    text = text.replace("Horizontally mirror the matrix", "Reverse the order of the rows")
    text = text.replace("Vertically mirror the matrix", "Reverse the order of the columns")
    return Item(re.sub("(Rotate .* degrees)", r"\1 clockwise", text), raw["answer"])


def says_variable(raw: RawItem) -> Item | None:
    """Writes dX where the library integrates over X but writes dx."""
    variable = raw["metadata"]["variable"]
    return Item(raw["question"].replace(" dx", f" d{variable}", 1), raw["answer"])


def whole_pools(raw: RawItem) -> Item | None:
    """Skips matrices that the kernel does not divide: nothing says what happens at the edge."""
    about = raw["metadata"]
    size = about["pool_size"]
    divides = all(length % size == 0 for length in (about["rows"], about["cols"]))
    return as_generated(raw) if divides else None


def halting(raw: RawItem) -> Item | None:
    """Skips boards that are not shown whole, and those that a simulation contradicts."""
    board = raw["question"].partition("Initial board:\n")[2]
    rows = [re.findall("[01]", line) for line in board.split("\n")]
    alive = {(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if cell == "1"}
    for _ in range(raw["metadata"]["simulation_steps"]):
        alive = _next_generation(alive, len(rows), len(rows[0]))
    return as_generated(raw) if "..." not in board and str(not alive) == raw["answer"] else None


def _next_generation(
    alive: set[tuple[int, int]], num_rows: int, num_columns: int
) -> set[tuple[int, int]]:
    """One step of the Game of Life on a torus."""
    around = [step for step in product((-1, 0, 1), repeat=2) if step != (0, 0)]
    num_near: dict[tuple[int, int], int] = {}
    for r, c in alive:
        for down, right in around:
            place = (r + down) % num_rows, (c + right) % num_columns
            num_near[place] = num_near.get(place, 0) + 1
    return {place for place, n in num_near.items() if n == 3 or (n == 2 and place in alive)}


def one_needle(raw: RawItem) -> Item | None:
    """Skips haystacks in which two persons do what is asked for."""
    haystack, _, question = raw["question"].partition("\n")
    needle = question.removeprefix("Who").partition("?")[0]
    return as_generated(raw) if haystack.count(f"{needle}. ") == 1 else None


def without_matilda(raw: RawItem) -> Item | None:
    """Skips colleagues, whose answer forgets one circle of them, and brothers of a man who is no
    relative of the sisters."""
    text, about = raw["question"], raw["metadata"]
    stranger = about["task_type"] == "siblings" and not re.search(f"{text.split()[0]}'s br", text)
    return None if about["task_type"] == "colleagues" or stranger else as_generated(raw)


_World = Sequence[tuple[bool, ...]]
"""Who there is: each inhabitant's membership in three classes."""

_KINDS = tuple(product((False, True), repeat=3))
_WORLDS = tuple(
    [kind for kind, lives in zip(_KINDS, living, strict=True) if lives]
    for living in product((False, True), repeat=len(_KINDS))
)
_WORLDS_WITHOUT_EMPTY_CLASS = tuple(
    world for world in _WORLDS if all(any(one[place] for one in world) for place in range(3))
)


def undisputed(raw: RawItem) -> Item | None:
    """Skips answers that are wrong, be empty classes allowed or not: some conclusions follow only
    if no class is empty, which is not said, and some that are said to follow never do."""
    about = raw["metadata"]
    texts = [about["premise1"], about["premise2"], about["conclusion"]]
    names = sorted(set(re.findall(r"\b[a-z]+", " ".join(texts))) - {"are", "not"})
    *premises, conclusion = (_statement(text, names) for text in texts)
    for worlds in (_WORLDS, _WORLDS_WITHOUT_EMPTY_CLASS):
        possible = (world for world in worlds if all(holds(world) for holds in premises))
        if all(conclusion(world) for world in possible) != (raw["answer"] == "Yes"):
            return None
    return as_generated(raw)


def _statement(text: str, names: Sequence[str]) -> Callable[[_World], bool]:
    """All, No or Some A are B, or Some A are not B, as a test of worlds."""
    match = re.fullmatch(r"(All|No|Some) (\w+) are (not )?(\w+)", text)
    assert match is not None
    quantifier, one, negation, other = match.groups()
    a, b, outside = names.index(one), names.index(other), quantifier == "All" or bool(negation)

    def holds(world: _World) -> bool:
        is_some = any(kind[a] and kind[b] != outside for kind in world)
        return is_some == (quantifier == "Some")

    return holds


def by_stated_rules(raw: RawItem) -> Item | None:
    """The result of the last round by the rules in the text; the library says "Pass" also where a
    random card completes a Peng or a Chi, and overlooks a Chi next to a pair."""
    rounds = raw["metadata"]["rounds"]
    hands = re.findall("initial cards ([A-Z]+)", raw["question"]) + [r["cards"] for r in rounds]
    hand, card = hands[-2], rounds[-1]["add"]
    places = {ord(other) - ord(card) for other in hand}
    is_chi = any(pair <= places for pair in ({-2, -1}, {-1, 1}, {1, 2}))
    truth = "Peng" if hand.count(card) >= 2 else "Chi" if is_chi else "Pass"
    return Item(raw["question"], truth)


def quarter_turns(raw: RawItem) -> Item | None:
    """Skips cubes whose bottom is brought to the top, which leads to two results."""
    return None if "bottom" in raw["metadata"]["rotations"] else as_generated(raw)


def exact_odds(raw: RawItem) -> Item | None:
    """Asks for an exact answer; the library rounds, and does not say so."""
    odds = raw["metadata"]["rational"]
    truth = Fraction(odds["numerator"], odds["denominator"])
    return Item(f"{raw['question']} Answer with an exact fraction or decimal.", str(truth))


def one_sign(raw: RawItem) -> Item | None:
    """Skips emojis of two signs, whose second sign reads as a letter of the hidden sentence."""
    return as_generated(raw) if len(raw["metadata"]["emoji"]) == 1 else None


def as_displayed(raw: RawItem) -> Item | None:
    """The number as the text writes it, whose digits differ from those of the library's answer."""
    *_, size, shown = re.split(r"pick the (largest|smallest) .*: ", raw["question"].strip())
    values = {text: read_any_number(text) for text in shown.split(" ")}
    known = [value for value in values.values() if value is not None]
    best = max(known) if size == "largest" else min(known)
    found = [text for text, value in values.items() if value == best]
    return Item(raw["question"], found[0]) if len(found) == 1 else None


def only_capture(raw: RawItem) -> Item | None:
    """Skips boards on which another move captures, too, or the library's captures nothing."""
    rows = raw["metadata"]["board"]
    board = {(r, c): sign for r, row in enumerate(rows) for c, sign in enumerate(row)}
    moves = [place for place, sign in board.items() if sign == "." and _captures(board, place)]
    names = [f"{chr(ord('A') + c)}{len(rows) - r}" for r, c in moves]
    return as_generated(raw) if names == [raw["answer"]] else None


def _captures(board: Mapping[tuple[int, int], str], move: tuple[int, int]) -> bool:
    """Whether a black stone takes the last liberty of some white group."""
    return any(
        board.get(stone) == "O" and _liberties(board, stone) == {move} for stone in _beside(move)
    )


def _liberties(
    board: Mapping[tuple[int, int], str], stone: tuple[int, int]
) -> set[tuple[int, int]]:
    group, todo, free = {stone}, [stone], set[tuple[int, int]]()
    while todo:
        for place in _beside(todo.pop()):
            if board.get(place) == ".":
                free.add(place)
            elif board.get(place) == board[stone] and place not in group:
                group.add(place)
                todo.append(place)
    return free


def _beside(place: tuple[int, int]) -> Iterator[tuple[int, int]]:
    r, c = place
    return iter([(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)])
