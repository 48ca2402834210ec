"""Whether the node's control process answers: exit status 0 or 1. For HEALTHCHECK of the image.

It asks /health at the address that the node wrote into its home. Whether the learner works is asked
of /ready, and no reason to restart a container: the learner has a supervisor.
"""

import os
import sys
import urllib.request
from pathlib import Path


def main() -> int:
    """Asks once."""
    try:
        address = (Path(os.environ["SAPO_HOME"]) / "api-address").read_text().strip()
        straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with straight.open(f"{address}/health", timeout=8) as answer:
            return 0 if answer.status == 200 else 1
    except (KeyError, OSError, ValueError) as error:
        sys.stderr.write(f"not healthy: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
