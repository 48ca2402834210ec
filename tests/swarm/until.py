"""Waits for what other tasks of the same loop do."""

from collections.abc import Callable

import trio


async def until(condition: Callable[[], object]) -> None:
    """Returns as soon as the condition holds; the test's deadline ends it otherwise."""
    while not condition():
        await trio.sleep(0.01)
