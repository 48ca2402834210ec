"""Which data sets of reasoning-gym may be used, what decides each of them, and why others may not.

A data set is on the list after somebody has read its generator and written down here which rule
decides its answers and what of its output is unsound. None of the library's scorers is called:
several run code from the answer, and many reward one that merely contains the truth. docs/tasks.md
has the tables for people.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rewards.tasks import puzzles, readers, rules, tuners
from rewards.tasks.formulas import MAX_VARIABLES
from rewards.tasks.readers import RawItem
from rewards.tasks.rules import Item, Rule


@dataclass(frozen=True, slots=True)
class Audited:
    """How one data set is used."""

    rule: Rule
    read: Callable[[RawItem], Item | None] = readers.as_generated
    """Turns what the library generated into an item; None for a question that is not sound."""
    tune: Callable[[Any], None] | None = None
    """Changes the data set object once, after it is made."""
    has_lines: bool = False
    """Whether answers have several lines, so that "last_line" cannot mark them."""
    max_params: Mapping[str, int | float] = field(default_factory=dict)
    """Largest values of parameters that would make a question or its judgement too expensive."""


ALLOWED: Mapping[str, Audited] = {
    # the paper's nine
    "arc_1d": Audited(rules.matrix),
    "base_conversion": Audited(rules.exact),
    "basic_arithmetic": Audited(rules.number, read=readers.with_exact_division),
    "bf": Audited(rules.exact),
    "binary_matrix": Audited(rules.matrix, has_lines=True),
    "calendar_arithmetic": Audited(rules.word_or_number, read=readers.within_its_year),
    "decimal_arithmetic": Audited(rules.number, read=readers.rounded_once),
    "fraction_simplification": Audited(rules.fraction),
    "propositional_logic": Audited(
        rules.entailment,
        read=readers.with_example,
        max_params={"max_vars": MAX_VARIABLES, "max_complexity": 5, "max_statements": 10},
    ),
    # numbers
    "binary_alternation": Audited(rules.number),
    "bitwise_arithmetic": Audited(rules.hexadecimal, max_params={"difficulty": 5}),
    "chain_sum": Audited(rules.number),
    "count_bits": Audited(rules.number),
    "count_primes": Audited(rules.number, max_params={"max_n": 100_000}),
    "decimal_chain_sum": Audited(rules.number),
    "dice": Audited(rules.fraction, max_params={"num_dice": 20, "max_dice_size": 100}),
    "gcd": Audited(rules.number),
    "largest_island": Audited(rules.number),
    "lcm": Audited(rules.number),
    "leg_counting": Audited(rules.number),
    "letter_counting": Audited(rules.number),
    "maze": Audited(rules.number),
    "power_function": Audited(rules.scientific, read=readers.exact_power),
    "prime_factorization": Audited(rules.factors, max_params={"max_value": 10**9}),
    "products": Audited(rules.number),
    "rotten_oranges": Audited(rules.number),
    "simple_equations": Audited(rules.number),
    "simple_geometry": Audited(rules.number, read=readers.convex),
    "time_intervals": Audited(rules.exact, read=readers.sound_interval),
    # lists and matrices
    "number_filtering": Audited(rules.number_list),
    "number_sorting": Audited(rules.number_list),
    "rotate_matrix": Audited(rules.matrix, has_lines=True),
    "spiral_matrix": Audited(rules.matrix),
    "string_splitting": Audited(rules.matrix),
    "string_synthesis": Audited(rules.matrix),
    "word_sequence_reversal": Audited(rules.words),
    "word_sorting": Audited(rules.words),
    # words
    "ab": Audited(rules.exact),
    "caesar_cipher": Audited(rules.word),
    "course_schedule": Audited(rules.word),
    "isomorphic_strings": Audited(rules.word, tune=tuners.sort_letters),
    "ransom_note": Audited(rules.word, tune=tuners.sort_letters),
    "spell_backward": Audited(rules.word),
    "string_insertion": Audited(rules.exact),
    # numbers, mended or newly checked
    "aiw": Audited(rules.number, read=readers.without_matilda),
    "circuit_logic": Audited(rules.number),
    "coin_flip": Audited(rules.ratio, read=readers.exact_odds, max_params={"max_trials": 1000}),
    "complex_arithmetic": Audited(rules.complex_number),
    "gsm_symbolic": Audited(rules.number, tune=tuners.use_sound_templates),
    "number_format": Audited(rules.any_number, read=readers.as_displayed),
    "polynomial_multiplication": Audited(
        rules.polynomial,
        tune=tuners.sort_monomials,
        max_params={"max_terms": 8, "max_degree": 8, "max_polynomials": 4},
    ),
    "self_reference": Audited(rules.number),
    "simple_integration": Audited(
        rules.polynomial, read=readers.says_variable, max_params={"max_terms": 10}
    ),
    # words and lists
    "acre": Audited(rules.word, tune=tuners.make_questions_late),
    "color_cube_rotation": Audited(rules.word, read=readers.quarter_turns),
    "emoji_mystery": Audited(rules.exact, read=readers.one_sign),
    "game_of_life_halting": Audited(
        rules.word,
        read=readers.halting,
        max_params={"grid_size_x": 31, "grid_size_y": 31, "max_simulation_steps": 100},
    ),
    "group_anagrams": Audited(rules.groups),
    "knights_knaves": Audited(
        rules.roles, max_params={"n_people": 8, "depth_constraint": 3, "width_constraint": 3}
    ),
    "mahjong_puzzle": Audited(rules.word, read=readers.by_stated_rules),
    "needle_haystack": Audited(
        rules.word, read=readers.one_needle, max_params={"max_num_statements": 1000}
    ),
    "palindrome_partitioning": Audited(rules.partitions, max_params={"max_string_len": 15}),
    "syllogism": Audited(rules.word, read=readers.undisputed),
    "tsumego": Audited(rules.word, read=readers.only_capture, max_params={"max_stones": 15}),
    # matrices
    "arc_agi": Audited(rules.matrix, has_lines=True),
    "game_of_life": Audited(
        rules.arrays,
        max_params={"grid_size_x": 30, "grid_size_y": 30, "simulation_steps": 10},
    ),
    "manipulate_matrix": Audited(rules.matrix, read=readers.says_directions, has_lines=True),
    "mini_sudoku": Audited(rules.matrix, has_lines=True),
    "path_star": Audited(rules.matrix),
    "pool_matrix": Audited(
        rules.number_matrix,
        read=readers.whole_pools,
        has_lines=True,
        max_params={"max_pool_size": 3},
    ),
    "sudoku": Audited(rules.matrix, has_lines=True, max_params={"max_empty": 55}),
    # puzzles of which many answers are correct
    "countdown": Audited(
        puzzles.equation,
        read=readers.countdown,
        tune=tuners.without_sympy,
        max_params={"max_numbers": 10},
    ),
    "cryptarithm": Audited(
        puzzles.letter_sum, read=readers.cryptarithm, max_params={"allow_leading_zero": False}
    ),
    "graph_color": Audited(
        puzzles.coloring,
        read=readers.graph_color,
        max_params={"max_num_vertices": 20, "edge_probability": 0.3},
    ),
    "jugs": Audited(puzzles.jugs, read=readers.jugs, max_params={"num_jugs": 3, "difficulty": 12}),
    "kakurasu": Audited(puzzles.weighted_sums, has_lines=True),
    "n_queens": Audited(
        puzzles.queens, read=readers.with_board, has_lines=True, max_params={"n": 8}
    ),
    "palindrome_generation": Audited(puzzles.palindrome, max_params={"max_length": 1000}),
    "puzzle24": Audited(
        puzzles.equation,
        read=readers.puzzle24,
        tune=tuners.without_sympy,
        max_params={"max_value": 20},
    ),
    "shortest_path": Audited(
        puzzles.shortest_path,
        read=readers.shortest_path,
        max_params={"max_rows": 40, "max_cols": 40},
    ),
    "survo": Audited(
        puzzles.survo,
        read=readers.with_board,
        tune=tuners.follow_seed,
        has_lines=True,
        max_params={"max_board_size": 15},
    ),
    "tower_of_hanoi": Audited(
        puzzles.hanoi,
        read=readers.hanoi,
        has_lines=True,
        max_params={"max_disks": 12, "max_pegs": 8},
    ),
}

_SLOW = "making one question takes seconds"
_MANY = "many answers are correct, and the library gives none to check a checker with"

REFUSED: Mapping[str, str] = {
    "advanced_geometry": "it asks for three decimals and rounds its angles to two",
    "boxnet": _MANY,
    "codeio": "its questions are made by programs whose output depends on PYTHONHASHSEED, and half"
    " of its answers would have to be run",
    "composite": "it has no questions of its own: list the data sets that it would mix",
    "family_relationships": "its answers swap the two persons for nieces, nephews and in-laws, and"
    " names such as River alone tell a person's sex",
    "figlet_font": "its fonts are numbered in the order in which the file system lists them",
    "futoshiki": _SLOW,
    "intermediate_integration": "its answers are formulas that only a computer algebra system can"
    " compare",
    "knight_swap": f"{_SLOW}, and its questions depend on PYTHONHASHSEED",
    "letter_jumble": "several words have the same letters, but one is accepted",
    "list_functions": "one of its rules draws from a generator that no seed sets",
    "modulo_grid": "nine of ten holes hide the same sign, and several patterns fit one grid",
    "number_sequence": "several rules continue a sequence, but one is accepted",
    "polynomial_equations": "it asks for rounding down and rounds its answers to the nearest",
    "quantum_lock": "its text says that every press toggles the light, its answers that only some"
    " do",
    "rearc": "nothing bounds the loops of its 400 generators",
    "rectangle_count": "outlines that cross enclose further rectangles, which it does not count",
    "rubiks_cube": "many answers are correct, and telling them needs a simulated cube",
    "rush_hour": _MANY,
    "sentence_reordering": "several orders of its words make a sentence, but one is accepted, which"
    " puts equal words side by side",
    "sokoban": _SLOW,
    "string_manipulation": "nothing bounds its generator's loop, and it does not say which is the"
    " middle one of an even number of letters",
    "word_ladder": "its answers depend on PYTHONHASHSEED, and it does not say which words count",
    "zebra_puzzles": "making the 64 questions of a digest takes half a minute",
}
"""Every other data set of the library."""


def why_not(dataset: str) -> str:
    """The reason why a data set that is not in ALLOWED is refused."""
    return REFUSED.get(dataset, "the library has no such data set")
