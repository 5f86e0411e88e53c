"""Which packages each role's image has, and that its process starts with those alone."""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import signal
import sys
import tomllib
from typing import Any

import pytest
import yaml
from packaging import requirements

from shared import settings as config
from shared.rpc import probe
from tests.contract import addresses
from tests.deployment import dockerfile, only_group

WITH_TORCH = {"router", "trainer", "inference", "hierarchy"}
WITHOUT = {"card-store", "factory", "distiller", "gateway"}
PATIENCE_S = 400.0


def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((dockerfile.ROOT / "pyproject.toml").read_text())
    return content


def test_groups_together_are_what_the_project_depends_on() -> None:
    groups = only_group.groups()
    named = {str(one) for found in groups.values() for one in found}
    declared = {str(requirements.Requirement(one)) for one in project()["project"]["dependencies"]}
    assert named == declared


def test_versions_of_all_that_images_install_are_locked() -> None:
    lock = (dockerfile.ROOT / "requirements.lock").read_text().lower()
    locked = {only_group.plain(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    for name, wanted in only_group.groups().items():
        # What is built in, or for other systems, is in no lock file here.
        assert only_group.closure(wanted) <= locked | {"setuptools"}, name


def test_torch_is_in_the_images_of_machine_learning_alone() -> None:
    groups = only_group.groups()
    for role in WITH_TORCH | WITHOUT:
        found = only_group.closure(groups[role])
        assert ("torch" in found) == (role in WITH_TORCH), role
        assert not found & {"pytest", "mypy", "ruff", "moto", "playwright"}, role
    assert "transformers" not in only_group.closure(groups["hierarchy"])


@pytest.mark.parametrize(
    ("group", "module", "key"),
    [
        ("card-store", "services.card_store", "card_store.address"),
        ("factory", "services.factory", "factory.address"),
        ("distiller", "services.distiller", "distiller.address"),
        ("gateway", "services.gateway.web", "gateway.address"),
    ],
)
async def test_process_starts_when_it_has_the_packages_of_its_image_alone(
    group: str, module: str, key: str, tmp_path: pathlib.Path
) -> None:
    section, _, name = key.partition(".")
    (tmp_path / "knowledge").mkdir()
    content: dict[str, Any] = {
        "cluster": {"state_dir": str(tmp_path / "state")},
        "discovery": {"zeroconf": False, "stores": [addresses.free_address()]},
        "distiller": {"knowledge_dir": str(tmp_path / "knowledge")},
        "evolution": {"provider_type": "documents"},
    }
    content.setdefault(section, {})[name] = addresses.free_address()
    configuration = tmp_path / "config.yaml"
    configuration.write_text(yaml.safe_dump(content))

    settings = config.load(configuration)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.deployment.only_group", group, module),
        *("--config", str(configuration)),
        cwd=dockerfile.ROOT,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        stderr=asyncio.subprocess.PIPE,
    )
    reading = asyncio.create_task(process.communicate())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await asyncio.to_thread(probe.probe, settings, key, "/healthz", 2.0):
                assert process.returncode is None, (await reading)[1].decode()
                await asyncio.sleep(0.2)
    finally:
        if process.returncode is None:
            process.terminate()
        told = (await reading)[1].decode()
    # One that is still starting dies of the signal.
    assert process.returncode in (0, -signal.SIGTERM) and "Traceback" not in told, told
