# ruff: noqa: RUF001 - look-alike signs are the point here
"""Checkers of puzzles: what they accept, also of solvers that read nothing but the text."""

import json
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import permutations, product

import pytest

from rewards.tasks import TaskSpec, build_task, puzzles
from rewards.tasks.rules import MAX_ANSWER_CHARS, Item, Rule, is_correct

QUEENS = "_ Q _ _\n_ _ _ _\n_ _ _ _\n_ _ _ _"
GRID = "* O O\nX X O\n# O O"
SURVO = "0 0 5\n0 4 7\n6 6 12"

# rule, truth, given, accepted, refused
TABLE: list[tuple[Rule, str, tuple[str, ...], list[str], list[str]]] = [
    (
        puzzles.equation,
        "6*2*(8 - 6)",
        ("24", "+-*/", "8", "6", "6", "2"),
        ["6*2*(8 - 6)", "(8-6)*2*6", "6 * (8 - 6) * 2", "2*(6*(8 - 6))"],
        [
            *[
                "24",
                "6*2*(8 - 6) = 24",
                "12*2",
                "6*4",
                "8*6/2",
                "6*2*(8-6)*1",
                "6*2*8-6",
                "6×2×(8-6)",
            ],
            *["-(-6*2*(8 - 6))*1", "6*2*(8 - 6).", "nan", "6*2*(8 - 6)**1", "8*6*6*2/24"],
        ],
    ),
    (puzzles.equation, "3 - 1", ("2", "-", "1", "3"), ["3 - 1"], ["-1 + 3", "1 - 3"]),
    (
        puzzles.palindrome,
        "abba",
        (),
        ["abba", "baab"],
        ["abab", "aba", "abbba", "ABBA", "a bb a", "abcba", "aabb", "\u0430bb\u0430"],
    ),
    (
        puzzles.letter_sum,
        "A=1,B=0,C=2",
        ("AB", "AB", "CB"),
        ["A=1,B=0,C=2", "C=2, A=1,B=0", "A=2,B=0,C=4", "B=0,A=4,C=8"],
        [
            *["A=1,B=0", "A=1,B=0,C=2,D=3", "A=0,B=1,C=2", "A=1,B=0,C=3", "A=1,B=0,C=2,A=1"],
            *[
                "A=1,B=1,C=2",
                "a=1,b=0,c=2",
                "A=1 B=0 C=2",
                "A=1;B=0;C=2",
                "A=１,B=0,C=2",
                "A=1,B=0,C=2,",
            ],
            *["A = 1, B = 0, C = 2", '{"A": 1, "B": 0, "C": 2}', "A=0,B=0,C=0", "A=10,B=0,C=20"],
        ],
    ),
    (
        puzzles.coloring,
        '{"0": 1, "1": 2, "2": 1}',
        ("0 1 2", "1 2 3", "0 1", "1 2"),
        ['{"0": 1, "1": 2, "2": 1}', '{"2":3,"1":2,"0":1}', '{ "0" : 3 , "1" : 1,\n"2" : 2 }'],
        [
            *[
                '{"0": 1, "1": 1, "2": 2}',
                '{"0": 1, "1": 2}',
                '{"0": 1, "1": 2, "2": 4}',
                "{}",
                "[1, 2, 1]",
            ],
            *[
                '{"0": 1, "1": 2, "2": 1, "3": 1}',
                '{"0": 1, "0": 1, "1": 2, "2": 1}',
                "{0: 1, 1: 2, 2: 1}",
            ],
            *[
                '{"0": "1", "1": "2", "2": "1"}',
                '{"0": 1, "1": 2, "2": 1,}',
                '{"0": 01, "1": 2, "2": 1}',
            ],
            *[
                '{"00": 1, "1": 2, "2": 1}',
                '{"0": ١, "1": 2, "2": 1}',
                '{"0": 1.0, "1": 2, "2": 1}',
            ],
        ],
    ),
    (
        puzzles.queens,
        "_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _",
        (QUEENS,),
        ["_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _", "_ Q _ _ \n_ _ _ Q\r\nQ _ _ _\n_ _ Q _"],
        [
            *["_ _ Q _\nQ _ _ _\n_ _ _ Q\n_ Q _ _", QUEENS, "_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ _ _"],
            *[
                "_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ _ Q",
                "_ Q _ _\nQ _ _ _\n_ _ Q _\n_ _ _ Q",
                "_ Q",
                "Q",
            ],
            *["_Q__\n___Q\nQ___\n__Q_", "_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _\n_ _ _ _", "Q Q Q Q"],
            "_\u00a0Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _",
            "_ q _ _\n_ _ _ q\nq _ _ _\n_ _ q _",
        ],
    ),
    (
        puzzles.hanoi,
        "Move disk 1 from Peg 1 to Peg 2\nMove disk 2 from Peg 1 to Peg 3\n"
        "Move disk 1 from Peg 2 to Peg 3",
        ("2", "3", "1", "3"),
        [
            "Move disk 1 from Peg 1 to Peg 2\n Move disk 2 from Peg 1 to Peg 3 \r\n"
            "Move disk 1 from Peg 2 to Peg 3",
            "Move disk 1 from Peg 1 to Peg 3\nMove disk 1 from Peg 3 to Peg 2\n"
            "Move disk 2 from Peg 1 to Peg 3\nMove disk 1 from Peg 2 to Peg 3",
        ],
        [
            *["Move disk 1 from Peg 1 to Peg 3", "Move disk 2 from Peg 1 to Peg 3", "Move", "done"],
            "Move disk 1 from Peg 1 to Peg 3\nMove disk 2 from Peg 1 to Peg 3",
            "Move disk 1 from Peg 1 to Peg 4\nMove disk 2 from Peg 1 to Peg 3",
            "Move disk 1 from Peg 1 to Peg 1\nMove disk 1 from Peg 1 to Peg 2\n"
            "Move disk 2 from Peg 1 to Peg 3\nMove disk 1 from Peg 2 to Peg 3",
            "Move disk 3 from Peg 1 to Peg 2\nMove disk 2 from Peg 1 to Peg 3",
            "Move disk 1 from Peg 1 to Peg 2\nMove disk 2 from Peg 1 to Peg 3\n\n"
            "Move disk 1 from Peg 2 to Peg 3",
            "move disk 1 from peg 1 to peg 2\nmove disk 2 from peg 1 to peg 3\n"
            "move disk 1 from peg 2 to peg 3",
            "Move disk 1 from Peg 2 to Peg 3",
        ],
    ),
    (
        puzzles.jugs,
        '["fill B", "pour B->A"]',
        ("2", "3", "5"),
        [
            '["fill B", "pour B->A"]',
            '["fill B","pour B->A"]',
            '[ "fill A", "empty A", "fill B",\n"pour B->A" ]',
        ],
        [
            '["pour A->A", "fill B", "pour B->A"]',
            *[
                "[]",
                '["fill A"]',
                '["fill B"]',
                '["fill C", "pour C->A"]',
                '["fill B", "pour B->B"]',
            ],
            *['["fill B", "pour B->A", "empty B"]', "fill B, pour B->A", "['fill B', 'pour B->A']"],
            *['["Fill B", "Pour B->A"]', '["fill B", "pour B to A"]', '["fill B", "pour B->A",]'],
            *['["fill B", "pour B->A"', '["fill b", "pour b->a"]', '"fill B"', '["pour Z->A"]'],
        ],
    ),
    (
        puzzles.shortest_path,
        "right right down down left left",
        (GRID,),
        ["right right down down left left"],
        [
            *[
                "right right down down left",
                "down down",
                "infeasible",
                "right right down down left up",
            ],
            *["right right down down right left", "right right right down left left", "left " * 6],
            *[
                "Right Right Down Down Left Left",
                "right, right, down, down, left, left",
                "r r d d l l",
            ],
            "up right right down down left",
            "right left right right down down left left",
        ],
    ),
    (
        puzzles.shortest_path,
        "infeasible",
        ("* X #",),
        ["infeasible"],
        ["right right", "Infeasible"],
    ),
    (
        puzzles.weighted_sums,
        "1 1 0\n0 0 1",
        (),
        ["1 1 0\n0 0 1", "1 1 0 \n0 0 1"],
        [
            "0 0 1\n1 1 0",
            "1 1 0\n0 0 1\n0 0 0",
            "1 1 0",
            "1 1 0 0\n0 0 1",
            "1 1 0\n0 0 3",
            "1 1\n0 0 1",
        ],
    ),
    (
        puzzles.survo,
        "3 2 5\n3 4 7\n6 6 12",
        (SURVO,),
        ["3 2 5\n3 4 7\n6 6 12"],
        [
            "2 3 5\n3 4 7\n6 6 12",
            SURVO,
            "4 1 5\n3 4 7\n6 6 12",
            "3 2 5\n2 5 7\n6 6 12",
            "3 2 5\n3 4 7",
        ],
    ),
    # two solutions, of which the truth is one
    (
        puzzles.survo,
        "1 2 0 3\n2 1 0 3\n1 1 1 3\n4 4 1 9",
        ("0 0 0 3\n0 0 0 3\n1 1 1 3\n4 4 1 9",),
        ["1 2 0 3\n2 1 0 3\n1 1 1 3\n4 4 1 9", "2 1 0 3\n1 2 0 3\n1 1 1 3\n4 4 1 9"],
        ["3 0 0 3\n0 3 0 3\n1 1 1 3\n4 4 1 9", "1 1 1 3\n2 2 -1 3\n1 1 1 3\n4 4 1 9"],
    ),
]


