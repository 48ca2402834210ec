"""Mended and newly checked data sets against solutions written from the question's text alone."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import combinations_with_replacement, product

import pytest

from rewards.tasks import TaskSpec, build_task


def first(pattern: str, text: str) -> str:
    """What the first group of the pattern matches."""
    match = re.search(pattern, text)
    assert match is not None, (pattern, text)
    return str(match[1])


def grid(text: str) -> list[list[str]]:
    """All lines that hold only blank-separated signs, as rows."""
    return [row.split() for row in text.split("\n") if re.fullmatch(r"([\d_] )*[\d_]", row)]


def text_of(rows: object) -> str:
    return "\n".join(" ".join(map(str, row)) for row in rows)  # type: ignore[attr-defined]


def acre(text: str) -> str:
    """By trying every set of objects that may be blickets."""
    seen, test = text.split("results:\n")[1].split("\n\nNew test case:\n")
    examples = [line.split(" → ") for line in seen.split("\n")]
    sets = [(set(objects.split(", ")), light == "on") for objects, light in examples]
    case = set(test.split("\n")[0].split(", "))
    objects = sorted(case.union(*(some for some, _ in sets)))
    lights = set()
    for chosen in product((False, True), repeat=len(objects)):
        blickets = {thing for thing, is_one in zip(objects, chosen, strict=True) if is_one}
        if all(bool(blickets & some) == light for some, light in sets):
            lights.add(bool(blickets & case))
    return {(True,): "on", (False,): "off"}.get(tuple(lights), "undetermined")


def aiw(text: str) -> str:
    kind = "female friends" if "friends" in text else "sisters"
    return str(int(first(rf"(\d+) {kind}", text)) + 1)


def circuit_logic(text: str) -> str:
    """Traces the drawing: each gate's input row starts at the wire of one input."""
    drawing = text.split("circuit.\n\n")[1].split("\n\n\nLegend")[0].split("\n")
    gates = dict(re.findall(r"(\S)\1: (\w+)", text.split("Legend for gates:")[1]))
    final = re.findall(r": (\w+)\n\nGiven", text)[0]
    values = {name: int(bit) for name, bit in re.findall(r"  (\w+) = ([01])", text)}
    wires = {line.index("┐"): line.split(":")[0] for line in drawing if re.match(r"\w+: ", line)}
    terms: list[list[int]] = [[]]
    names: list[str] = [""]
    for line in drawing[len(wires) :]:
        row = re.match(r"[ │]*([├└])[─│]*(>o)?─*│(\S)\3", line)
        if row is None or row.start(1) not in wires:
            terms, names = [*terms, []], [*names, ""]
            continue
        terms[-1].append(values[wires[row.start(1)]] ^ bool(row[2]))
        names[-1] = gates[row[3]] if row[3] in "&↑⊕" else ""
    kinds = {"&": "AND", "↑": "NAND", "⊕": "XOR"}
    assert set(names) <= set(kinds.values())

    def through(gate: str, bits: list[int]) -> int:
        both, some, odd = int(all(bits)), int(any(bits)), sum(bits) % 2
        return {"AND": both, "NAND": 1 - both, "OR": some, "NOR": 1 - some, "XOR": odd}[gate]

    return str(through(final, [through(n, t) for n, t in zip(names, terms, strict=True)]))


def coin_flip(text: str) -> str:
    heads, flips = map(int, re.findall(r"\d+", text)[:2])
    last = flips if "at least" in text else heads
    ways = sum(math.comb(flips, n) for n in range(heads, last + 1))
    return f"{ways}/{2**flips}"


def complex_arithmetic(text: str) -> str:
    (a, b), (c, d) = (
        (Fraction(part[0] or 0), Fraction(part[1].replace(" ", "") or 0))
        for part in re.findall(r"\((-?[\d.]+(?![\d.]*i))?([ +-]*[\d.]+(?=i))?i?\)", text)
    )
    if "Divide" in text:
        size = c * c + d * d
        real, imaginary = (a * c + b * d) / size, (b * c - a * d) / size
    elif "Multiply" in text:
        real, imaginary = a * c - b * d, a * d + b * c
    else:
        sign = 1 if "Add" in text else -1
        real, imaginary = a + sign * c, b + sign * d
    return f"{real} {'-' if imaginary < 0 else '+'} {abs(imaginary)}i"


