"""Every exit status of `sapo`, in one place; docs/exit-codes.md says what to do about each.

A second SIGTERM or Ctrl-C ends a process at once, with 128 and the signal's number, as shells have
it: 143 and 130; so does the first one where nothing is to be finished. A process that is killed
has none.
"""

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended. A number never changes its meaning: others rely on it."""

    DONE = 0
    """All that was asked for; also a node that was told to stop, and did."""
    BUG = 1
    """A traceback: ours."""
    USAGE = 2
    """The command line, a setting, a file or the home is wrong; the message says what to change."""
    NOT_SHOWN = 3
    """It ran, and did not show what it should: the demo, tasks, a swarm file, an experiment."""
    BROKEN = 4
    """The engine or the verifier does not work on this machine."""
    UNREACHABLE = 5
    """No node answers."""
    TWIN = 6
    """Another machine uses this node's key (swarm/twin.py)."""
    BAD_MACHINE = 7
    """The doctor found something bad."""
    DECLINED = 8
    """You were asked, and did not say yes; nothing was done."""
    REFUSED = 9
    """The node answered, and did not do it; the message says why."""


FINAL = frozenset({Exit.USAGE, Exit.BROKEN, Exit.TWIN})
"""Of `sapo run`: another start would end alike until a person has changed something."""
