"""What the learner is told while it works: to stop, to pause, to write a checkpoint.

Heard by the thread that reads the pipe, heeded by the one that makes rounds, between two of them.
"""

import threading


class Orders:
    """For any thread."""

    def __init__(self) -> None:
        self.stop_asked = threading.Event()
        self._news = threading.Condition()
        self._is_paused = False
        self._wants_checkpoint = False

    @property
    def is_paused(self) -> bool:
        """Whether no new round is to begin."""
        return self._is_paused

    def stop(self) -> None:
        """Ends the rounds; also a pause."""
        with self._news:
            self.stop_asked.set()
            self._news.notify_all()

    def pause(self, is_paused: bool) -> None:
        """Begins or ends a pause."""
        with self._news:
            self._is_paused = is_paused
            self._news.notify_all()

    def ask_checkpoint(self) -> None:
        """Has one written before the next round begins, or now where none is to begin."""
        with self._news:
            self._wants_checkpoint = True
            self._news.notify_all()

    def take_checkpoint(self) -> bool:
        """Whether one was asked for since the last call."""
        with self._news:
            wants, self._wants_checkpoint = self._wants_checkpoint, False
            return wants

    def wait_in_pause(self) -> None:
        """Returns when there is no pause (any more), or something else to do."""
        with self._news:
            self._news.wait_for(
                lambda: not self._is_paused or self._wants_checkpoint or self.stop_asked.is_set()
            )
