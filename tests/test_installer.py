"""./demo, ./test and deploy/install.sh on made-up machines: stub programs that record their calls.

Each machine is a PATH of its own, so any program can be missing from it, and nothing is installed.
Not covered: the packages themselves; CI installs them for real before it comes here.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ["awk", "cat", "cp", "date", "dirname", "du", "echo", "env", "flock", "grep", "mkdir"]
TOOLS += ["readlink", "rm", "sh", "sha256sum", "sleep", "tail", "true", "xargs"]
NEEDS = {
    "make": "make",
    "gcc": "build-essential libgmp-dev",
    "g++": "build-essential libgmp-dev",
    "gmp": "libgmp-dev",
    "venv": "python3.11-venv",
    "headers": "python3.11-dev",
    "seccomp": "libseccomp2",
}
EVERYTHING = "make build-essential libgmp-dev python3.11-venv python3.11-dev libseccomp2"

RECORD = 'echo "${0##*/} $*" >>"$MACHINE/calls"\n'
GCC = 'cat >/dev/null; test ! -e "$MACHINE/no-gmp"\n'
APT_GET = RECORD + dedent("""\
    test ! -e "$MACHINE/apt-get-fails" || exit 100
    test "$1" = install || exit 0
    for package in "$@"; do
        case $package in
            make) cp "$MACHINE/spare/make" "$MACHINE/bin/" ;;
            build-essential) cp "$MACHINE/spare/gcc" "$MACHINE/spare/g++" "$MACHINE/bin/" ;;
            libgmp-dev) rm -f "$MACHINE/no-gmp" ;;
            python3) cp "$MACHINE/spare/python3" "$MACHINE/bin/" ;;
            python*-venv) rm -f "$MACHINE/no-venv" ;;
            python*-dev) rm -f "$MACHINE/no-headers" ;;
            libseccomp2) rm -f "$MACHINE/no-seccomp" ;;
        esac
    done
    """)
PYTHON = dedent("""\
    case "$*" in
        "-c "*version_info*) echo "VERSION $0" ;;
        "-")
            cat >/dev/null
            test ! -e "$MACHINE/no-venv" || echo python3.11-venv
            test ! -e "$MACHINE/no-headers" || echo python3.11-dev
            test ! -e "$MACHINE/no-seccomp" || echo libseccomp2 ;;
        "-m venv "*)
            echo "venv" >>"$MACHINE/calls"
            mkdir -p "$3/bin"
            cp "$0" "$3/bin/python"
            cp "$MACHINE/spare/sapo" "$3/bin/sapo"
            echo "version = VERSION" >"$3/pyvenv.cfg" ;;
        "-m pip --version") ;;
        "-c "*) echo "import check" >>"$MACHINE/calls" ;;
        "-m "*)
            echo "$*" >>"$MACHINE/calls"
            . "$MACHINE/pip-accident" ;;
        *) exit 9 ;;
    esac
    """)


class Machine:
    """A checkout, a PATH, and what was called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / "bin"
        self.spare = path / "spare"
        self.checkout = path / "a place" / "sapo swarm"
        for folder in (self.bin, self.spare, self.checkout / "deploy"):
            folder.mkdir(parents=True)
        for name in ("demo", "test", "pyproject.toml", "deploy/install.sh"):
            shutil.copy(ROOT / name, self.checkout / name)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, f"{tool} is part of every Debian"
            (self.bin / tool).symlink_to(found)
        (path / "pip-accident").touch()
        (path / "calls").touch()
        self.put("make", "")
        self.put("gcc", GCC)
        self.put("g++", "")
        self.put("apt-get", APT_GET)
        self.put_python("python3", "3 11")
        self.put("sapo", RECORD, self.spare)
        self.user("root")

    def put(self, name: str, script: str, folder: Path | None = None) -> None:
        """A program on this machine; a copy of it lies ready to be installed."""
        for place in [folder] if folder else [self.bin, self.spare]:
            (place / name).write_text("#!/bin/sh\n" + script)
            (place / name).chmod(0o755)

    def put_python(self, name: str, version: str) -> None:
        self.put(name, PYTHON.replace("VERSION", version))

    def user(self, name: str) -> None:
        self.put("id", f"echo {0 if name == 'root' else 1000}\n")

    def lacks(self, thing: str) -> None:
        if thing in ("gmp", "venv", "headers", "seccomp"):
            (self.path / f"no-{thing}").touch()
        else:
            (self.bin / thing).unlink()

    def pip(self, script: str) -> None:
        """What happens inside of `pip` (and of `pytest`), as shell; "" is success."""
        (self.path / "pip-accident").write_text(script)

    def start(self, *command: str | Path, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(word) for word in command],
            env={"PATH": str(self.bin), "MACHINE": str(self.path), "CI": "true", **environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str | Path, **environment: str) -> tuple[int, str]:
        """Exit status and all output."""
        process = self.start(*command, **environment)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def demo(self, *arguments: str, **environment: str) -> tuple[int, str]:
        return self.run(self.checkout / "demo", *arguments, **environment)

    def test(self, *arguments: str, **environment: str) -> tuple[int, str]:
        return self.run(self.checkout / "test", *arguments, **environment)

    def plan(self, **environment: str) -> tuple[int, str]:
        return self.run("sh", self.checkout / "deploy/install.sh", "--plan", **environment)

    def calls(self) -> list[str]:
        lines = (self.path / "calls").read_text().splitlines()
        return [line.removeprefix("-m ").replace(" --no-compile", "") for line in lines]

    def forget(self) -> None:
        (self.path / "calls").write_text("")

    def apt_get_installed(self) -> str | None:
        flags = "apt-get install -y -q --no-install-recommends "
        lines = [call.removeprefix(flags) for call in self.calls() if call.startswith(flags)]
        assert len(lines) <= 1
        return lines[0] if lines else None

    def is_untouched(self) -> bool:
        return not self.calls() and not (self.checkout / ".venv").exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def test_a_complete_machine_installs_no_os_package_and_runs_the_demo(machine: Machine) -> None:
    status, output = machine.demo("--engine", "two words")
    assert status == 0, output
    assert machine.calls() == [
        "venv",
        "pip install pip>=25",
        "pip install torch==2.13.0+cpu",
        "pip install -e .[cpu] torch==2.13.0+cpu",
        "pip uninstall -y torchvision torchaudio torchcodec",
        "import check",
        "sapo demo --engine two words",
    ]


