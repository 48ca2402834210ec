"""Programs of answers: what is asked of a sandbox of its own, and what comes back."""

import msgspec


class Program(msgspec.Struct, frozen=True, tag="program"):
    """A Python program that an answer holds, and what to run it on."""

    source: str
    inputs: tuple[str, ...]
    """One run each: its standard input; with `function`, the JSON list of its arguments."""
    function: str = ""
    """The function of the program to call, or the method of its class `Solution`; empty to run the
    program as a script."""
    cpu_s: int = 4
    """CPU seconds for all runs together, what isolates them included (0.01 s): a rule of the task,
    so that nodes agree."""
    memory_mib: int = 512
    """Address space."""
    max_output_bytes: int = 65536
    """Of each run; more is an error of the program."""


class Ran(msgspec.Struct, frozen=True):
    """What a program did. All of it is a stranger's text."""

    outputs: tuple[str | None, ...]
    """Of the inputs in order: standard output, or the function's result as JSON. It ends with None
    where a run failed: an exception, an exit status, a limit, no such function. The inputs after
    that one were not run."""