@pytest.mark.parametrize(("rule", "truth", "given", "accepted", "refused"), TABLE)
def test_a_checker_accepts_every_solution_in_its_form_and_nothing_else(
    rule: Rule, truth: str, given: tuple[str, ...], accepted: list[str], refused: list[str]
) -> None:
    item = Item("", truth, given)
    assert is_correct(rule, truth, item)
    assert [answer for answer in accepted if not is_correct(rule, answer, item)] == []
    assert [answer for answer in refused if is_correct(rule, answer, item)] == []


@pytest.mark.parametrize(
    "form",
    [
        *[
            '["fill A"',
            "fill A, ",
            '{"0": 1',
            '"0": 1, ',
            "A=1,",
            "up ",
            "1 ",
            "Q ",
            "(1+",
            "[",
            " ",
        ],
        *[
            "Move disk 1 from Peg 1 to Peg 2\n",
            "Move disk 1 from Peg 1 to Peg 3\n",
            "_ Q _ _\n",
            "a",
        ],
    ],
)
def test_long_answers_raise_nothing(form: str) -> None:
    text = (form * MAX_ANSWER_CHARS)[:MAX_ANSWER_CHARS]
    for rule, truth, given, _, _ in TABLE:
        assert is_correct(rule, text, Item("", truth, given)) is False
        assert is_correct(rule, text + "]", Item("", truth, given)) is False


