"""The manifests parse, pin what they run, stay on the loopback interface or behind a policy, and hold no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
MANIFESTS = sorted(INFRA.rglob("*.yaml"))
TELEMETRY_OFF = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
SECRET_NAME = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|TOKEN|ROOT_USER|AUTH_STRING")


def pinned(package: str) -> str:
    """The version of a package in constraints.txt."""
    found = re.search(rf"^{package}==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found, package
    return found[1]


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(nearest key, value) of every scalar in a document."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value, key)
    else:
        yield key, node


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]


@pytest.fixture(scope="module")
def ray_documents() -> dict[str, Any]:
    documents = yaml.safe_load_all((INFRA / "ray" / "gpu-cluster.yaml").read_text())
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def cluster(ray_documents: dict[str, Any]) -> dict[str, Any]:
    return ray_documents["RayCluster"]["spec"]


def containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.relative_to(INFRA).as_posix())
def test_every_image_has_a_pinned_tag(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        for image in (value for key, value in leaves(document) if key == "image"):
            assert re.search(r":v?[\w.-]*\d[\w.-]*$", image) and "latest" not in image, image


def test_every_base_image_has_a_pinned_tag() -> None:
    bases = re.findall(r"^FROM (\S+)", (INFRA / "Dockerfile").read_text(), re.MULTILINE)
    assert bases and all(re.search(r":\d+\.\d+\.\d+", base) for base in bases), bases


def test_every_port_is_bound_to_the_loopback_interface(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) >= 4 and all(port.startswith("127.0.0.1:") for port in ports), ports


def test_the_four_services_say_when_they_are_healthy(services: dict[str, Any]) -> None:
    for name in ("postgres", "store", "mlflow", "prefect"):
        assert services[name]["healthcheck"]["test"], name


def test_secrets_come_from_the_environment_and_have_no_default(services: dict[str, Any]) -> None:
    settings = [item for service in services.values() for item in service.get("environment", {}).items()]
    secrets = [(name, value) for name, value in settings if SECRET_NAME.search(name)]
    assert len(secrets) >= 5
    assert all(re.fullmatch(r"\$\{\w+:\?[^}]+\}", value) for _, value in secrets), secrets
    urls = [value for _, value in settings if "@postgres" in str(value)]
    assert len(urls) == 2 and all(re.search(r":\$\{\w+:\?[^}]+\}@", url) for url in urls), urls


@pytest.mark.case("R1")
def test_the_pages_answer_their_own_names_and_pages_only(services: dict[str, Any]) -> None:
    mlflow, prefect = (services[name]["environment"] for name in ("mlflow", "prefect"))
    for hosts, port in ((mlflow["MLFLOW_SERVER_ALLOWED_HOSTS"], 5000), (prefect["PLM_PREFECT_HOSTS"], 4200)):
        assert all(re.fullmatch(rf"[\w.]+:{port}", host) for host in hosts.split(",")), hosts
    origins = [mlflow["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"], prefect["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"]]
    assert "*" not in "".join(origins) and prefect["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"
    assert "flows.servers.prefect_door:create_app" in services["prefect"]["command"]
    assert "flows/servers/prefect_door.py" in (INFRA / "Dockerfile").read_text()


def test_no_secret_stands_in_the_cluster(ray_documents: dict[str, Any]) -> None:
    assert "Secret" not in ray_documents
    for container in containers(ray_documents["RayCluster"]["spec"]):
        assert not [entry["name"] for entry in container["env"] if SECRET_NAME.search(entry["name"])]


def test_telemetry_is_off_in_every_container_and_image(services: dict[str, Any], cluster: dict[str, Any]) -> None:
    for container in containers(cluster):
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert TELEMETRY_OFF.items() <= environment.items()
    assert services["mlflow"]["environment"]["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert services["prefect"]["environment"]["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    for stage in re.split(r"^FROM ", (INFRA / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]:
        assert "PREFECT_SERVER_ANALYTICS_ENABLED=false" in stage and "MLFLOW_DISABLE_TELEMETRY=true" in stage


def test_the_cluster_runs_the_version_of_ray_that_we_resolve(cluster: dict[str, Any]) -> None:
    assert cluster["rayVersion"] == pinned("ray")
    assert all(container["image"].endswith(f"-ray{pinned('ray')}") for container in containers(cluster))
    assert f"rayproject/ray:{pinned('ray')}-" in (INFRA / "Dockerfile").read_text()


def test_the_cluster_asks_for_a_token(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"]["mode"] == "token"


def test_nothing_is_scheduled_on_the_head(cluster: dict[str, Any]) -> None:
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_gpu_workers_have_limits_and_bounds(cluster: dict[str, Any]) -> None:
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for container in containers(cluster):
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert all(int(worker["resources"]["limits"]["nvidia.com/gpu"]) > 0 for worker in containers(cluster)[1:])


def test_only_named_pods_reach_the_cluster(ray_documents: dict[str, Any]) -> None:
    policy, name = ray_documents["NetworkPolicy"]["spec"], ray_documents["RayCluster"]["metadata"]["name"]
    assert policy["podSelector"]["matchLabels"] == {"ray.io/cluster": name}
    assert "Ingress" in policy["policyTypes"]
    for rule in policy["ingress"]:
        peers = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
        inside = peers == [{"ray.io/cluster": name}]
        assert peers and (inside or [port["port"] for port in rule["ports"]] == [8265])
