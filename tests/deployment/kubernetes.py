"""The manifests of deploy/kubernetes: as they lie there, and as kustomize makes them."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from shared.security import certs
from tests.deployment import dockerfile

FOLDER = dockerfile.ROOT / "deploy" / "kubernetes"
VERSION = "1.32"
OVERLAYS = ("base", "overlays/local", "overlays/postgres-s3")
WORKLOADS = ("Deployment", "StatefulSet")
Document = dict[str, Any]


def files() -> list[pathlib.Path]:
    """Those with objects of Kubernetes in them."""
    return [
        path
        for path in sorted(FOLDER.rglob("*.yaml"))
        if "patches" not in path.parts
        and "secrets" not in path.parts
        and path.name
        not in ("kustomization.yaml", "config.yaml", "databases.yaml", "data-plane.yaml")
    ]


def documents(text: str) -> list[Document]:
    return [one for one in yaml.safe_load_all(text) if one]


def rendered(folder: pathlib.Path, overlay: str, patch: pytest.MonkeyPatch) -> list[Document]:
    """What an overlay makes, with secrets as docs/deployment.md has people make them."""
    kubectl = shutil.which("kubectl") or shutil.which("kustomize")
    if kubectl is None:
        pytest.skip("neither kubectl nor kustomize is on this machine")
    root = folder / "kubernetes"
    shutil.copytree(FOLDER, root, ignore=shutil.ignore_patterns("secrets"))
    patch.setenv("SKILLMESH__CLUSTER__STATE_DIR", str(root / "base" / "secrets"))
    patch.setattr("sys.argv", ["certs", "--token-files", "--signing-key"])
    certs.main()
    secrets = root / "overlays" / "postgres-s3" / "secrets"
    secrets.mkdir()
    (secrets / "databases.env").write_text(
        "PGPASSWORD=one\nAWS_ACCESS_KEY_ID=two\nAWS_SECRET_ACCESS_KEY=three\n"
    )
    build = ["kustomize"] if pathlib.Path(kubectl).name == "kubectl" else ["build"]
    done = subprocess.run(
        [kubectl, *build, str(root / overlay)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def of_kind(found: list[Document], *kinds: str) -> Iterator[Document]:
    return (one for one in found if one["kind"] in kinds)


def pod(workload: Document) -> Document:
    spec: Document = workload["spec"]["template"]["spec"]
    return spec
