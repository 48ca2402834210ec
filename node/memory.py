"""Resident memory of this process and of what it started, read from /proc (Linux)."""

from pathlib import Path

PROC = Path("/proc")


def memory_mib(pid: int | str = "self", *, peak: bool = False) -> float:
    """Resident MiB of one process now, or the most it ever had; 0 where it is gone."""
    name = "VmHWM:" if peak else "VmRSS:"
    try:
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError):
        return 0.0
    return 0.0


def descendants(pid: int | str) -> list[int]:
    """Process ids of children, their children and so on; empty where the kernel does not say."""
    found: list[int] = []
    for file in (PROC / str(pid) / "task").glob("*/children"):
        try:
            children = [int(word) for word in file.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def memory_by_part(learner_pid: int | None) -> dict[str, float]:
    """MiB of "control", "learner" (peak, its engine's processes included) and "verifier"."""
    theirs = [learner_pid, *descendants(learner_pid)] if learner_pid else []
    others = [pid for pid in descendants("self") if pid not in theirs]
    parts = {
        "control": memory_mib(peak=True),
        "learner": sum(memory_mib(pid, peak=True) for pid in theirs),
        "verifier": sum(memory_mib(pid) for pid in others),
    }
    return {name: round(mib, 1) for name, mib in parts.items()}
