"""What counts as correct where many answers are: one short checker per puzzle.

As the rules of rules.py: an answer is matched against a strict form first, then followed step by
step. Each docstring says what `given` holds.
"""

import re
from collections.abc import Sequence
from itertools import chain

from rewards.extract import ASCII_SPACE
from rewards.tasks.arithmetic import MalformedExpression, evaluate
from rewards.tasks.rules import Item, read_matrix


def equation(answer: str, item: Item) -> bool:
    """An expression of exactly the given numbers that has the target's value.

    Given: the target, the operators without blanks, the numbers.
    """
    target, operators, *numbers = item.given
    try:
        return evaluate(answer, [int(number) for number in numbers], operators) == int(target)
    except MalformedExpression:
        return False


def palindrome(answer: str, item: Item) -> bool:
    """The truth's letters, each as often, in an order that reads the same backward."""
    return answer == answer[::-1] and sorted(answer) == sorted(item.truth)


_LETTERS = re.compile(r"[A-Z]=[0-9](?:, ?[A-Z]=[0-9])*")


def letter_sum(answer: str, item: Item) -> bool:
    """A=1,B=2: a digit of its own for each letter, none leading as 0, so that the sum is right.

    Given: the words to add, and last their sum.
    """
    if _LETTERS.fullmatch(answer) is None:
        return False
    pairs = re.findall("([A-Z])=([0-9])", answer)
    digits = dict(pairs)
    if not len(pairs) == len(digits) == len(set(digits.values())):
        return False
    if digits.keys() != set("".join(item.given)) or any(digits[w[0]] == "0" for w in item.given):
        return False
    *added, total = (int("".join(digits[letter] for letter in word)) for word in item.given)
    return sum(added) == total


_COLORING = re.compile(
    r"""\{\s*"[0-9]{1,3}"\s*:\s*[0-9]{1,3}(?:\s*,\s*"[0-9]{1,3}"\s*:\s*[0-9]{1,3})*\s*\}""",
    re.ASCII,
)


def coloring(answer: str, item: Item) -> bool:
    """A JSON map from each vertex to a color, different at the ends of every edge.

    Given: the vertices, the colors, and the two ends of each edge, between blanks.
    """
    if _COLORING.fullmatch(answer) is None:
        return False
    pairs = re.findall('"([0-9]+)"[^0-9]+([0-9]+)', answer)
    colors = dict(pairs)
    vertices, allowed, *edges = (part.split() for part in item.given)
    return (
        len(pairs) == len(colors)
        and colors.keys() == set(vertices)
        and set(colors.values()) <= set(allowed)
        and all(colors[one] != colors[other] for one, other in edges)
    )


_BOARD_ROW = re.compile("[Q_](?: [Q_])*")


def queens(answer: str, item: Item) -> bool:
    """The board with queens added until there is one in each row; none attacks another.

    Given: the board.
    """
    board, puzzle = (
        [row.strip(ASCII_SPACE) for row in text.split("\n")] for text in (answer, item.given[0])
    )
    size = len(puzzle)
    if any(_BOARD_ROW.fullmatch(row) is None for row in board):
        return False
    if [len(row.split()) for row in board] != [size] * size:
        return False
    placed, before = (
        {(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row.split()) if cell == "Q"}
        for rows in (board, puzzle)
    )
    lines = [{r for r, _ in placed}, {c for _, c in placed}]
    lines += [{r + c for r, c in placed}, {r - c for r, c in placed}]
    return before <= placed and {len(placed), *map(len, lines)} == {size}


_DISK_MOVE = re.compile(r"Move disk ([0-9]{1,2}) from Peg ([0-9]{1,2}) to Peg ([0-9]{1,2})")


