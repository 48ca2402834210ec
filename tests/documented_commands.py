"""The commands that README and docs show, and which of them no test runs, with the reason.

tests/integration/test_guides.py runs all others, as they stand there.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = {path.name: path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}

NO_DOCKER = "no Docker here; tests/deploy/test_containers.py runs what it would start"
CHANGES_THE_SYSTEM = "changes the system; tests/integration/test_systemd.py does the same elsewhere"
INSTALLS = "installs gigabytes; CI begins with deploy/install.sh, and tests/test_installer.py"
NO_MODEL = "downloads a model from the hub, which CI does not reach"

NOT_RUN = {
    "./demo": "tests/integration/test_demo.py runs it",
    "./test": "it is what runs this",
    'pip install "torch==2.13.0+cpu" --extra-index-url https://download.pytorch.org/whl/cpu': (
        INSTALLS
    ),
    'pip install ".[cpu]" "torch==2.13.0+cpu"': INSTALLS,
    "pip uninstall -y torchvision torchaudio torchcodec": INSTALLS,
    "sh deploy/install.sh": INSTALLS,
    'export PATH="$PWD/.venv/bin:$PATH"': "the tests' own environment is in the path",
    "git pull && sh deploy/install.sh": INSTALLS,
    ".venv/bin/sapo run --model Qwen/Qwen2.5-0.5B-Instruct --manifest paper --home other": NO_MODEL,
    ".venv/bin/sapo doctor --gpu-selftest": "no GPU; tests/node/test_doctor.py has the CPU's",
    ".venv/bin/sapo --install-completion": "writes into the files of the shell that calls it",
    "sapo join https://swarm.example/swarm.toml": "tests/node/test_download.py has URLs",
    "python3 -m venv /opt/sapo && /opt/sapo/bin/pip install '.[gpu]'": INSTALLS,
    "cp deploy/systemd/sapo.sysusers /etc/sysusers.d/sapo.conf && systemd-sysusers": (
        CHANGES_THE_SYSTEM
    ),
    "install -D -m 0640 -g sapo deploy/systemd/sapo.env.example /etc/sapo/sapo.env": (
        CHANGES_THE_SYSTEM
    ),
    "cp deploy/systemd/sapo.service /etc/systemd/system/ && systemctl daemon-reload": (
        CHANGES_THE_SYSTEM
    ),
    "systemctl enable --now sapo": CHANGES_THE_SYSTEM,
    "docker build -f deploy/docker/Dockerfile --target cpu -t sapo-swarm:cpu .": NO_DOCKER,
    "docker build -f deploy/docker/Dockerfile --target gpu -t sapo-swarm:gpu .": NO_DOCKER,
    "docker run -d --name sapo --stop-timeout 90 -v sapo:/data -p 8421:8421 sapo-swarm:cpu": (
        NO_DOCKER
    ),
    "docker run -d --name sapo --stop-timeout 90 -v sapo:/data -p 8421:8421 --gpus all "
    "--shm-size 8g sapo-swarm:gpu": NO_DOCKER,
    "docker exec sapo sapo status": NO_DOCKER,
    "deploy/compose/prepare.sh": NO_DOCKER,
    "docker compose -f deploy/compose/compose.yaml up -d": NO_DOCKER,
    "docker compose -f deploy/compose/compose.yaml down": NO_DOCKER,
    'curl -H "Authorization: Bearer $(cat my-node/api-token)" http://127.0.0.1:8420/metrics': (
        "needs the port 8420 for itself; tests/node/test_api.py asks the same"
    ),
    ".venv/bin/sapo run --home a --set swarm.listen=/ip4/127.0.0.1/tcp/8421": (
        "needs a port for itself; quickstart.md has the same with free ones"
    ),
    ".venv/bin/sapo status --home a --json": "the same",
    ".venv/bin/sapo run --home b --set api.port=0 --set swarm.listen=/ip4/127.0.0.1/tcp/0 --set "
    "swarm.bootstrap=/ip4/127.0.0.1/tcp/8421/p2p/12D3KooW...": "the same",
    ".venv/bin/sapo peers ls --home b": "the same",
}
"""Command -> why no test runs it."""


def commands_of(document: str) -> list[str]:
    """Those in its blocks of shell, in order; comments taken out, continued lines joined."""
    found = []
    text = DOCUMENTS[document].read_text()
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if command := " ".join(re.sub(r"(^|\s)#.*$", "", line).split()):
                found.append(command)
    return found


def inline_commands() -> list[tuple[str, str]]:
    """(document, command) for what begins with `sapo` within a sentence."""
    return [
        (name, " ".join(command.split()))
        for name, path in sorted(DOCUMENTS.items())
        if name != "CHANGELOG.md"
        for command in re.findall(r"`(sapo [^`]*)`", path.read_text())
    ]
