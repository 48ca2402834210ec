r"""Whether two LaTeX expressions are the same mathematics: math-verify, made fit for strangers.

math_verify.parse must not read such text: plain expressions go through sympy.parse_expr, which is
eval; and \text{...} makes any characters the name of a symbol, which sympy writes into Python
source and runs when it evaluates an infinite sum (sympy.core.evalf.hypsum). So here:
- signs and commands are those of a list: no sums, integrals, limits, derivatives, no function
  that sympy computes while it reads. \text{} holds words only, and a name is three letters at most
- numbers are made of their digits; neither parse_expr nor sympify gets any text
- length, depth, exponents, factorials, and what an expression grows to when multiplied out are
  bounded; an answer has no variable that the truth has not; and numbers that lie apart are unequal
  without more ado. Only then does the library simplify

Not covered: the time of what is left. An answer takes 3 ms and mostly less than 50; under a truth
that has variables, powers of sines and equations take the library seconds, nested roots in an
equation have no end, and the verifier's deadline ends them. The library's timeouts (SIGALRM) are
off. A worker's first expressions of a kind take up to 0.3 s: the parser learns its grammar.

The library decides by heuristics: 0.333333 equals 1/3; 50\% equals 50 and 0.5; "x = 5" equals 5;
units after a number are dropped; letters in a row are a product. Other versions of it and of
sympy may decide otherwise.
"""

import logging
import math
import re
from collections.abc import Callable
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy, is_expr_of_only_symbols
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from math_verify.grader import should_treat_as_complex, verify

from rewards.extract import ASCII_SPACE

MAX_CHARS = 300
MAX_DEPTH = 5
"""Of brackets within each other. The library's parser takes exponential time in it."""
MAX_TERMS = 64
"""Of a sum, once everything is multiplied out and over one denominator."""
MAX_BITS = 100_000
"""Of all integers together, once powers are calculated."""
MAX_EXPONENT = 10_000
MAX_DEGREE = 100
"""Of a power whose base has variables."""
MAX_COMMAS = 24
MAX_SET_OPERATIONS = 4

_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="none", equations=False
)

_COMMANDS = (
    "frac sqrt pi cdot times div pm mp circ degree infty left right quad qquad "
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp "
    "le leq leqslant ge geq geqslant lt gt ne neq in cup cap setminus emptyset varnothing "
    "lbrace rbrace lbrack rbrack langle rangle lfloor rfloor lceil rceil lvert rvert vert "
    "alpha beta delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi rho sigma tau phi "
    "varphi chi psi omega Delta Theta Lambda Sigma Phi Psi Omega"
)
_TOKEN = re.compile(
    r"\\(?:text|mbox)\s*\{[A-Za-z0-9 .,-]*\}"
    r"|\\mathbb\s*\{[NZQRC]\}"
    r"|\\(?:begin|end)\{[bp]?matrix\}"
    r"|\\binom\{[0-9]{1,3}\}\{[0-9]{1,3}\}"
    r"|(?:[0-9]{1,3}|(?<![A-Za-z])[A-Za-z])!(?!!)"
    rf"|\\(?:{_COMMANDS.replace(' ', '|')})(?![A-Za-z])"
    r"|\\[,;:! {}%$\\]"
    r"|[0-9]+(?![0-9!])|(?<![A-Za-z])[A-Za-z]{1,3}(?![A-Za-z!])"
    r"|[-+](?! *[-+] *[-+])|[*/=<>^_(){}\[\]|,.;:%& ]"
)
"""Has one way to match any text, so that a text is split in linear time."""
_OPENING = {"(", "[", "{", r"\{", r"\lbrace", r"\lbrack", r"\langle", r"\lfloor", r"\lceil"}
_CLOSING = {")", "]", "}", r"\}", r"\rbrace", r"\rbrack", r"\rangle", r"\rfloor", r"\rceil"}

# it warns of timeouts that are off, and a stranger's text has no place in a log
logging.getLogger("math_verify").setLevel(logging.CRITICAL)


class MalformedLatex(ValueError):
    """Not an expression within the limits."""


def equals(truth: str) -> Callable[[str], bool]:
    """A function that says whether an answer is the same mathematics as the truth.

    Raises:
        MalformedLatex: the truth is no expression within the limits.
    """
    gold = _parse(truth)

    def is_equal(answer: str) -> bool:
        if answer == truth:
            return True
        try:
            found = _parse(answer)
        except MalformedLatex:
            return False
        if _strange_names(found, gold) or _are_far_apart(found, gold):
            return False
        return bool(verify(gold, found, timeout_seconds=None))

    return is_equal


class _Reader(_Latex2Sympy):  # type: ignore[misc]  # it has no types
    """The library's converter, whose numbers would go through sympify and so through eval."""

    def parse_number(self, text: str) -> sympy.Number:
        digits, _, exponent = text.replace(",", "").lower().partition("e")
        if exponent and abs(int(exponent)) > MAX_CHARS:
            raise MalformedLatex("a number of too many digits")
        if digits.isdigit() and not exponent:
            return sympy.Integer(int(digits))
        return sympy.Float(f"{digits}e{exponent or 0}")

    def convert_expr(self, expr: Any) -> Any:
        node = super().convert_expr(expr)
        _check_size(node)  # here already: the ends of an interval are compared at once
        return node


