"""A TCP proxy that is a bad network: late, stalling, dribbling, cut.

TCP repairs the loss of packets, so what is left of it for a node is what this does: bytes that come
late, all at once after a while, or never, with the connection. (The kernel here has no netem.)
"""

import queue
import random
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

PIECE = 16_384
MAX_IN_FLIGHT = 64
"""Pieces of one direction that are on their way; then the sender is slowed, as by TCP."""


@dataclass(slots=True)
class Weather:
    """Of all connections of one proxy. May be changed from any thread while they are open."""

    delay_s: float = 0.0
    """One way."""
    jitter_s: float = 0.0
    """At most so much more."""
    is_stalled: bool = False
    """Nothing gets through, and nothing is lost."""
    dribble_s: float = 0.0
    """Between single bytes of what the node behind it says; 0: does not dribble."""


class TcpProxy:
    """Listens on a port of 127.0.0.1 and passes on to another, in a thread of its own."""

    def __init__(self, target: int) -> None:
        self.weather = Weather()
        self.num_connections = self.num_cut = 0
        self.num_bytes = 0
        """Passed on, in both directions."""
        self._target = target
        self._open: set[trio.SocketStream] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self._listener.getsockname()[1])
        started: queue.Queue[trio.lowlevel.TrioToken] = queue.Queue()
        self._stop: trio.CancelScope
        self._thread = threading.Thread(target=trio.run, args=(self._run, started), daemon=True)
        self._thread.start()
        self._token = started.get()

    def cut(self) -> None:
        """Ends all its connections, with a reset."""
        trio.from_thread.run_sync(self._cut, trio_token=self._token)

    def close(self) -> None:
        """Ends it."""
        trio.from_thread.run_sync(self._stop.cancel, trio_token=self._token)
        self._thread.join()

    def _cut(self) -> None:
        for stream in list(self._open):
            self.num_cut += 1
            linger = (1).to_bytes(4, "little") + bytes(4)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            stream.socket.close()

    async def _run(self, started: "queue.Queue[trio.lowlevel.TrioToken]") -> None:
        self._listener.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
        with trio.CancelScope() as self._stop:
            started.put(trio.lowlevel.current_trio_token())
            await trio.serve_listeners(self._pass_on, [listener])

    async def _pass_on(self, near: trio.SocketStream) -> None:
        self.num_connections += 1
        try:
            async with near, self._connected() as far, trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, near, far, False, nursery)
                nursery.start_soon(self._copy, far, near, True, nursery)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._open.discard(near)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[trio.SocketStream]:
        async with await trio.open_tcp_stream("127.0.0.1", self._target) as far:
            self._open.add(far)
            try:
                yield far
            finally:
                self._open.discard(far)

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, is_back: bool, both: trio.Nursery
    ) -> None:
        """In order, each piece as late as it is; ends both directions."""
        send, receive = trio.open_memory_channel[tuple[float, bytes]](MAX_IN_FLIGHT)

        async def read() -> None:
            async with send:
                while piece := await source.receive_some(PIECE):
                    late_s = self.weather.delay_s + random.uniform(0, self.weather.jitter_s)
                    await send.send((trio.current_time() + late_s, piece))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async for at, piece in receive:
                await trio.sleep_until(at)
                while self.weather.is_stalled:
                    await trio.sleep(0.02)
                await self._send(sink, piece, is_back)
        both.cancel_scope.cancel()

    async def _send(self, sink: trio.SocketStream, piece: bytes, is_back: bool) -> None:
        self.num_bytes += len(piece)
        sent = 0
        while is_back and self.weather.dribble_s and sent < len(piece):
            await sink.send_all(piece[sent : sent + 1])
            sent += 1
            await trio.sleep(self.weather.dribble_s)
        await sink.send_all(piece[sent:])
