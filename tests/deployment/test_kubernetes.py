"""The manifests: their schema, what every pod may do, how it ends, and what it runs."""

from __future__ import annotations

import base64
import pathlib

import kubernetes_validate
import pytest
import yaml

from shared import settings as config
from tests.deployment import dockerfile, kubernetes
from tests.deployment.kubernetes import of_kind, pod

OURS = "skillmesh/"


@pytest.fixture(scope="module", params=kubernetes.OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def found(overlay: str, tmp_path_factory: pytest.TempPathFactory) -> list[kubernetes.Document]:
    with pytest.MonkeyPatch.context() as patch:
        return kubernetes.rendered(tmp_path_factory.mktemp("made"), overlay, patch)


@pytest.mark.parametrize("path", kubernetes.files(), ids=lambda path: path.name)
def test_manifest_is_of_the_schema_when_it_is_read_strictly(path: pathlib.Path) -> None:
    found = kubernetes.documents(path.read_text())
    assert found
    for document in found:
        kubernetes_validate.validate(document, kubernetes.VERSION, strict=True)


def test_manifest_is_refused_when_a_key_is_misspelt() -> None:
    path = kubernetes.FOLDER / "base" / "router.yaml"
    document = kubernetes.documents(path.read_text())[0]
    document["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(document, kubernetes.VERSION, strict=True)


def test_overlay_is_of_the_schema_when_kustomize_has_made_it(
    found: list[kubernetes.Document],
) -> None:
    for document in found:
        kubernetes_validate.validate(document, kubernetes.VERSION, strict=True)


def test_pods_have_no_rights_when_they_run(found: list[kubernetes.Document]) -> None:
    workloads = list(of_kind(found, *kubernetes.WORKLOADS))
    assert len(workloads) >= 7
    for workload in workloads:
        spec = pod(workload)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False, container["name"]
            assert rights["readOnlyRootFilesystem"] is True, container["name"]
            assert rights["capabilities"] == {"drop": ["ALL"]}, container["name"]
            assert "memory" in container["resources"]["limits"], container["name"]
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def test_pods_end_in_good_order_when_they_are_replaced(found: list[kubernetes.Document]) -> None:
    for workload in of_kind(found, *kubernetes.WORKLOADS):
        if workload["kind"] == "Deployment":
            assert workload["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        spec = pod(workload)
        for container in spec["containers"]:
            if not container["image"].startswith(OURS):
                continue
            pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            settings = config.load(kubernetes.FOLDER / "base" / "config.yaml")
            drain_s = max(settings.cluster.drain_s, settings.gateway.drain_s)
            assert spec["terminationGracePeriodSeconds"] >= pause_s + drain_s + 10
            assert container["readinessProbe"] and container["startupProbe"]
    budgets = {one["metadata"]["name"] for one in of_kind(found, "PodDisruptionBudget")}
    names = {
        one["metadata"]["name"]
        for one in of_kind(found, *kubernetes.WORKLOADS)
        if pod(one)["containers"][0]["image"].startswith(OURS)
    }
    assert names == budgets


def test_everything_named_is_there_when_pods_start(found: list[kubernetes.Document]) -> None:
    """Config maps, secrets with their keys, volumes, and services behind every address."""
    kept = {
        (one["kind"], one["metadata"]["name"]): one for one in of_kind(found, "ConfigMap", "Secret")
    }
    for workload in of_kind(found, *kubernetes.WORKLOADS):
        spec = pod(workload)
        claims = workload["spec"].get("volumeClaimTemplates", ())
        volumes = {one["name"] for one in spec["volumes"]}
        volumes |= {one["metadata"]["name"] for one in claims}
        for container in spec["containers"]:
            assert {one["name"] for one in container["volumeMounts"]} <= volumes
        for volume in spec["volumes"]:
            if "secret" in volume:
                secret = kept["Secret", volume["secret"]["secretName"]]
                keys = {item["key"] for item in volume["secret"].get("items", ())}
                assert keys <= secret["data"].keys()
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in kept
    ports = {
        f"{one['metadata']['name']}:{port['port']}"
        for one in of_kind(found, "Service")
        for port in one["spec"]["ports"]
    }
    settings = config.load(kubernetes.FOLDER / "base" / "config.yaml")
    store = settings.card_store
    assert {
        settings.router.address,
        settings.factory.address,
        settings.distiller.address,
        settings.trainer.address,
        settings.inference.address,
        store.address,
        store.flight_address,
        *settings.discovery.stores,
    } <= ports


def test_settings_are_right_when_each_container_reads_them(
    found: list[kubernetes.Document], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.yaml of the pod with the variables of each container, on its own mounts."""
    text = next(of_kind(found, "ConfigMap"))["data"]["config.yaml"]
    secrets = {one["metadata"]["name"]: one["data"] for one in of_kind(found, "Secret")}
    images = dockerfile.images()
    seen = set()
    for workload in of_kind(found, *kubernetes.WORKLOADS):
        for container in pod(workload)["containers"]:
            if not container["image"].startswith(OURS):
                continue
            target = container["image"].removeprefix(OURS).partition(":")[0]
            image = images[target]
            seen.add(target)
            mounts = {one["mountPath"] for one in container["volumeMounts"]}
            content = yaml.safe_load(text)
            for name in ("certificate", "key", "authority"):
                path = pathlib.PurePath(content["security"]["tls"][name])
                assert str(path.parent) in mounts and path.name in _secret("tls", secrets)
            with monkeypatch.context() as patch:
                for name, value in image.environment.items():
                    if name.startswith("SKILLMESH__"):
                        patch.setenv(name, value)
                for one in container["env"]:
                    if one["name"].startswith("SKILLMESH__"):
                        patch.setenv(one["name"], one["value"])
                path = tmp_path / "config.yaml"
                path.write_text(text)
                settings = config.load(path)
            key = container["readinessProbe"]["exec"]["command"][-1]
            section, _, name = key.partition(".")
            address = getattr(getattr(settings, section), name)
            host, _, port = address.rpartition(":")
            assert host == "0.0.0.0", container["name"]
            assert container["ports"][0]["containerPort"] == int(port)
            assert container["livenessProbe"]["tcpSocket"]["port"] == int(port)
            assert int(port) in image.ports
    assert seen == {
        "card-store",
        "router",
        "factory",
        "distiller",
        "trainer",
        "inference",
        "gateway",
    }


def _secret(name: str, secrets: dict[str, dict[str, str]]) -> set[str]:
    found = next(data for full, data in secrets.items() if full.startswith(f"{name}-"))
    assert all(base64.b64decode(value) for value in found.values())
    return set(found)


@pytest.mark.parametrize("overlay", ["overlays/postgres-s3"], indirect=True)
def test_replicas_are_two_when_they_share_database_and_bucket(
    found: list[kubernetes.Document],
) -> None:
    counts = {
        one["metadata"]["name"]: one["spec"]["replicas"]
        for one in of_kind(found, *kubernetes.WORKLOADS)
    }
    assert counts["card-store"] == counts["factory"] == 2
    # Whatever lies in files of its own stays one.
    assert counts["router"] == counts["distiller"] == counts["trainer"] == 1
    stores = next(
        one for one in of_kind(found, "StatefulSet") if one["metadata"]["name"] == "card-store"
    )
    for container in pod(stores)["containers"]:
        names = {one["name"] for one in container["env"]}
        assert {"SKILLMESH__CARD_STORE__DATABASE_URL", "SKILLMESH__CARD_STORE__BLOBS_URL"} <= names
        assert container["envFrom"][0]["secretRef"]["name"].startswith("databases-")


def test_callers_reach_whom_they_call_when_all_else_is_closed(
    found: list[kubernetes.Document],
) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(found, "NetworkPolicy")}
    assert policies["nothing-else"]["podSelector"] == {}
    assert set(policies["nothing-else"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in policies["nothing-else"]
    for name in ("router", "factory", "distiller", "trainer", "card-store", "inference"):
        (rule,) = policies[name]["ingress"]
        (selected,) = rule["from"][0]["podSelector"]["matchExpressions"]
        assert "gateway" in selected["values"] or name == "trainer"
