"""Dockerfile, compose file and Kubernetes manifests: valid by their schemas, and in agreement with
the program. Nothing of this starts a container."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import ComposeSpecification, PyCompose

from node.access import read_token
from node.config import NodeConfig, load_config
from node.control import LEAVE_S
from swarm.identity import open_identity
from tests.integration.sapo_node import SAPO

ROOT = Path(__file__).parents[2]
DOCKER, COMPOSE = ROOT / "deploy/docker", ROOT / "deploy/compose"
ENTRYPOINT = DOCKER / "entrypoint.sh"
STOP_S = NodeConfig().supervise.stop_s + LEAVE_S

RELAY = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
SPEC: dict[str, Any] = yaml.safe_load(
    re.sub(r"\$\{RELAY_ID:\?[^}]*\}", RELAY, (COMPOSE / "compose.yaml").read_text())
)
NODES = {name: one for name, one in SPEC["services"].items() if one["image"].startswith("sapo")}
OBJECTS = {
    one["kind"]: one
    for one in yaml.safe_load_all((ROOT / "deploy/kubernetes/sapo.yaml").read_text())
}
POD = OBJECTS["StatefulSet"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


# The image.


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def stages() -> dict[str, str]:
    parts = re.split(r"^FROM (\S+) AS (\S+)$", (DOCKER / "Dockerfile").read_text(), flags=re.M)
    return {parts[i + 1]: parts[i + 2] for i in range(1, len(parts), 3)}


def test_both_targets_run_as_nobody_in_particular_and_are_asked_for_their_health() -> None:
    found = stages()
    assert "\nUSER 10001:10001\n" in found["runtime"] and "HEALTHCHECK" in found["runtime"]
    assert found["gpu"].rstrip().endswith("USER 10001:10001") and "USER" not in found["cpu"]


def test_the_image_is_made_of_what_the_wheel_needs() -> None:
    copied = set(" ".join(re.findall(r"^COPY (?!--)(.*) \S+$", stages()["wheel"], re.M)).split())
    packages = {name.partition(".")[0] for name in project()["tool"]["setuptools"]["packages"]}
    assert copied == packages | {"configs", "pyproject.toml", "README.md", "LICENSE"}
    files = set(re.findall(r"deploy/docker/\S+", stages()["runtime"]))
    kept = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.M))
    assert kept == copied | files
    assert all((ROOT / one).exists() for one in kept)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_image_has_the_torch_and_the_python_that_the_project_wants() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    (torch,) = set(re.findall(r"ARG TORCH=([\d.]+)\+cpu", text))
    assert f"torch=={torch}" in project()["project"]["dependencies"]
    assert re.search(r"^ARG PYTHON=3\.(11|12|13)\.\d+-slim-bookworm$", text, re.M)


def enter(home: Path, secrets: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The entry point of the image, with the program of this checkout."""
    return subprocess.run(
        ["sh", str(ENTRYPOINT), *words],
        env={"PATH": f"{Path(SAPO).parent}:{os.environ['PATH']}", "SAPO_HOME": str(home)}
        | {"SECRETS": str(secrets)},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    (made := tmp_path / "secrets").mkdir()
    with open_identity(tmp_path / "secrets"):
        (made / "identity.key").chmod(0o444)
    (made / "api-token").write_text("t" * 43)
    return made


def test_secrets_come_into_the_home_as_the_node_wants_them(tmp_path: Path, secrets: Path) -> None:
    home = tmp_path / "home"
    for _ in range(2):
        shown = enter(home, secrets, "key", "show", "--json")
        assert shown.returncode == 0, shown.stderr
    assert read_token(home) == "t" * 43
    assert (home / "identity.key").stat().st_mode & 0o777 == 0o600
    (secrets / "api-token").write_text("u" * 43)
    enter(home, secrets, "--version")
    assert read_token(home) == "u" * 43


def test_a_secret_for_one_pod_goes_before_that_for_all(tmp_path: Path, secrets: Path) -> None:
    name = subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    (secrets / f"{name}.api-token").write_text("v" * 43)
    enter(tmp_path / "home", secrets, "--version")
    assert read_token(tmp_path / "home") == "v" * 43


def test_another_nodes_volume_is_refused(tmp_path: Path, secrets: Path) -> None:
    (home := tmp_path / "home").mkdir()
    with open_identity(home):
        before = (home / "identity.key").read_bytes()
    done = enter(home, secrets, "--version")
    assert done.returncode == 2 and "another node's" in done.stderr
    assert (home / "identity.key").read_bytes() == before


def test_without_secrets_the_node_makes_its_own(tmp_path: Path) -> None:
    done = enter(tmp_path / "home", tmp_path / "none", "--version")
    assert done.returncode == 0 and done.stdout.startswith("sapo-swarm ")


def test_a_node_that_does_not_answer_is_not_healthy(tmp_path: Path) -> None:
    """That one that runs is healthy: tests/integration/test_systemd.py."""
    for address in (None, "http://127.0.0.1:9", "nonsense"):
        if address is not None:
            (tmp_path / "api-address").write_text(address)
        done = subprocess.run(
            [sys.executable, DOCKER / "health.py"],
            env={"SAPO_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and done.stderr.startswith("not healthy")


# Compose.


def test_the_compose_file_is_one() -> None:
    # compose_spec 0.2.1 does not know the number of tries, which Compose has had for long.
    known = json.dumps(SPEC).replace('"on-failure:5"', '"on-failure"')
    compose = PyCompose.from_json(known)
    compose.validate()  # every network, volume and secret that is used is declared
    ComposeSpecification.model_validate_json(known)
    assert set(compose.service_names()) == {*NODES, "prometheus", "grafana"}
    assert set(NODES) == {"relay", "node1", "node2", "node3"}


@pytest.mark.parametrize(("name", "node"), NODES.items())
def test_a_nodes_settings_exist_and_hang_together(name: str, node: dict[str, Any]) -> None:
    settings = {key: str(value) for key, value in node["environment"].items() if "SAPO" in key}
    config = load_config(environment=settings)
    assert config.api.names == (name,)
    assert config.swarm.bootstrap == (
        () if name == "relay" else (f"/dns4/relay/tcp/8421/p2p/{RELAY}",)
    )


@pytest.mark.parametrize("name", SPEC["services"])
def test_no_service_can_do_more_than_it_needs(name: str) -> None:
    service = SPEC["services"][name]
    assert service["cap_drop"] == ["ALL"] and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert not [key for key in service.get("environment", {}) if re.search("TOKEN|KEY$", key)]


def test_images_are_pinned_by_tag() -> None:
    for service in SPEC["services"].values():
        tag = service["image"].rpartition(":")[2]
        assert tag == "cpu" or re.fullmatch(r"v?\d+\.\d+\.\d+", tag), service["image"]


def test_docker_waits_for_the_checkpoint() -> None:
    for node in NODES.values():
        assert float(node["stop_grace_period"].rstrip("s")) >= STOP_S


def test_prometheus_asks_the_nodes_with_the_tokens_that_they_have() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
    asked = {
        job["static_configs"][0]["targets"][0]: job["authorization"]["credentials_file"]
        for job in scraped["scrape_configs"]
    }
    assert asked == {f"{name}:8420": f"/run/secrets/{name}-token" for name in NODES}
    for name, node in NODES.items():
        assert {"source": f"{name}-token", "target": "api-token"} in node["secrets"]
    assert {f"{name}-token" for name in NODES} == set(SPEC["services"]["prometheus"]["secrets"])


def test_what_is_mounted_from_the_checkout_exists() -> None:
    for service in SPEC["services"].values():
        for volume in service["volumes"]:
            if volume.startswith("."):
                assert (COMPOSE / volume.split(":")[0]).exists(), volume


FAKE_DOCKER = """#!/bin/sh
# "docker build" and "docker run" of the words that prepare.sh says, by the program of this checkout
[ "$1" = run ] || exit 0
for word in "$@"; do case $word in *identity.key:ro) secret=${word%%:*} ;; esac; done
export SAPO_HOME="$(mktemp -d)/home"
while [ "$1" != sapo-swarm:cpu ]; do shift; done
shift
if [ "$1" = -c ]; then exec sh "$@"; fi
export SECRETS="$(mktemp -d)"
cp "$secret" "$SECRETS/identity.key"
exec sh ENTRYPOINT "$@"
"""


def test_prepare_makes_keys_and_tokens_once(tmp_path: Path) -> None:
    """With a stand-in for docker that runs the same commands here."""
    (place := tmp_path / "deploy" / "compose").mkdir(parents=True)
    script = place / "prepare.sh"
    script.write_text((COMPOSE / "prepare.sh").read_text())
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(FAKE_DOCKER.replace("ENTRYPOINT", str(ENTRYPOINT)))
    docker.chmod(0o755)
    path = f"{docker.parent}:{Path(SAPO).parent}:{os.environ['PATH']}"
    made = []
    for _ in range(2):
        done = subprocess.run(["sh", script], env={"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        files = [*sorted((place / "secrets").iterdir()), place / ".env"]
        made.append({file.name: file.read_bytes() for file in files})
    assert made[0] == made[1]
    wanted = {Path(one["file"]).name for one in SPEC["secrets"].values()}
    assert set(made[0]) == wanted | {".env"}
    assert re.fullmatch(rb"RELAY_ID=12D3KooW[A-Za-z0-9]{44}\n", made[0][".env"])
    assert (place / "secrets").stat().st_mode & 0o777 == 0o700
    assert len({made[0][f"{name}-token"] for name in NODES}) == len(NODES)


# Kubernetes.


@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("kind", OBJECTS)
def test_a_manifest_is_valid_by_the_schema_of_kubernetes(kind: str, version: str) -> None:
    kubernetes_validate.validate(OBJECTS[kind], version, strict=True)


def test_the_settings_in_the_config_map_exist(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(OBJECTS["ConfigMap"]["data"]["node.toml"])
    config = load_config(tmp_path / "node.toml", environment={})
    assert config.verify.isolation == "required" and config.api.insecure_public


def test_everything_selects_and_names_the_same_pods() -> None:
    labels = OBJECTS["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert OBJECTS["Service"]["spec"]["selector"] == labels
    assert OBJECTS["StatefulSet"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert OBJECTS["StatefulSet"]["spec"]["serviceName"] == OBJECTS["Service"]["metadata"]["name"]
    assert {one["metadata"]["namespace"] for one in OBJECTS.values()} == {"sapo"}


def test_mounts_and_ports_are_declared() -> None:
    volumes = {one["name"] for one in POD["volumes"]}
    volumes |= {
        one["metadata"]["name"] for one in OBJECTS["StatefulSet"]["spec"]["volumeClaimTemplates"]
    }
    assert {one["name"] for one in CONTAINER["volumeMounts"]} == volumes
    ports = {one["name"] for one in CONTAINER["ports"]}
    probes = [CONTAINER[f"{name}Probe"] for name in ("startup", "liveness", "readiness")]
    assert {probe["httpGet"]["port"] for probe in probes} <= ports
    assert {one["targetPort"] for one in OBJECTS["Service"]["spec"]["ports"]} == ports


def test_a_pod_is_as_restricted_as_the_strictest_standard_of_kubernetes_asks() -> None:
    pod, own = POD["securityContext"], CONTAINER["securityContext"]
    assert pod["runAsNonRoot"] and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert POD["terminationGracePeriodSeconds"] >= STOP_S
    assert f"USER {pod['runAsUser']}:{pod['runAsGroup']}" in stages()["runtime"]


def test_probes_ask_open_paths_by_a_name_that_the_node_answers_to() -> None:
    paths = {}
    for name in ("startup", "liveness", "readiness"):
        ask = CONTAINER[f"{name}Probe"]["httpGet"]
        assert ask["httpHeaders"] == [{"name": "Host", "value": "localhost"}]
        paths[name] = ask["path"]
    assert paths == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