def test_the_tests_get_what_they_need_besides(machine: Machine) -> None:
    status, output = machine.test("-k", "name")
    assert status == 0, output
    assert "pip install -e .[cpu,dev] torch==2.13.0+cpu" in machine.calls()
    assert machine.calls()[-1] == "pytest -k name"


def test_all_tests_run_on_several_cores_but_for_those_of_whole_nodes(machine: Machine) -> None:
    status, output = machine.test()
    assert status == 0, output
    assert machine.calls()[-2:] == [
        "pytest -n logical --maxprocesses 4 --dist loadfile --ignore tests/integration",
        "pytest tests/integration",
    ]


@pytest.mark.parametrize("thing", NEEDS)
def test_root_gets_exactly_the_missing_package(machine: Machine, thing: str) -> None:
    machine.lacks(thing)
    status, output = machine.demo()
    assert status == 0, output
    assert machine.apt_get_installed() == NEEDS[thing]
    assert machine.calls()[-1] == "sapo demo"


def test_root_gets_all_that_is_missing_at_once(machine: Machine) -> None:
    for thing in NEEDS:
        machine.lacks(thing)
    status, output = machine.demo()
    assert status == 0, output
    assert machine.apt_get_installed() == EVERYTHING


@pytest.mark.parametrize("thing", NEEDS)
def test_without_root_the_missing_package_is_named_and_nothing_touched(
    machine: Machine, thing: str
) -> None:
    machine.user("somebody")
    machine.lacks(thing)
    status, output = machine.demo()
    assert status == 3
    assert f"apt-get install -y {NEEDS[thing]}\n" in output
    assert machine.is_untouched()


def test_without_root_all_that_is_missing_is_named_at_once(machine: Machine) -> None:
    machine.user("somebody")
    for thing in NEEDS:
        machine.lacks(thing)
    status, output = machine.test()
    assert status == 3
    assert f"sudo apt-get install -y {EVERYTHING}\n" in output
    assert machine.is_untouched()


def test_without_root_a_complete_machine_is_enough(machine: Machine) -> None:
    machine.user("somebody")
    status, output = machine.demo()
    assert status == 0, output
    assert machine.apt_get_installed() is None