def puzzle24(text: str) -> str | None:
    numbers = re.match(r"Make 24 using ([\d, ]+)\.", text)[1].split(", ")  # type: ignore[index]

    def combined(parts: list[tuple[Fraction, str]]) -> str | None:
        if len(parts) == 1:
            return parts[0][1] if parts[0][0] == 24 else None
        for (a, left), (b, right), *rest in permutations(parts):
            made = [(a + b, f"({left}+{right})"), (a - b, f"({left}-{right})")]
            made += [(a * b, f"({left}*{right})")] + ([(a / b, f"({left}/{right})")] if b else [])
            for part in made:
                if found := combined([part, *rest]):
                    return found
        return None

    return combined([(Fraction(number), number) for number in numbers])


def graph_color(text: str) -> str:
    vertices, edges, colors = (
        json.loads(re.search(rf"{name}: (\[.*\])", text)[1].translate({40: 91, 41: 93}))  # type: ignore[index]
        for name in ("Vertices", "Edges", "colors")
    )
    chosen: list[dict[int, int]] = [{}]
    for vertex in vertices:
        near = {a + b - vertex for a, b in edges if vertex in (a, b)}
        chosen = [
            some | {vertex: color}
            for some in chosen
            for color in colors[::-1]
            if color not in {some.get(other) for other in near}
        ][:100]
    return json.dumps({str(vertex): color for vertex, color in chosen[0].items()})


def jugs(text: str) -> str:
    rooms = dict(re.findall(r"([A-Z]):(\d+)", text))
    target = int(re.search(r"target is: (\d+)", text)[1])  # type: ignore[index]
    paths: dict[tuple[int, ...], list[str]] = {(0,) * len(rooms): []}
    todo = list(paths)
    for held in todo:
        if target in held:
            return json.dumps(paths[held])
        now = dict(zip(rooms, held, strict=True))
        for a in sorted(rooms, reverse=True):
            next_ones = [(f"fill {a}", {a: int(rooms[a])}), (f"empty {a}", {a: 0})]
            for b in sorted(rooms.keys() - {a}):
                poured = min(now[a], int(rooms[b]) - now[b])
                next_ones.append((f"pour {a}->{b}", {a: now[a] - poured, b: now[b] + poured}))
            for move, change in next_ones:
                then = tuple((now | change).values())
                if then not in paths:
                    paths[then] = [*paths[held], move]
                    todo.append(then)
    raise AssertionError("no way")


def kakurasu(text: str) -> str:
    sums, others = (json.loads(part) for part in re.findall(r"\[[\d, ]+\]", text)[:2])
    width = range(1, len(others) + 1)
    choices = [
        [
            row
            for row in product((0, 1), repeat=len(others))
            if sum(w for w, b in zip(width, row, strict=True) if b) == n
        ]
        for n in sums
    ]
    for rows in product(*choices):
        columns = zip(*rows, strict=True)
        if [sum(w for w, bit in enumerate(column, 1) if bit) for column in columns] == others:
            return "\n".join(" ".join(map(str, row)) for row in rows)
    raise AssertionError("no solution")