def hanoi(answer: str, item: Item) -> bool:
    """Moves, one a line, after which all disks are on the target peg; none breaks the rules.

    Given: the numbers of disks and of pegs, the start and the target.
    """
    num_disks, num_pegs, start, target = map(int, item.given)
    pegs: dict[int, list[int]] = {peg: [] for peg in range(1, num_pegs + 1)}
    pegs[start] = list(range(num_disks, 0, -1))
    for line in answer.split("\n"):
        move = _DISK_MOVE.fullmatch(line.strip(ASCII_SPACE))
        disk, source, goal = map(int, move.groups()) if move else (0, 0, 0)
        if source not in pegs or goal not in pegs or pegs[source][-1:] != [disk]:
            return False
        if pegs[goal] and pegs[goal][-1] <= disk:
            return False
        pegs[goal].append(pegs[source].pop())
    return len(pegs[target]) == num_disks


_POURING = r'"(?:fill [A-Z]|empty [A-Z]|pour [A-Z]->[A-Z])"'
_POURINGS = re.compile(rf"\[\s*{_POURING}(?:\s*,\s*{_POURING})*\s*\]", re.ASCII)


def jugs(answer: str, item: Item) -> bool:
    """A JSON list of moves after which some jug holds the target.

    Given: the target, and what the jugs A, B, ... hold.
    """
    if _POURINGS.fullmatch(answer) is None:
        return False
    target, *room = map(int, item.given)
    held = [0] * len(room)
    for verb, *letters in re.findall("(fill|empty|pour) ([A-Z])(?:->([A-Z]))?", answer):
        one, *other = (ord(letter) - ord("A") for letter in letters if letter)
        if max(one, *other, 0) >= len(room) or other == [one]:
            return False
        if verb == "pour":
            poured = min(held[one], room[other[0]] - held[other[0]])
            held[one] -= poured
            held[other[0]] += poured
        else:
            held[one] = room[one] if verb == "fill" else 0
    return target in held


_STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def shortest_path(answer: str, item: Item) -> bool:
    """Steps between blanks from * to # around every X, as many as the truth has; or the truth.

    Given: the grid.
    """
    steps, truth = answer.split(" "), item.truth.split(" ")
    if truth[0] not in _STEPS or len(steps) != len(truth):
        return answer == item.truth
    grid = [row.split() for row in item.given[0].split("\n")]
    (r, c), *_ = ((r, c) for r, row in enumerate(grid) for c, sign in enumerate(row) if sign == "*")
    for step in steps:
        down, right = _STEPS.get(step, (len(grid), 0))
        r, c = r + down, c + right
        if not (0 <= r < len(grid) and 0 <= c < len(grid[r])) or grid[r][c] == "X":
            return False
    return grid[r][c] == "#"


def weighted_sums(answer: str, item: Item) -> bool:
    """A matrix of 0 and 1 of the truth's shape, with its weighted sums of rows and columns."""
    rows, truth = read_matrix(answer), read_matrix(item.truth)
    if rows is None or truth is None or list(map(len, rows)) != list(map(len, truth)):
        return False
    if not {cell for row in rows for cell in row} <= {0, 1}:
        return False
    return _weighted(rows) == _weighted(truth)


def _weighted(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Of each row and each column, the sum of the places of its ones, counted from 1."""
    return [
        [sum(place for place, cell in enumerate(line, 1) if cell) for line in lines]
        for lines in (rows, list(zip(*rows, strict=True)))
    ]


def survo(answer: str, item: Item) -> bool:
    """The matrix with each 0 replaced by one of the numbers, so that each row and column but the
    last adds up to its last cell.

    Given: the matrix. The numbers are those that the truth has instead of its zeros.
    """
    rows, truth, puzzle = map(read_matrix, (answer, item.truth, item.given[0]))
    if rows is None or truth is None or puzzle is None:
        return False
    if list(map(len, rows)) != list(map(len, puzzle)):
        return False
    cells, true, before = ([*chain(*matrix)] for matrix in (rows, truth, puzzle))
    if any(old not in (0, new) for new, old in zip(cells, before, strict=True)):
        return False
    lines = [*rows, *zip(*rows, strict=True)]
    return sorted(cells) == sorted(true) and all(sum(line[:-1]) == line[-1] for line in lines)
