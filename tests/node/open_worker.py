"""A worker as on a machine without Landlock and without libseccomp."""

import errno
import os
import sys
from functools import partial

sys.path.insert(0, sys.argv[1])

from rewards import sandbox
from rewards.worker import main


def lack(*_: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


sandbox.isolate = partial(sandbox.isolate, syscall=lack, load=lack)  # type: ignore[assignment,arg-type]
main()