def color_cube_rotation(text: str) -> str:
    cube = {side: color for color, side in re.findall(r"- a (\w+) (\w+) side", text)}
    rings = {
        "front": ["top", "back", "bottom", "front"],
        "left": ["top", "right", "bottom", "left"],
    }
    rings |= {"back": rings["front"][::-1], "right": rings["left"][::-1]}
    turns = re.findall(
        r"before at the (\w+) is|bring the (\w+) side|make the (\w+) face|place its (\w+) side|"
        r"the (\w+) side is rotated",
        text,
    )
    for side in ("".join(turn) for turn in turns):
        ring = rings[side]
        cube |= {ring[(i + 1) % 4]: cube[ring[i]] for i in range(4)}
    return cube[first(r"color of the (\w+) side", text)]


def emoji_mystery(text: str) -> str:
    signs = [ord(sign) for sign in text.split("emoji: ")[1].split("\n")[0][1:]]
    return bytes(s - 0xFE00 if s < 0xFE10 else s - 0xE0100 + 16 for s in signs).decode()


def _after(board: list[list[int]], num_steps: int) -> list[list[int]]:
    size, width = len(board), len(board[0])
    for _ in range(num_steps):
        board = [
            [
                int(
                    3 - board[r][c]
                    <= sum(
                        board[(r + i) % size][(c + j) % width]
                        for i in (-1, 0, 1)
                        for j in (-1, 0, 1)
                    )
                    - board[r][c]
                    <= 3
                )
                for c in range(width)
            ]
            for r in range(size)
        ]
    return board


def game_of_life(text: str) -> str:
    return json.dumps(_after(json.loads(text.split("\n\n")[1].removesuffix(".")), 1))


def game_of_life_halting(text: str) -> str:
    rows = [
        list(map(int, re.findall("[01]", row))) for row in text.split("board:\n")[1].split("\n")
    ]
    return str(not any(map(any, _after(rows, 20))))


def group_anagrams(text: str) -> str:
    groups: dict[str, list[str]] = {}
    for word in json.loads(text.strip().split("\n")[-1]):
        groups.setdefault("".join(sorted(word)), []).append(word)
    return json.dumps(list(groups.values())[::-1])


