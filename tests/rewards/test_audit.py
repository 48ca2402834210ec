# ruff: noqa: RUF001 - look-alike signs are part of the questions
"""The truths of audited data sets against solutions written from the question's text alone."""

import ast
import math
import re
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from rewards.tasks import TaskSpec, build_task
from rewards.tasks.audit import ALLOWED, REFUSED

MONTHS = "January February March April May June July August September October November December"
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def integers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"-?\d+", text)]


def value(expression: str) -> Fraction:
    """Of numbers, + - * / and parentheses, exactly."""
    exact = re.sub(r"\d+(?:\.\d+)?", r"Fraction('\g<0>')", expression)
    return Fraction(eval(exact, {"Fraction": Fraction}))


def grid(text: str) -> list[list[str]]:
    """The longest run of lines that hold only blank-separated signs, as rows."""
    rows = [line.split() for line in text.split("\n") if re.fullmatch(r"(-?\d+ )*-?\d+", line)]
    return [row for row in rows if len(row) == len(rows[-1])]


def rows_to_text(rows: list[list[str]]) -> str:
    return "\n".join(" ".join(row) for row in rows)


def base_conversion(text: str) -> str:
    source, digits, target = re.search(r"the (\S+) number (\S+) to (\S+)", text).groups()  # type: ignore[union-attr]
    bases = {"binary": 2, "hexadecimal": 16}
    source_base, target_base = (
        bases.get(name) or int(name.removeprefix("base-")) for name in (source, target)
    )
    number, signs = int(digits, source_base), ""
    while number:
        number, digit = divmod(number, target_base)
        signs = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + signs
    return signs or "0"


def binary_matrix(text: str) -> str:
    rows = grid(text)
    size = range(len(rows))
    zeros = [(r, c) for r, c in product(size, size) if rows[r][c] == "0"]
    return rows_to_text(
        [[str(min(abs(r - a) + abs(c - b) for a, b in zeros)) for c in size] for r in size]
    )


def calendar_arithmetic(text: str) -> str | None:
    if years := re.search(r"(\d{4}) (?:is )?a leap year", text):
        year = int(years[1])
        return "Yes" if year % 400 == 0 or (year % 4 == 0 and year % 100) else "No"
    dates = [
        date(2022, MONTHS.split().index(month) + 1, int(day))
        for month, day in re.findall(rf"({MONTHS.replace(' ', '|')}) (\d+)\b(?! fell)", text)
        if int(day) < 32
    ]
    if re.match("What day of the week was|On which weekday did", text) and "ago" not in text:
        return WEEKDAYS[dates[0].weekday()]
    if "usiness days" in text or "excluding weekends" in text:
        days = (dates[1] - dates[0]).days + 1
        return str(sum((dates[0] + timedelta(i)).weekday() < 5 for i in range(days)))
    return None


def count_primes(text: str) -> str:
    start, end = integers(text)
    prime = [
        n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1)) for n in range(start, end + 1)
    ]
    return str(sum(prime))


def decimal_arithmetic(text: str) -> str:
    exact = value(text.split("\n")[1].removesuffix(" = ?"))
    context = Context(prec=int(integers(text)[0]), rounding=ROUND_HALF_UP)
    return f"{context.divide(Decimal(exact.numerator), Decimal(exact.denominator)):f}"


def dice(text: str) -> str:
    sums = Counter({0: 1})
    for sides in map(int, re.findall(r"1d(\d+)[,.]", text)):
        sums = Counter() if not sums else _rolled(sums, sides)
    target = int(re.search(r"rolling (\d+)", text)[1])  # type: ignore[index]
    odds = Fraction(sum(n for total, n in sums.items() if total >= target), sums.total())
    return f"{odds.numerator}/{odds.denominator}"


def _rolled(sums: Counter[int], sides: int) -> Counter[int]:
    rolled: Counter[int] = Counter()
    for total, ways in sums.items():
        for face in range(1, sides + 1):
            rolled[total + face] += ways
    return rolled


