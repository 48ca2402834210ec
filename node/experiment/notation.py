"""How names and figures are written in table.md."""

from collections.abc import Callable, Sequence

from node.escape import printable
from node.experiment.figures import Comparison, Declared, PerSeed, spread

NONE = "-"
"""In a cell without a figure."""
MARKUP = {ord(char): f"\\{char}" for char in "\\|`*_[]<>~&"}


def plain(text: str) -> str:
    """A name from a file, without effect in Markdown."""
    return printable(text).translate(MARKUP)


def arm_name(arm: str, declared: Declared) -> str:
    """Says of a control that it is one."""
    return f"{plain(arm)} (control)" if arm in declared.controls else plain(arm)


def write_spread(
    values: PerSeed, write: Callable[[float], str], with_deviation: bool = True
) -> str:
    """Mean ± sample standard deviation over seeds."""
    found = spread(values)
    if found is None:
        return NONE
    if found.deviation is None or not with_deviation:
        return write(found.mean)
    return f"{write(found.mean)} ± {write(found.deviation)}"


def write_ratio(found: Comparison) -> str:
    """1.08 [0.99, 1.17]"""
    if found.interval is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} [{found.interval[0]:.2f}, {found.interval[1]:.2f}]"


def write_difference(found: Comparison) -> str:
    """+0.046 [-0.010, +0.102]"""
    if found.interval is None:
        return f"{found.value:+.3f}"
    return f"{found.value:+.3f} [{found.interval[0]:+.3f}, {found.interval[1]:+.3f}]"


def write_rate(rate: float) -> str:
    """3e-4, not 0.0003."""
    mantissa, exponent = f"{rate:.6e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def write_count(value: float) -> str:
    """Three digits are enough: 987, 12.3k, 4.56M."""
    if value < 999.5:
        return f"{value:.0f}"
    return f"{value / 1e3:.3g}k" if value < 999.5e3 else f"{value / 1e6:.3g}M"


def two_digits(value: float) -> str:
    """0.50"""
    return f"{value:.2f}"


def three_digits(value: float) -> str:
    """0.500"""
    return f"{value:.3f}"


def percent(value: float) -> str:
    """50%"""
    return f"{value:.0%}"


def enumerated(items: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join((", ".join(items[:-1]), items[-1])) if len(items) > 1 else "".join(items)


def aligned(
    header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)
) -> str:
    """A Markdown table that reads well as plain text; columns that are not `left` are
    right-aligned."""
    widths = [max(3, *map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if number in left else "-" * (width - 1) + ":"
        for number, width in enumerate(widths)
    ]
    return "\n".join(line(cells) for cells in (header, rule, *rows))