def test_sudo_is_used_where_it_asks_for_no_password(machine: Machine) -> None:
    machine.user("somebody")
    machine.lacks("gmp")
    machine.put("sudo", 'test "$1" = -n && shift && exec "$@"\n')
    status, output = machine.demo()
    assert status == 0, output
    assert machine.apt_get_installed() == "libgmp-dev"


def test_sudo_that_asks_for_a_password_is_left_alone(machine: Machine) -> None:
    machine.user("somebody")
    machine.lacks("gmp")
    machine.put("sudo", "exit 1\n")
    status, _ = machine.demo()
    assert status == 3
    assert machine.is_untouched()


def test_a_system_without_apt_get_gets_the_names(machine: Machine) -> None:
    machine.lacks("apt-get")
    machine.lacks("gmp")
    status, output = machine.demo()
    assert status == 3
    assert "libgmp-dev" in output
    assert machine.is_untouched()


def test_a_failing_apt_get_ends_the_installation(machine: Machine) -> None:
    machine.lacks("gmp")
    (machine.path / "apt-get-fails").touch()
    status, output = machine.demo()
    assert status == 1
    assert "apt-get install failed" in output
    assert "venv" not in machine.calls()


def test_a_package_that_apt_get_cannot_bring_is_named(machine: Machine) -> None:
    machine.lacks("headers")
    machine.put("apt-get", "")
    status, output = machine.demo()
    assert status == 1
    assert "still missing after apt-get: python3.11-dev" in output
    assert machine.is_untouched()


def test_a_machine_without_any_python_gets_one(machine: Machine) -> None:
    machine.lacks("python3")
    status, output = machine.demo()
    assert status == 0, output
    assert machine.apt_get_installed() == "python3 python3-venv python3-dev libseccomp2"


@pytest.mark.parametrize("version", ["3 10", "3 14"])
def test_a_python_that_does_not_fit_is_refused(machine: Machine, version: str) -> None:
    machine.put_python("python3", version)
    status, output = machine.demo()
    assert status == 1
    assert "Python 3.11 to 3.13 is needed" in output
    assert f"python3 is {version.replace(' ', '.')}" in output
    assert "SAPO_PYTHON=" in output
    assert machine.is_untouched()


def test_a_fitting_python_beside_one_that_does_not_fit_is_taken(machine: Machine) -> None:
    machine.put_python("python3", "3 10")
    machine.put_python("python3.12", "3 12")
    status, output = machine.plan()
    assert status == 0
    assert f"Python: {machine.bin}/python3.12" in output


def test_the_python_that_was_asked_for_is_taken_or_refused(machine: Machine) -> None:
    machine.put_python("mine", "3 12")
    machine.put_python("old", "3 9")
    assert f"Python: {machine.bin}/mine" in machine.plan(SAPO_PYTHON="mine")[1]
    assert "SAPO_PYTHON=old is Python 3.9" in machine.plan(SAPO_PYTHON="old")[1]
    status, output = machine.demo(SAPO_PYTHON="nowhere")
    assert status == 1
    assert "SAPO_PYTHON=nowhere" in output
    assert machine.is_untouched()


def test_a_working_nvidia_smi_chooses_the_gpu_packages(machine: Machine) -> None:
    machine.put("nvidia-smi", "")
    status, output = machine.demo()
    assert status == 0, output
    assert "pip install -e .[gpu]" in machine.calls()
    assert not any("+cpu" in call or "uninstall" in call for call in machine.calls())


def test_a_broken_nvidia_smi_chooses_the_cpu_packages(machine: Machine) -> None:
    machine.put("nvidia-smi", "exit 9\n")
    assert "packages for: cpu" in machine.plan()[1]


def test_the_choice_of_packages_can_be_overruled(machine: Machine) -> None:
    assert "packages for: gpu" in machine.plan(SAPO_EXTRA="gpu")[1]
    machine.put("nvidia-smi", "")
    assert "packages for: cpu" in machine.plan(SAPO_EXTRA="cpu")[1]
    status, output = machine.plan(SAPO_EXTRA="tpu")
    assert status == 2
    assert "must be cpu or gpu" in output