def fraction_simplification(text: str) -> str:
    numerator, denominator = integers(text)
    return (
        text.split("fraction ")[1]
        .split(" to its")[0]
        .replace(str(numerator), "N", 1)
        .replace(str(denominator), "D", 1)
        .replace("N", str(numerator // math.gcd(numerator, denominator)))
        .replace("D", str(denominator // math.gcd(numerator, denominator)))
    )


def largest_island(text: str) -> str:
    rows = grid(text.split("grid:")[1])
    land = {(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if cell == "1"}
    best = 0
    while land:
        todo, area = [land.pop()], 0
        while todo:
            r, c = todo.pop()
            area += 1
            near = {(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)} & land
            land -= near
            todo += near
        best = max(best, area)
    return str(best)


def leg_counting(text: str) -> str:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    counts = re.findall(r"(\d+) ([a-z ]+?)(?:s?)(?=, |\?)", text.split("if you have ")[1])
    return str(sum(int(n) * ANIMALS.get(name, ANIMALS.get(name + "s", 0)) for n, name in counts))


def maze(text: str) -> str:
    lines = text.split(":\n\n```\n")[1].split("\n```\nLegend")[0].split("\n")
    start, goal = text[len("Navigate from '")], re.search(r"to '(.)' \(goal\)", text)[1]  # type: ignore[index]
    wall = re.search(r"'(.)' = Wall", text)[1]  # type: ignore[index]
    cells = {(r, c): cell for r, line in enumerate(lines) for c, cell in enumerate(line)}
    reached, steps = {place for place, cell in cells.items() if cell == start}, 0
    while not any(cells[place] == goal for place in reached):
        reached |= {
            (r + dr, c + dc)
            for r, c in reached
            for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))
            if cells.get((r + dr, c + dc), wall) != wall
        }
        steps += 1
    return str(steps)


def number_filtering(text: str) -> str:
    verb, larger, limit = re.match(r"(\w+) all numbers (\w+) than (\S+)", text).groups()  # type: ignore[union-attr]
    numbers = ast.literal_eval(text[text.index("[") : text.index("]") + 1])
    is_named = {
        "larger": lambda n: Decimal(n) > Decimal(limit),
        "smaller": lambda n: Decimal(n) < Decimal(limit),
    }[larger]
    return str([n for n in numbers if is_named(n) == (verb == "Keep")])


def number_sorting(text: str) -> str:
    direction, numbers = re.match(r"Sort these numbers in (\w+) order: (.*)", text).groups()  # type: ignore[union-attr]
    return str(sorted(numbers.split(", "), key=Decimal, reverse=direction == "descending"))


def power_function(text: str) -> str:
    base, exponent = re.search(r"Compute (\S+)\^(-?\d+)", text).groups()  # type: ignore[union-attr]
    exact = Fraction(base) ** int(exponent)
    return f"{float(exact):.2e}" if abs(exact) != 1 else f"{exact.numerator}.00e+0"


def prime_factorization(text: str) -> str:
    number, factors = integers(text)[0], []
    for candidate in range(2, number + 1):
        while number % candidate == 0:
            factors.append(str(candidate))
            number //= candidate
    return " × ".join(factors)


def rotate_matrix(text: str) -> str:
    rows = grid(text)
    for _ in range(int(re.search(r"by (\d+) degrees", text)[1]) // 90):  # type: ignore[index]
        rows = [list(row) for row in zip(*rows[::-1], strict=True)]
    return rows_to_text(rows)


def rotten_oranges(text: str) -> str:
    cells = {(r, c): cell for r, row in enumerate(grid(text)) for c, cell in enumerate(row)}
    fresh = {place for place, cell in cells.items() if cell == "1"}
    rotten, minutes = {place for place, cell in cells.items() if cell == "2"}, 0
    while caught := {
        place
        for r, c in rotten
        for place in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1))
        if place in fresh
    }:
        fresh, rotten, minutes = fresh - caught, caught, minutes + 1
    return "-1" if fresh else str(minutes)


def simple_equations(text: str) -> str:
    equation = text.split(": ")[1] if ": " in text else text.split(" equation ")[1]
    left, right = equation.split(" = ")
    letter = re.search("[a-z]", left)[0]  # type: ignore[index]
    at = [eval(left, {letter: x}) for x in (0, 1)]
    return str(Fraction(int(right) - at[0], at[1] - at[0]))


def simple_geometry(text: str) -> str:
    sides = int(re.search(r"(\d+)(?: sides|-gon)", text)[1])  # type: ignore[index]
    return str(180 * (sides - 2) - sum(int(a) for a in re.findall(r"(\d+)\.0°", text)))


def spiral_matrix(text: str) -> str:
    rows, spiral = grid(text), []
    while rows:
        spiral += rows.pop(0)
        rows = [list(row) for row in zip(*rows, strict=True)][::-1]
    return " ".join(spiral)


def time_intervals(text: str) -> str | None:
    times = re.findall(r"\b(\d{2}:\d{2}(?::\d{2}(?:\.\d{3})?)?)\b", text)
    dates = re.findall(r"\b(\d{4}-\d{2}-\d{2})\b", text)
    if len(times) == 2 and not re.search(r"\d{4}", text):
        start, end = (datetime.fromisoformat(f"2000-01-01 {time}") for time in times)
        seconds, microseconds = divmod((end - start) // timedelta(microseconds=1), 10**6)
        duration = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return (duration + f".{microseconds // 1000:03}")[: len(times[0])]
    if len(dates) == 2 and not times:
        return f"{(date.fromisoformat(dates[1]) - date.fromisoformat(dates[0])).days} days"
    return None


def binary_alternation(text: str) -> str:
    string = re.search(r"alternating: ([01]+)", text)[1]  # type: ignore[index]
    swaps = [
        sum(a != b for a, b in zip(string, pattern, strict=True)) // 2
        for pattern in (("01" * 99)[: len(string)], ("10" * 99)[: len(string)])
        if Counter(pattern) == Counter(string)
    ]
    return str(min(swaps, default=-1))


def course_schedule(text: str) -> str:
    total = integers(text)[0]
    pairs = ast.literal_eval(text[text.index("[(") : text.index(")]") + 2])
    done: set[int] = set()
    while ready := {
        c for c in range(total) if c not in done and all(b in done for a, b in pairs if a == c)
    }:
        done |= ready
    return str(len(done) == total)


def isomorphic_strings(text: str) -> str:
    one, other = text.strip().split("\n")[-1].split()
    return str(len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other)))


def ransom_note(text: str) -> str:
    note, magazine = (line.split(": ")[1] for line in text.strip().split("\n")[-2:])
    return str(not Counter(note) - Counter(magazine))


def ab(text: str) -> str:
    program = " ".join(re.search(r"program:\n\n(.*)\n", text)[1].split())  # type: ignore[index]
    rules = {"A# #A": "", "B# #B": "", "A# #B": "#B A#", "B# #A": "#A B#"}
    while found := next((pair for pair in rules if pair in program), None):
        program = " ".join(program.replace(found, rules[found], 1).split())
    return program


def caesar_cipher(text: str) -> str | None:
    from reasoning_gym.data import read_data_file

    cipher = text.split("text: ")[1].split(". Provide")[0]
    plain = [w for w in read_data_file("in_the_year_2889.txt").upper().split() if w.isalpha()]
    words, turned = set(plain), cipher
    for _ in range(25):
        turned = re.sub("[A-Z]", lambda m: chr((ord(m[0]) - 64) % 26 + 65), turned)
        if set(turned.split()) <= words:
            return turned
    return None


def string_insertion(text: str) -> str:
    string = text.strip().split(" ")[-1]
    return re.sub("ABCD|BCDE|CDEA|DEAB|EABC", lambda m: m[0] + m[0][0], string)


def word_sorting(text: str) -> str:
    direction, listed = re.search(r"in (\w+) order .*: (.*)", text).groups()  # type: ignore[union-attr]
    return ", ".join(sorted(listed.split(", "), reverse=direction == "descending"))


SOLUTIONS: dict[str, Callable[[str], str | None]] = {
    "ab": ab,
    "base_conversion": base_conversion,
    "basic_arithmetic": lambda text: str(value(text.removeprefix("Calculate ").removesuffix("."))),
    "binary_alternation": binary_alternation,
    "binary_matrix": binary_matrix,
    "bitwise_arithmetic": lambda text: hex(eval(text.split("\n")[1])),
    "caesar_cipher": caesar_cipher,
    "calendar_arithmetic": calendar_arithmetic,
    "chain_sum": lambda text: str(value(text.split(": ")[1].removesuffix(" ="))),
    "count_bits": lambda text: str(f"{integers(text)[1]:b}".count("1")),
    "count_primes": count_primes,
    "course_schedule": course_schedule,
    "decimal_arithmetic": decimal_arithmetic,
    "decimal_chain_sum": lambda text: str(float(value(text.split(": ")[1].removesuffix(" =")))),
    "dice": dice,
    "fraction_simplification": fraction_simplification,
    "gcd": lambda text: str(math.gcd(*integers(text))),
    "isomorphic_strings": isomorphic_strings,
    "largest_island": largest_island,
    "lcm": lambda text: str(math.lcm(*integers(text))),
    "leg_counting": leg_counting,
    "letter_counting": lambda text: str(text.split('"')[3].lower().count(text.split('"')[1])),
    "maze": maze,
    "number_filtering": number_filtering,
    "number_sorting": number_sorting,
    "power_function": power_function,
    "prime_factorization": prime_factorization,
    "products": lambda text: str(value(text.split(": ")[1].split(". Give")[0])),
    "ransom_note": ransom_note,
    "rotate_matrix": rotate_matrix,
    "rotten_oranges": rotten_oranges,
    "simple_equations": simple_equations,
    "simple_geometry": simple_geometry,
    "spell_backward": lambda text: text.split(": ")[-1][::-1],
    "spiral_matrix": spiral_matrix,
    "string_insertion": string_insertion,
    "time_intervals": time_intervals,
    "word_sequence_reversal": lambda text: ", ".join(
        text.strip().split("words: ")[1].split(", ")[::-1]
    ),
    "word_sorting": word_sorting,
}
"""None where a solution does not read that form of the question."""


@pytest.mark.parametrize("dataset", sorted(SOLUTIONS))
def test_a_solution_written_from_the_question_is_judged_correct(dataset: str) -> None:
    has_lines = dataset in ("binary_matrix", "rotate_matrix")
    task = build_task(
        TaskSpec(
            dataset, "reasoning_gym", dataset, "0.1.25", {}, "tags" if has_lines else "last_line"
        )
    )
    solved, wrong = 0, []
    for index in range(300):
        expansion = task.expand(index)
        text = expansion.text.split("\n\nWrite your final answer")[0]
        solution = SOLUTIONS[dataset](text)
        if solution is not None:
            solved += 1
            answer = f"<answer>{solution}</answer>" if has_lines else solution
            if not task.judge(index, answer, True):
                wrong.append((text, expansion.truth, solution))
    assert wrong == []
    assert solved >= 60


DOCUMENT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()


def table_under(heading: str) -> dict[str, list[str]]:
    """First cell -> the other cells of the first table under a heading."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = section[section.index("|---|") :].split("\n\n")[0]
    rows = [row.strip("|").split("|") for row in table.split("\n")[1:]]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert len({first for first, *_ in cells}) == len(cells), "a row twice"
    return {first.removesuffix(" *"): others for first, *others in cells}


def test_the_documents_name_every_allowed_data_set_with_its_rule() -> None:
    rules = {name: row[0] for name, row in table_under("Allowed data sets").items()}
    documented = {
        name: (rule.split()[0].strip(","), "several lines" in rule) for name, rule in rules.items()
    }
    assert documented == {
        name: (audited.rule.__name__.split("_or_")[-1], audited.has_lines)
        for name, audited in ALLOWED.items()
    }


def test_the_documents_say_of_each_data_set_whether_something_is_skipped_or_changed() -> None:
    changed = {name for name, row in table_under("Allowed data sets").items() if row[1]}
    mended = {
        name
        for name, audited in ALLOWED.items()
        if audited.tune or audited.read.__name__ not in MERELY_ADD
    }
    assert mended <= changed


MERELY_ADD = {"as_generated", "cryptarithm", "hanoi", "jugs", "shortest_path", "with_board"}
"""Readers that add what a rule needs, and skip or change nothing."""


def test_the_documents_give_the_reason_for_every_refused_data_set() -> None:
    documented = {name: row[0] for name, row in table_under("Refused data sets").items()}
    assert documented == dict(REFUSED)


def test_the_documents_describe_every_rule() -> None:
    described = set(re.findall(r"^\| (\w+) \| ", DOCUMENT, re.MULTILINE))
    rules = {audited.rule.__name__.split("_or_")[-1] for audited in ALLOWED.values()}
    assert rules <= described


def test_the_documents_count_the_data_sets() -> None:
    counts = f"{len(ALLOWED) + len(REFUSED)} data sets of the library are audited: {len(ALLOWED)} "
    assert counts in DOCUMENT and f"mended, {len(REFUSED)} are refused" in DOCUMENT
