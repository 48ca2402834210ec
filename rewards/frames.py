"""Messages on the pipe of a process: 4 bytes length (big-endian), then the payload."""

import os
import struct
from typing import BinaryIO


def frame(payload: bytes) -> bytes:
    """`payload` with its length in front."""
    return struct.pack(">I", len(payload)) + payload


def read_frame(pipe: BinaryIO, max_bytes: int) -> bytes | None:
    """The next frame's payload; None where the other end was closed.

    Raises:
        ValueError: it is longer than `max_bytes`.
    """
    header = pipe.read(4)
    if len(header) < 4:
        return None
    size = struct.unpack(">I", header)[0]
    if size > max_bytes:
        raise ValueError(f"a message of {size} bytes")
    payload = pipe.read(size)
    return payload if len(payload) == size else None


def write_frame(pipe: int, payload: bytes) -> None:
    """Writes all of it, however long that takes.

    Raises:
        BrokenPipeError: the other end was closed.
    """
    rest = memoryview(frame(payload))
    while rest:
        rest = rest[os.write(pipe, rest) :]
