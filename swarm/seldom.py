"""Says in the log that something happens, at most once a minute, and how often it did."""

import logging
import time
from collections.abc import Callable

EVERY_S = 60.0


class Seldom:
    """For one kind of thing. What happened after the last line stands in the next one."""

    def __init__(
        self, logger: logging.Logger, message: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            message: with one %d, for the number.
            clock: seconds that never jump back.
        """
        self._logger = logger
        self._message = message
        self._clock = clock
        self._num = 0
        self._next = float("-inf")

    def note(self, num: int = 1) -> None:
        """It happened so many times more."""
        self._num += num
        if self._num and self._clock() >= self._next:
            self._logger.info(self._message, self._num)
            self._num, self._next = 0, self._clock() + EVERY_S
