"""`sapo doctor`: what of this machine a node depends on, found by trying, and what to do about it.

One check per subject in CHECKS, one line per finding. A check says what it found and never raises
for what is wrong with the machine. Changes nothing outside of a temporary directory.

Each file of checks says what it does not look at: node/doctor_machine.py, node/doctor_sandbox.py,
node/doctor_network.py, node/doctor_model.py.
"""

from collections.abc import Callable, Iterable, Iterator

from node.config import NodeConfig
from node.doctor_machine import (
    check_clock,
    check_disk,
    check_home,
    check_kernel,
    check_open_files,
    check_packages,
    check_python,
    check_versions,
)
from node.doctor_model import check_gpu, check_memory
from node.doctor_network import check_bootstrap, check_ports, check_reachability
from node.doctor_sandbox import check_programs, check_workers
from node.finding import Finding

Check = Callable[[NodeConfig], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    check_python,
    check_packages,
    check_versions,
    check_gpu,
    check_memory,
    check_kernel,
    check_workers,
    check_programs,
    check_open_files,
    check_disk,
    check_clock,
    check_home,
    check_ports,
)
NETWORK_CHECKS: tuple[Check, ...] = (check_reachability, check_bootstrap)
"""The only ones that talk to other machines."""


def examine(config: NodeConfig, offline: bool = False) -> Iterator[Finding]:
    """Every finding, as soon as it is known; a few seconds in all.

    Args:
        offline: without what talks to other machines.
    """
    for check in (*CHECKS, *(() if offline else NETWORK_CHECKS)):
        yield from check(config)