def n_queens(text: str) -> str:
    rows = [row.split() for row in text.split("\n") if re.fullmatch("[_Q]( [_Q])*", row)]
    known = {r: row.index("Q") for r, row in enumerate(rows) if "Q" in row}
    size = len(rows)
    for columns in permutations(range(size)):
        if all(columns[r] == c for r, c in known.items()) and size == len(
            {r + c for r, c in enumerate(columns)}
        ) == len({r - c for r, c in enumerate(columns)}):
            return "\n".join(" ".join("Q" if i == c else "_" for i in range(size)) for c in columns)
    raise AssertionError("no solution")


def palindrome_generation(text: str) -> str:
    letters = sorted(text.strip().split("letters: ")[1].split(", "))
    half = "".join(letter * (letters.count(letter) // 2) for letter in sorted(set(letters)))
    return half + "".join(a for a in set(letters) if letters.count(a) % 2) + half[::-1]


def shortest_path(text: str) -> str:
    rows = text.strip().split("grid:\n")[1].split("\n")
    cells = {(r, c): sign for r, row in enumerate(rows) for c, sign in enumerate(row.split())}
    start = next(place for place, sign in cells.items() if sign == "*")
    paths: dict[tuple[int, int], list[str]] = {start: []}
    todo = [start]
    for r, c in todo:
        if cells[r, c] == "#":
            return " ".join(paths[r, c])
        near = {"left": (r, c - 1), "up": (r - 1, c), "right": (r, c + 1), "down": (r + 1, c)}
        for step, place in near.items():
            if cells.get(place, "X") != "X" and place not in paths:
                paths[place] = [*paths[r, c], step]
                todo.append(place)
    return "infeasible"


def survo(text: str) -> str:
    rows = [
        list(map(int, row.split())) for row in text.split("\n") if re.fullmatch(r"\d+( \d+)+", row)
    ]
    holes = [(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if cell == 0]
    for numbers in permutations(json.loads(re.search(r"\[[\d, ]+\]", text)[0])):  # type: ignore[index]
        for (r, c), number in zip(holes, numbers, strict=True):
            rows[r][c] = number
        if all(sum(line[:-1]) == line[-1] for line in [*rows, *zip(*rows, strict=True)]):
            return "\n".join(" ".join(map(str, row)) for row in rows)
    raise AssertionError("no solution")


def tower_of_hanoi(text: str) -> str | None:
    num_disks, num_pegs, start, target = map(int, re.findall(r"\d+", text)[:4])
    spare = next(peg for peg in range(1, num_pegs + 1) if peg not in (start, target))

    def moves(disk: int, a: int, b: int, c: int) -> list[str]:
        if disk == 0:
            return []
        move = f"Move disk {disk} from Peg {a} to Peg {c}"
        return [*moves(disk - 1, a, c, b), move, *moves(disk - 1, b, a, c)]

    answer = "\n".join(moves(num_disks, start, spare, target))
    return answer if len(answer) <= MAX_ANSWER_CHARS else None


SOLVERS: dict[str, tuple[Callable[[str], str | None], int]] = {
    "graph_color": (graph_color, 30),
    "jugs": (jugs, 10),
    "kakurasu": (kakurasu, 30),
    "n_queens": (n_queens, 6),
    "palindrome_generation": (palindrome_generation, 60),
    "puzzle24": (puzzle24, 6),
    "shortest_path": (shortest_path, 60),
    "survo": (survo, 30),
    "tower_of_hanoi": (tower_of_hanoi, 40),
}
"""And how many questions each is given. None where the solver does not find a short answer."""


@pytest.mark.parametrize("dataset", sorted(SOLVERS))
def test_an_answer_of_a_solver_that_read_only_the_text_is_correct(dataset: str) -> None:
    solve, num_questions = SOLVERS[dataset]
    task = build_task(TaskSpec(dataset, "reasoning_gym", dataset, "0.1.25", {}, "tags"))
    others, wrong = 0, []
    for index in range(num_questions):
        expansion = task.expand(index)
        answer = solve(expansion.text.split("\n\nWrite your final answer")[0])
        if answer is not None:
            others += answer != expansion.truth
            if not task.judge(index, f"<answer>{answer}</answer>", True):
                wrong.append((expansion.text, expansion.truth, answer))
    assert wrong == []
    assert others > 0 or dataset in ("kakurasu", "survo"), "the checker saw the truth only"
