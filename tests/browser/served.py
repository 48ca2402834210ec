"""API and page of a made-up node, served from a thread of its own, for a browser in this one."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import trio

from node.api import create_app, open_listener, serve_api
from node.api_actions import Changeable
from node.api_reads import Readable

TOKEN = "t" * 43


class Served:
    """Served until `stop`; `start` serves again on the same port."""

    def __init__(self, node: Readable, actions: Changeable | None = None) -> None:
        self.node = node
        self._actions = actions
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def way_in(self) -> str:
        """What `sapo status` prints."""
        return f"{self.url}/?token={TOKEN}"

    def start(self) -> None:
        listener = open_listener("127.0.0.1", self._port)
        self._port = listener.getsockname()[1]
        app = create_app(self.node, TOKEN, self._actions)
        has_begun = threading.Event()

        async def run() -> None:
            self._stop, self._trio = trio.Event(), trio.lowlevel.current_trio_token()
            has_begun.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.node.news.watch, self.node.snapshot)
                await serve_api(app, listener, stop=self._stop)
                nursery.cancel_scope.cancel()

        self._thread = threading.Thread(target=trio.run, args=(run,))
        self._thread.start()
        assert has_begun.wait(30)

    def do(self, call: Callable[[], object]) -> None:
        """In the server's own thread."""
        trio.from_thread.run_sync(call, trio_token=self._trio)

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(trio.RunFinishedError):
                self.do(self._stop.set)
        self._thread.join()


@contextlib.contextmanager
def serving(node: Readable, actions: Changeable | None = None) -> Iterator[Served]:
    served = Served(node, actions)
    try:
        yield served
    finally:
        served.stop()
