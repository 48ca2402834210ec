"""What runs inside a runner's process: it forks, and each child runs one program of an answer.

The process is Python with what it needs imported already, so that a program waits for a fork, not
for a start. It reads nothing that a stranger wrote. A child takes on limits and isolation
(rewards/sandbox.py), only then reads its program, runs it once per input, and writes a frame with
each output. It knows the inputs, never the outputs that are expected. At the first run that fails
it ends without another word.

The program meets Python as a script does: standard input and output are the files 0 and 1, and
there is `__main__`; only the standard library can be imported. What one run leaves in imported
modules is there in the next: it is the same answer's.
"""

import _sitebuiltins
import atexit
import builtins
import contextlib
import fcntl
import gc
import json
import os
import resource
import signal
import socket
import sys
import sysconfig
import threading
from pathlib import Path
from types import CodeType, ModuleType
from typing import BinaryIO, NoReturn

import msgspec

from rewards import sandbox
from rewards.frames import read_frame, write_frame
from rewards.program import Program

MAX_PROGRAM_BYTES = 2 * 2**20
MAX_MESSAGE_BYTES = 4096

_FIRST_OWN_FD = 32
"""Above those that a program expects, below sandbox.MAX_OPEN_FILES."""


class Launch(msgspec.Struct, frozen=True, tag="launch"):
    """Asks for the id of a child; comes with the ends of two pipes. Negative: an errno."""

    cpu_s: int
    memory_mib: int
    max_file_bytes: int
    """Of its input and of its output."""


class End(msgspec.Struct, frozen=True, tag="end"):
    """Asks for the status with which a child ended, as Popen has it, after killing its group."""

    pid: int


_encode = msgspec.msgpack.Encoder().encode
_decode_message = msgspec.msgpack.Decoder(Launch | End).decode
_decode_program = msgspec.msgpack.Decoder(Program).decode


def main() -> None:
    """Starts and ends children as the runner asks through the socket that is fd 0."""
    _forget_packages()
    readable = sandbox.readable_now()
    gc.collect()
    gc.freeze()  # children share these pages; and their collections are short
    control = socket.socket(fileno=0)
    while True:
        message, fds, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 2)
        if not message:
            return  # the node is gone; children end with this process
        match _decode_message(message):
            case Launch() as launch:
                reply = _launch(launch, (fds[0], fds[1]), readable)
                for fd in fds:
                    os.close(fd)
            case End(pid=pid):
                reply = _end(pid)
        control.send(_encode(reply))


def _forget_packages() -> None:
    """Takes back what the runner added to the module path, and all that came from there."""
    del sys.path[-2:]
    own = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and not (file.startswith(own) and "-packages" not in file):
            del sys.modules[name]


def _launch(launch: Launch, pipes: tuple[int, int], readable: list[Path]) -> int:
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or 1)
    if pid:
        return pid
    try:
        _serve(launch, parent, pipes, readable)
    except BaseException:  # noqa: BLE001  (a child must not go on as its parent)
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _end(pid: int) -> int:
    # Nobody has waited for the leader, so the group's number cannot belong to others.
    for kill in (os.killpg, os.kill):  # it may not have made its group yet
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _serve(launch: Launch, parent: int, pipes: tuple[int, int], readable: list[Path]) -> NoReturn:
    """The life of a child."""
    os.setsid()
    null = _lift(os.open(os.devnull, os.O_RDWR))
    os.dup2(null, 0)  # until now the socket to the node
    os.dup2(null, 1)
    requests, replies = pipes[0], _lift(pipes[1])
    sandbox.confine(launch.memory_mib, parent, threads=True, max_file_bytes=launch.max_file_bytes)
    resource.setrlimit(resource.RLIMIT_CPU, (launch.cpu_s, launch.cpu_s + 1))
    isolation = sandbox.isolate(readable, runs_programs=True)
    os.dup2(null, 2)
    write_frame(replies, _encode(isolation))
    with os.fdopen(requests, "rb") as pipe:
        payload = read_frame(pipe, MAX_PROGRAM_BYTES)
    try:
        if payload is not None:
            _run_all(_decode_program(payload), replies, null)
    except BaseException:  # noqa: BLE001  (a stranger's; and there may be no memory for more)
        os._exit(1)
    os._exit(0)


def _lift(fd: int) -> int:
    lifted = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_OWN_FD)
    os.close(fd)
    return lifted


def _run_all(program: Program, replies: int, null: int) -> None:
    """Returns early, raises or ends the process where a run fails."""
    atexit._clear()
    sys.argv = ["answer.py"]
    for name in ("exit", "quit"):  # as `import site` would
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))
    code = compile(program.source, "answer.py", "exec", dont_inherit=True)
    for text in program.inputs:
        os.dup2(null, 0)  # a program may have closed them
        os.dup2(null, 1)
        if program.function:
            put_out = _call(code, program.function, text)
        else:
            put_out = _run_script(code, text, program.max_output_bytes)
        if len(put_out) > program.max_output_bytes:
            return
        write_frame(replies, put_out)


def _run_script(code: CodeType, text: str, max_bytes: int) -> bytes:
    """What it writes to standard output, and a byte more where that is too much."""
    with _memory_file() as given, _memory_file() as written:
        given.write(text.encode())
        given.seek(0)
        os.dup2(given.fileno(), 0)
        os.dup2(written.fileno(), 1)
        module = _enter_main()
        try:
            exec(code, module.__dict__)
        except SystemExit as exit:
            if exit.code not in (None, 0):
                raise
        _leave_main(module)
        return os.pread(written.fileno(), max_bytes + 1, 0)


def _call(code: CodeType, function: str, text: str) -> bytes:
    """The result of the program's function, or method of its Solution, as JSON."""
    module = _enter_main()
    exec(code, module.__dict__)
    named = module.__dict__
    found = named[function] if function in named else getattr(named["Solution"](), function)
    result = json.dumps(found(*json.loads(text)), allow_nan=False).encode()
    _leave_main(module)
    return result


def _memory_file() -> BinaryIO:
    return open(os.memfd_create("file"), "w+b", buffering=0)


def _enter_main() -> ModuleType:
    """A `__main__` that is empty, and streams upon fd 0 and 1 as they are now."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout)
    return module


def _leave_main(module: ModuleType) -> None:
    """What Python does at the end of a script: threads end, buffers are written."""
    written = sys.__stdout__
    while others := [thread for thread in threading.enumerate() if _is_waited_for(thread)]:
        others[0].join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, written):
        if stream is not None and not stream.closed:
            stream.flush()
    module.__dict__.clear()
    gc.collect()  # writes what files still hold that nobody closed


def _is_waited_for(thread: threading.Thread) -> bool:
    return not thread.daemon and thread is not threading.main_thread()