def test_a_plan_touches_nothing(machine: Machine) -> None:
    machine.lacks("make")
    status, output = machine.plan()
    assert status == 0
    assert "missing OS packages: make\n" in output
    assert machine.is_untouched()


@pytest.mark.parametrize("environment", [{}, {"SAPO_EXTRA": "cpu", "SAPO_PYTHON": "python3"}])
def test_the_second_call_installs_nothing(machine: Machine, environment: dict[str, str]) -> None:
    machine.demo(**environment)
    machine.forget()
    status, output = machine.demo(**environment)
    assert (status, output) == (0, "")
    assert machine.calls() == ["sapo demo"]
    assert "nothing to do" in machine.plan(**environment)[1]


def test_the_tests_install_enough_for_the_demo_but_not_the_other_way_round(
    machine: Machine,
) -> None:
    machine.demo()
    machine.forget()
    machine.test()
    assert "pip install -e .[cpu,dev] torch==2.13.0+cpu" in machine.calls()
    assert "venv" not in machine.calls()
    machine.forget()
    machine.demo()
    assert machine.calls() == ["sapo demo"]


@pytest.mark.parametrize("file", ["pyproject.toml", "deploy/install.sh"])
def test_a_change_of_what_is_needed_is_installed(machine: Machine, file: str) -> None:
    machine.demo()
    machine.forget()
    with (machine.checkout / file).open("a") as opened:
        opened.write("# changed\n")
    machine.demo()
    assert "import check" in machine.calls()
    assert "venv" not in machine.calls()


def test_another_choice_of_packages_starts_anew(machine: Machine) -> None:
    machine.demo()
    (machine.checkout / ".venv/left-behind").touch()
    machine.forget()
    machine.demo(SAPO_EXTRA="gpu")
    assert "venv" in machine.calls()
    assert not (machine.checkout / ".venv/left-behind").exists()


def test_another_python_starts_anew(machine: Machine) -> None:
    machine.demo()
    machine.put_python("mine", "3 12")
    machine.forget()
    machine.demo(SAPO_PYTHON="mine")
    assert "venv" in machine.calls()


def test_an_environment_whose_python_is_gone_starts_anew(machine: Machine) -> None:
    machine.put_python("python3.12", "3 12")
    machine.demo()
    machine.lacks("python3")
    machine.forget()
    status, output = machine.demo()
    assert status == 0, output
    assert "venv" in machine.calls()


def test_a_checkout_that_was_moved_starts_anew(machine: Machine) -> None:
    machine.demo()
    machine.checkout = machine.checkout.rename(machine.path / "elsewhere")
    machine.forget()
    status, output = machine.demo()
    assert status == 0, output
    assert "venv" in machine.calls()


def test_an_environment_that_somebody_made_by_hand_is_kept(machine: Machine) -> None:
    venv = machine.checkout / ".venv"
    machine.run("python3", "-m", "venv", venv)
    (venv / "precious").touch()
    machine.forget()
    status, output = machine.demo()
    assert status == 0, output
    assert "venv" not in machine.calls()
    assert (venv / "precious").exists()


@pytest.mark.parametrize("step", ["pip install pip", "pip install torch", "pip install -e"])
def test_an_installation_that_was_killed_goes_on(machine: Machine, step: str) -> None:
    machine.pip(f'case "$*" in "-m {step}"*) kill -9 "$PPID" ;; esac\n')
    status, _ = machine.demo()
    assert status != 0
    assert not any(call.startswith("sapo") for call in machine.calls())
    machine.pip("")
    machine.forget()
    status, output = machine.demo()
    assert status == 0, output
    assert "venv" not in machine.calls()
    assert "import check" in machine.calls()
    assert machine.calls()[-1] == "sapo demo"


def test_an_interrupted_update_is_not_taken_for_a_complete_environment(machine: Machine) -> None:
    machine.demo()
    machine.pip('case "$*" in *dev*) kill -9 "$PPID" ;; esac\n')
    machine.test()
    machine.pip("")
    machine.forget()
    machine.demo()
    assert "import check" in machine.calls()


def test_a_failure_shows_the_end_of_the_log_and_what_to_do(machine: Machine) -> None:
    machine.pip('case "$*" in *-e*) echo "ERROR: no space left"; exit 1 ;; esac\n')
    status, output = machine.demo()
    assert status == 1
    assert "ERROR: no space left" in output
    assert "install.log" in output
    assert "goes on where this one stopped" in output
    assert "sapo demo" not in machine.calls()


