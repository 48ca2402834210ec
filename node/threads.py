"""Blocking calls off the trio loop."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The call's result, from a thread. When this is cancelled the thread finishes unheard."""
    return await trio.to_thread.run_sync(  # trio-typing's stubs are older than this argument
        partial(call, *args, **kwargs),
        abandon_on_cancel=True,  # type: ignore[call-arg]
    )


class OneAtATime:
    """`Offload` (swarm/database.py): calls never overlap, and one that began is waited for."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    async def __call__(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result; what it raises is raised here."""
        return await trio.to_thread.run_sync(partial(call, *args, **kwargs), limiter=self._limiter)