def gsm_symbolic(text: str) -> str:
    n = [int(part) for part in re.findall(r"\d+", text)]
    if "can peel" in text:
        return str(n[3] // n[0] + n[3] // n[1] * n[2])
    if "bouncy balls" in text:
        return str(n[3] - n[0] - n[1] - n[2])
    if "signatures" in text:
        return str(n[4] - n[1] - n[2])
    if "gardener" in text:
        return str(n[0] + n[2] * (n[1] - n[3]))
    if "ratio" in text:
        return str(Fraction(n[0], n[0] + n[1]) * n[2])
    return str(n[0] * n[1] - n[2] * n[3] - n[4] * n[5])


def knights_knaves(text: str) -> str:
    knight, knave = re.search(r"only by (\w+)s and (\w+)s\.", text).groups()  # type: ignore[union-attr]
    names = re.split(", and |, ", first(r"inhabitants: (.*?)\. ", text))
    atom = rf"(?:{'|'.join(names)}) is an? (?:{knight}|{knave})"
    glue = r"(?:\(|\)|it is not the case that|if and only if|if|then|and|or| )*"
    said = re.findall(rf"(?:\(|it is not the case that |if )*{atom}(?:{glue}{atom})*\)*", text)
    for roles in product((True, False), repeat=len(names)):
        is_knight = dict(zip(names, roles, strict=True))
        if all(_is_true(said[i], is_knight, knight) == roles[i] for i in range(len(names))):
            return " and ".join(f"{n} is a {knight if is_knight[n] else knave}" for n in names)
    raise AssertionError("no solution")


def _is_true(statement: str, is_knight: dict[str, bool], knight: str) -> bool:
    python = re.sub(
        r"(\w+) is an? (\w+)", lambda m: str(is_knight[m[1]] == (m[2] == knight)), statement
    )
    python = python.replace("it is not the case that", "not").replace("if and only if", "==")
    while match := re.search(r"if ((?:(?!if |then).)*) then ((?:True|False)|\(.*)", python):
        # what follows "then" is one word, or ends with the parenthesis that it opens
        start, end = match.span(2)
        depth = 0
        for end in range(start, len(python)):
            depth += (python[end] == "(") - (python[end] == ")")
            if depth == 0 and python[end] in "e)":
                break
        condition = f"(not ({match[1]}) or ({python[start : end + 1]}))"
        python = python[: match.start()] + condition + python[end + 1 :]
    return bool(eval(python))


def mahjong_puzzle(text: str) -> str:
    hand, result = Counter(first("initial cards ([A-Z]+)", text)), ""
    for added, removed in re.findall(r"Add an? ([A-Z]) card and remove an? ([A-Z]) card", text):
        triples = [[ord(added) + i for i in range(start, start + 3)] for start in (-2, -1, 0)]
        others = [[chr(card) for card in triple if chr(card) != added] for triple in triples]
        is_chi = any(all(hand[card] for card in pair) for pair in others)
        result = "Peng" if hand[added] >= 2 else "Chi" if is_chi else "Pass"
        hand += Counter(added)
        hand -= Counter(removed)
    return result


def manipulate_matrix(text: str) -> str:
    rows = grid(text)
    for line in text.split("identity")[-1].split("no change\n")[1].strip().split("\n"):
        n = [int(part) for part in re.findall(r"\d+", line)]
        if "Rotate" in line:
            for _ in range(n[0] // 90):
                rows = [list(row) for row in zip(*rows[::-1], strict=True)]
        elif "order of the rows" in line:
            rows = rows[::-1]
        elif "order of the columns" in line:
            rows = [row[::-1] for row in rows]
        elif "along the diagonal" in line:
            rows = [list(row) for row in zip(*rows, strict=True)]
        elif "counterdiagonal" in line:
            rows = [list(row)[::-1] for row in zip(*rows, strict=True)][::-1]
        elif "Map" in line:
            rows = [[str(n[1]) if cell == str(n[0]) else cell for cell in row] for row in rows]
        elif "divisible" in line:
            rows = [["0" if int(cell) % n[0] == 0 else cell for cell in row] for row in rows]
        elif "Crop" in line:
            rows = [row[n[2] - 1 : n[3]] for row in rows[n[0] - 1 : n[1]]]
        elif "row" in line:
            rows = [row for i, row in enumerate(rows, 1) if i % n[0]]
        else:
            rows = [[cell for i, cell in enumerate(row, 1) if i % n[0]] for row in rows]
    return text_of(rows)


def needle_haystack(text: str) -> str:
    haystack, question = text.split("\n")
    needle = first(r"Who (.*)\? Reply", question)
    return first(rf"(?:^|\. )([^.]*?) {re.escape(needle)}\.", haystack)


def number_format(text: str) -> str:
    shown = text.strip().split(": ")[1].split(" ")
    pick = max if "pick the largest number" in text else min
    return pick(shown, key=lambda number: Decimal(number.replace(",", "")))


def palindrome_partitioning(text: str) -> str:
    def partitions(word: str) -> list[list[str]]:
        return [[]] * (not word) + [
            [word[:i], *rest]
            for i in range(1, len(word) + 1)
            if word[:i] == word[i - 1 :: -1][:i]
            for rest in partitions(word[i:])
        ]

    return json.dumps(partitions(text.strip().split(": ")[1]))


def path_star(text: str) -> str:
    task = text.strip().split("\n")[-1]
    edges, (start, goal) = re.findall(r"\|(\d+) (\d+)", task), re.findall(r"\d+", task)[-2:]
    before = {b: a for a, b in edges}
    path = [goal]
    while path[-1] != start:
        path.append(before[path[-1]])
    return " ".join(path[::-1])


class Terms(Counter[tuple[str, int]]):
    """A polynomial of one variable: how often each power is taken."""

    def __mul__(self, other: "Terms | Fraction") -> "Terms":
        made, others = Terms(), other if isinstance(other, Terms) else Terms({("", 0): other})
        for (a, i), (b, j) in product(self, others):
            made[a or b, i + j] += self[a, i] * others[b, j]
        return made

    def __pow__(self, power: "Terms") -> "Terms":
        made = Terms({("", 0): Fraction(1)})
        for _ in range(int(power["", 0])):
            made *= self
        return made

    def __truediv__(self, other: "Terms") -> "Terms":
        return self * (1 / other["", 0])

    def __add__(self, other: "Terms") -> "Terms":  # type: ignore[override]
        return Terms({key: self[key] + other[key] for key in {**self, **other}})

    def __neg__(self) -> "Terms":  # type: ignore[override]
        return self * Fraction(-1)

    def __sub__(self, other: "Terms") -> "Terms":  # type: ignore[override]
        return self + -other


def terms_of(expression: str) -> Terms:
    python = re.sub(r"\d+", r"Terms({('', 0): Fraction(\g<0>)})", expression)
    python = re.sub(
        r"(?<![a-zA-Z])([xyzX])(?![a-zA-Z])", r"Terms({('\1', 1): Fraction(1)})", python
    )
    made = eval(python, {"Terms": Terms, "Fraction": Fraction})
    assert isinstance(made, Terms)
    return made


def written(terms: Terms) -> str:
    parts = []
    for (letter, power), number in terms.items():
        over, under = abs(number.numerator), number.denominator
        product_ = f"{over}/{under}*{letter}**{power}" if power else f"{over}/{under}"
        parts += [("-" if number < 0 else "+") + product_] if number else []
    return (
        " ".join([parts[0].lstrip("+"), *(f"{p[0]} {p[1:]}" for p in parts[1:])]) if parts else "0"
    )


def polynomial_multiplication(text: str) -> str:
    return written(terms_of(text.split("\n")[0].split(": ")[1]))


def simple_integration(text: str) -> str:
    integrand, letter = terms_of(first("∫ (.*) d[xX]", text)), first("∫ .* d([xX])", text)
    return (
        written(Terms({(letter, i + 1): n / (i + 1) for (_, i), n in integrand.items()})) + " + C"
    )


def pool_matrix(text: str) -> str:
    size, rows = int(first(r"kernel size of (\d+)", text)), grid(text.split("kernel size of")[1])
    pools = [
        [
            [int(rows[r + i][c + j]) for i, j in product(range(size), repeat=2)]
            for c in range(0, len(rows[0]), size)
        ]
        for r in range(0, len(rows), size)
    ]
    if "Perform average" in text:
        return text_of([[f"{sum(pool) / size**2:.2f}" for pool in row] for row in pools])
    return text_of([[max(pool) for pool in row] for row in pools])


def self_reference(text: str) -> str:
    n = [int(part) for part in re.findall(r"(?:least|most|Exactly) (\d+)", text)]
    count = 0
    for claimed in product((False, True), repeat=7):
        true = sum(claimed)
        third, fourth = true == n[2], 7 - true == n[3]
        facts = (true >= n[0], 7 - true <= n[1], third, fourth, third != fourth)
        count += claimed == (*facts, true in (2, 3, 5, 7), 7 - true in (4, 6))
    return str(count)


def sudoku(text: str) -> str:
    rows = [[int(cell.replace("_", "0")) for cell in row] for row in grid(text)]
    size, box = len(rows), math.isqrt(len(rows))
    solutions: list[str] = []

    def candidates(r: int, c: int) -> set[int]:
        corner = r // box * box, c // box * box
        inside = {rows[corner[0] + i][corner[1] + j] for i, j in product(range(box), repeat=2)}
        return set(range(1, size + 1)) - set(rows[r]) - {row[c] for row in rows} - inside

    def fill() -> None:
        holes = [(r, c) for r, c in product(range(size), repeat=2) if not rows[r][c]]
        if not holes:
            solutions.append(text_of(rows))
            return
        r, c = min(holes, key=lambda hole: len(candidates(*hole)))
        for digit in candidates(r, c):
            rows[r][c] = digit
            fill()
        rows[r][c] = 0

    fill()
    assert len(solutions) == 1
    return solutions[0]


def syllogism(text: str) -> str:
    """By every way to have at most three individuals, which are enough for two premises."""
    statements = re.findall(r"\b(All|No|Some) (\w+) are (not )?(\w+)", text)
    names = sorted({name for _, a, _, b in statements for name in (a, b)})
    kinds = [dict(zip(names, bits, strict=True)) for bits in product((0, 1), repeat=len(names))]

    def is_true(statement: tuple[str, str, str, str], world: tuple[dict[str, int], ...]) -> bool:
        quantifier, a, negation, b = statement
        found = [bool(one[b]) != bool(negation) for one in world if one[a]]
        return {"All": all(found), "No": not any(found), "Some": any(found)}[quantifier]

    for size in range(4):
        for world in combinations_with_replacement(kinds, size):
            if all(is_true(s, world) for s in statements[:2]) and not is_true(statements[2], world):
                return "No"
    return "Yes"


def tsumego(text: str) -> str:
    lines = [line.split() for line in text.split("```\n")[1].split("\n")[1:-1]]
    board = {(chr(65 + c), int(row[0])): sign for row in lines for c, sign in enumerate(row[1:])}

    def beside(place: tuple[str, int]) -> list[tuple[str, int]]:
        column, row = place
        around = [(column, row - 1), (column, row + 1)]
        around += [(chr(ord(column) + step), row) for step in (-1, 1)]
        return [other for other in around if other in board]

    captures = set()
    for start in [place for place, sign in board.items() if sign == "O"]:
        group = {start}
        while more := {p for stone in group for p in beside(stone) if board[p] == "O"} - group:
            group |= more
        free = {p for stone in group for p in beside(stone) if board[p] == "."}
        captures |= free if len(free) == 1 else set()
    ((column, row),) = captures
    return f"{column}{row}"


SOLUTIONS: dict[str, tuple[Callable[[str], str], int]] = {
    "acre": (acre, 25),
    "aiw": (aiw, 60),
    "circuit_logic": (circuit_logic, 60),
    "coin_flip": (coin_flip, 60),
    "color_cube_rotation": (color_cube_rotation, 60),
    "complex_arithmetic": (complex_arithmetic, 60),
    "emoji_mystery": (emoji_mystery, 60),
    "game_of_life": (game_of_life, 8),
    "game_of_life_halting": (game_of_life_halting, 8),
    "group_anagrams": (group_anagrams, 60),
    "gsm_symbolic": (gsm_symbolic, 60),
    "knights_knaves": (knights_knaves, 60),
    "mahjong_puzzle": (mahjong_puzzle, 60),
    "manipulate_matrix": (manipulate_matrix, 60),
    "mini_sudoku": (sudoku, 20),
    "needle_haystack": (needle_haystack, 60),
    "number_format": (number_format, 60),
    "palindrome_partitioning": (palindrome_partitioning, 40),
    "path_star": (path_star, 60),
    "polynomial_multiplication": (polynomial_multiplication, 15),
    "pool_matrix": (pool_matrix, 60),
    "self_reference": (self_reference, 60),
    "simple_integration": (simple_integration, 15),
    "sudoku": (sudoku, 4),
    "syllogism": (syllogism, 40),
    "tsumego": (tsumego, 40),
}
"""And how many questions each is given."""


@pytest.mark.parametrize("dataset", sorted(SOLUTIONS))
def test_a_solution_written_from_the_question_is_judged_correct(dataset: str) -> None:
    solve, num_questions = SOLUTIONS[dataset]
    task = build_task(TaskSpec(dataset, "reasoning_gym", dataset, "0.1.25", {}, "tags"))
    wrong = []
    for index in range(num_questions):
        expansion = task.expand(index)
        solution = solve(expansion.text.split("\n\nWrite your final answer")[0])
        if not task.judge(index, f"<answer>{solution}</answer>", True):
            wrong.append((expansion.text, expansion.truth, solution))
    assert wrong == []