def test_torch_comes_from_the_index_of_its_authors_where_no_other_source_has_it(
    machine: Machine,
) -> None:
    machine.pip('case "$*" in "-m pip install torch"*) exit 1 ;; esac\n')
    status, output = machine.demo()
    assert status == 0, output
    index = "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert f"pip install {index} torch==2.13.0+cpu" in machine.calls()


def test_torch_that_no_source_has_is_an_error_that_says_so(machine: Machine) -> None:
    machine.pip('case "$*" in *torch==*) exit 1 ;; esac\n')
    status, output = machine.demo()
    assert status == 1
    assert "gave torch==2.13.0+cpu" in output
    assert "PIP_FIND_LINKS" in output


@pytest.mark.timeout(60)
def test_two_installations_at_once_wait_for_each_other(machine: Machine) -> None:
    arrived, go_on = machine.path / "arrived", machine.path / "go-on"
    os.mkfifo(arrived)
    os.mkfifo(go_on)
    machine.pip('case "$*" in *-e*) echo here >"$MACHINE/arrived"; cat "$MACHINE/go-on" ;; esac\n')
    first = machine.start(machine.checkout / "test")
    assert arrived.read_text() == "here\n"
    second = machine.start(machine.checkout / "demo")
    assert second.stdout is not None
    assert "waiting" in second.stdout.readline()
    go_on.write_text("")
    first.communicate(timeout=60)
    assert second.communicate(timeout=60)[0] == "", "it waits once, and installs nothing"
    assert (first.returncode, second.returncode) == (0, 0)
    assert sum("pip install -e" in call for call in machine.calls()) == 1


@pytest.mark.timeout(60)
def test_a_killed_installation_leaves_no_lock(machine: Machine) -> None:
    arrived = machine.path / "arrived"
    os.mkfifo(arrived)
    machine.pip('case "$*" in *-e*) echo "$$" >"$MACHINE/arrived"; exec sleep 60 ;; esac\n')
    install = machine.start("sh", machine.checkout / "deploy/install.sh")
    pip = int(arrived.read_text())
    install.kill()
    os.kill(pip, signal.SIGKILL)
    install.communicate(timeout=60)
    machine.pip("")
    status, output = machine.demo()
    assert status == 0
    assert "waiting" not in output


def test_the_commands_work_through_links(machine: Machine) -> None:
    link = machine.path / "linked"
    link.symlink_to(machine.checkout / "demo")
    status, output = machine.run(link, "--help")
    assert status == 0, output
    assert machine.calls()[-1] == "sapo demo --help"


def test_an_unknown_option_of_the_installer_is_refused(machine: Machine) -> None:
    status, output = machine.run("sh", machine.checkout / "deploy/install.sh", "--fast")
    assert status == 2
    assert "--fast" in output
    assert machine.is_untouched()


def test_the_probe_sees_what_a_real_python_lacks(machine: Machine, tmp_path: Path) -> None:
    """The probe's own Python code in this interpreter, with and without modules and headers."""
    name = f"python3.{sys.version_info.minor}"
    found = machine.plan(SAPO_PYTHON=sys.executable)[1]
    assert "missing OS packages: none\n" in found
    assert f"Python: {sys.prefix}" not in found, "an environment is no base for another one"
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "ensurepip.py").write_text("raise ImportError\n")
    (broken / "sitecustomize.py").write_text(
        "import ctypes, sysconfig\nsysconfig.get_path = lambda name: '/nowhere'\n"
        "def load(name): raise OSError(name)\nctypes.CDLL = load\n"
    )
    found = machine.plan(SAPO_PYTHON=sys.executable, PYTHONPATH=str(broken))[1]
    assert f"missing OS packages: {name}-venv {name}-dev libseccomp2\n" in found


def test_the_installer_and_pyproject_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    script = (ROOT / "deploy/install.sh").read_text()
    value = dict(re.findall(r"^(min_minor|end_minor|torch)=([\d.]+)", script, re.MULTILINE))
    assert project["requires-python"] == f">=3.{value['min_minor']},<3.{value['end_minor']}"
    assert f"torch=={value['torch']}" in project["dependencies"]
