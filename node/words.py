"""Durations, sizes and ids as people read them; node/dashboard/words.js says the same."""

from node.escape import printable
from rewards.sandbox import Isolation


def short_id(node_id: str) -> str:
    """A node id as it is shown in tables: its ends."""
    text = printable(node_id)
    return text if len(text) <= 18 else f"{text[:8]}…{text[-6:]}"


def span(seconds: float) -> str:
    """A duration as people say it."""
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(num_bytes: float) -> str:
    """A size as people say it."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:,.0f} B" if unit == "B" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.1f} GiB"


def closed_in(isolation: Isolation) -> str:
    """What the isolation of a process closes, and what it leaves open."""
    abi = isolation.landlock_abi
    files = f"files closed (Landlock {abi})" if abi else "FILES OPEN (no Landlock)"
    rest = "network and processes "
    rest += "closed (seccomp)" if isolation.seccomp else "OPEN (no seccomp)"
    return f"{files}, {rest}"