def _parse(text: str) -> Any:
    """The expression of a text.

    Raises:
        MalformedLatex: it is none, or beyond the limits.
    """
    if len(text) > MAX_CHARS or not text.isascii():
        raise MalformedLatex(f"longer than {MAX_CHARS} characters, or not ASCII")
    latex = normalize_latex(_unwrapped(text), _NORMALIZATION)
    _check_tokens(latex)  # after the normalization: it turns \\\\sum into \\sum
    if _THOUSANDS.fullmatch(latex):
        latex = latex.replace(",", "." if latex.lstrip("-").startswith("0") else "")
    try:
        parsed = _Reader(is_real=not should_treat_as_complex(latex)).parse(latex)
    except (MemoryError, MalformedLatex):
        raise
    except Exception as error:  # what the library raises for a syntax error
        raise MalformedLatex("the library cannot read it") from error
    if not isinstance(parsed, sympy.Basic | sympy.MatrixBase) or parsed.has(sympy.nan, sympy.zoo):
        raise MalformedLatex("no expression, or not defined")
    _check_size(parsed)
    return parsed


def _unwrapped(text: str) -> str:
    r"""Without a full stop at the end, and without \( \) or \[ \] around; the library drops $."""
    text = text.strip(ASCII_SPACE).removesuffix(".")
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opening) and text.endswith(closing):
            return text[2:-2]
    return text


_THOUSANDS = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")


def _check_tokens(latex: str) -> None:
    if latex.count(",") + latex.count(";") > MAX_COMMAS:
        raise MalformedLatex(f"more than {MAX_COMMAS} commas")
    if sum(map(latex.count, (r"\cup", r"\cap", r"\setminus"))) > MAX_SET_OPERATIONS:
        raise MalformedLatex(f"more than {MAX_SET_OPERATIONS} operations on sets")
    at = depth = 0
    while at < len(latex):
        token = _TOKEN.match(latex, at)
        if token is None:
            raise MalformedLatex(f"no sign, command or name at {at}")
        depth += (token[0] in _OPENING) - (token[0] in _CLOSING)
        if depth > MAX_DEPTH:
            raise MalformedLatex(f"nested deeper than {MAX_DEPTH}")
        at = token.end()


def _check_size(node: Any) -> None:
    _terms(node)
    if _bits(node) > MAX_BITS:
        raise MalformedLatex("its numbers are too large once powers are calculated")


def _terms(node: Any) -> tuple[int, int]:
    """Terms of numerator and denominator, at most, once all is multiplied out; of what is no sum,
    product or power the most of any part."""
    parts = [_terms(part) for part in _parts(node)]
    over, under = zip(*parts, strict=True) if parts else ((1,), (1,))
    if getattr(node, "is_Add", False):
        terms = sum(a * math.prod(under) // b for a, b in parts), math.prod(under)
    elif getattr(node, "is_Mul", False):
        terms = math.prod(over), math.prod(under)
    elif getattr(node, "is_Pow", False):
        power = _exponent(node.exp)
        if getattr(node.base, "is_Matrix", False):
            raise MalformedLatex("a power of a matrix")
        if abs(power) > MAX_DEGREE and node.base.free_symbols:
            raise MalformedLatex(f"of a degree above {MAX_DEGREE}")
        terms = _power_terms(over[0], abs(power)), _power_terms(under[0], abs(power))
        if power < 0:
            terms = terms[1], terms[0]
    else:
        terms = max(over), max(under)
    if max(terms) > MAX_TERMS:
        raise MalformedLatex("it has too many terms when multiplied out")
    return terms


def _power_terms(num_terms: int, power: int) -> int:
    return math.comb(num_terms + power - 1, power) if num_terms > 1 else 1


def _exponent(exponent: Any) -> int:
    """What a power multiplies its base by; 1 where that depends on a variable."""
    if exponent.free_symbols:
        return 1
    value = complex(exponent.evalf(5)).real
    if not abs(value) <= MAX_EXPONENT:
        raise MalformedLatex(f"an exponent above {MAX_EXPONENT}")
    return math.ceil(value) if value > 0 else math.floor(value)


def _bits(node: Any) -> int:
    """Of all numbers in it together, once powers are calculated; roughly, and never too few."""
    match node:
        case sympy.Rational():
            return int(node.p).bit_length() + int(node.q).bit_length()
        case sympy.Float():
            return abs(math.frexp(node)[1])
        case sympy.Pow():
            return _bits(node.base) * max(1, abs(_exponent(node.exp))) + _bits(node.exp)
        case sympy.exp() | sympy.sinh() | sympy.cosh():
            return 2 * abs(_exponent(node.args[0])) + _bits(node.args[0])
        case sympy.factorial():
            bits = _bits(node.args[0])
            return bits << min(bits, 20)
    return sum(map(_bits, _parts(node))) or 2


def _parts(node: Any) -> Any:
    return node.flat() if isinstance(node, sympy.MatrixBase) else node.args


def _strange_names(found: Any, gold: Any) -> bool:
    """Whether the answer has variables that the truth has not, other than names it gives to what
    follows an equals sign."""
    given = [
        equation.lhs.free_symbols
        for equation in found.atoms(sympy.Eq)
        if is_expr_of_only_symbols(equation.lhs)
    ]
    return not found.free_symbols <= gold.free_symbols.union(*given)


def _are_far_apart(found: Any, gold: Any) -> bool:
    """Whether both are numbers, and differ by more than any rounding."""
    for side in (found, gold):
        is_matrix = getattr(side, "is_Matrix", False)
        if is_matrix or not isinstance(side, sympy.Expr) or side.free_symbols:
            return False
        if side.has(sympy.UnevaluatedExpr):  # a percentage, which equals its number, too
            return False
    try:
        one, other = complex(found.evalf(20)), complex(gold.evalf(20))
        return abs(one - other) > 1e-3 + 1e-9 * abs(other)  # false where one is no number
    except (ArithmeticError, TypeError, ValueError):
        return False
