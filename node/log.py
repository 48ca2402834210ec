"""Where the log goes."""

import logging
from pathlib import Path


def log_to(file: Path | None, also_stderr: bool = True) -> None:
    """Sends the log of our packages to stderr and, where given, to a file."""
    handlers: list[logging.Handler] = [logging.StreamHandler()] if also_stderr else []
    if file is not None:
        handlers.append(logging.FileHandler(file))
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=handlers, force=True
    )
    logging.captureWarnings(True)  # those of libraries would tear the live view
    for package in ("node", "swarm", "rewards"):
        logging.getLogger(package).setLevel(logging.INFO)
