"""docker-compose.yml and Dockerfile: their form, and that what they name is there.

That each container's command, variables and health check work is tried by
`tests/e2e/test_postgres_and_s3.py`, which runs them as processes.
"""

from __future__ import annotations

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

from shared import settings as config
from tests.deployment import compose, dockerfile

ROLES = (
    "card-store",
    "router",
    "distiller",
    "trainer",
    "inference",
    "factory",
    "hierarchy",
    "gateway",
)
ENV_FILE = dockerfile.ROOT / "deploy" / "postgres-s3.env"


def checked(path: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(path)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_compose_file_is_of_the_specification(tmp_path: pathlib.Path) -> None:
    done = checked(compose.FILE)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(compose.FILE.read_text().replace("  router:\n", "  router:\n    imagge: x\n"))
    assert "imagge" in checked(wrong).stdout


def test_each_role_has_an_image_that_is_slim_and_has_no_rights() -> None:
    images = dockerfile.images()
    for role in ROLES:
        image = images[role]
        assert image.user == "10001:10001" and image.parent == "role", role
        assert image.command and image.health and image.ports, role
        (packages,) = [source for source, _ in image.copied if source.startswith("packages")]
        assert packages == f"packages-{role}:/opt/skillmesh"
        (install,) = images[f"packages-{role}"].steps[1:]
        assert f"--group {role} " in install and "-c requirements.lock" in install
        assert importlib.util.find_spec(image.command[2]), image.command
    assert images["role"].parent == "${PYTHON}"
    assert "pip uninstall --yes pip" in images["role"].steps[0]


def test_image_has_its_own_service_and_no_other() -> None:
    """No service imports another; what it copies is its own folder, and shared."""
    for role in ROLES:
        copied = {source for source, _ in dockerfile.images()[role].copied}
        services = {source for source in copied if source.startswith("services/")}
        assert services == {"services/__init__.py", f"services/{role.replace('-', '_')}"}
        for source in copied - {one for one in copied if ":" in one}:
            assert (dockerfile.ROOT / source).exists(), source


def test_what_images_copy_is_let_through_by_dockerignore() -> None:
    lines = (dockerfile.ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    for image in dockerfile.images().values():
        for source, _ in image.copied:
            assert ":" in source or source.split("/")[0] in let_through, source


def test_containers_run_as_their_images_say() -> None:
    content = compose.content()
    found = compose.containers()
    assert set(found) == {*ROLES, "card-store-data"}
    for name, container in found.items():
        service = content["services"][name]
        assert service["user"].startswith("10001:"), name
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert importlib.util.find_spec(container.command[2]), container.command
        assert container.health[:3] == ("python", "-m", "shared.rpc.probe")
        # Longer than what is under way may take.
        grace_s = float(service["stop_grace_period"].removesuffix("s"))
        assert grace_s > float(container.environment["SKILLMESH__CLUSTER__DRAIN_S"]) + 10


@pytest.mark.parametrize("variables", [{}, compose.variables_of(ENV_FILE)], ids=["plain", "env"])
def test_variables_are_settings_when_each_container_reads_them(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, container in compose.containers(variables).items():
        with monkeypatch.context() as patch:
            for key, value in container.environment.items():
                patch.setenv(key, value)
            settings = config.load(dockerfile.ROOT / "config.yaml")
        key = container.health[3]
        section, _, field = key.partition(".")
        address = getattr(getattr(settings, section), field)
        host, _, port = address.rpartition(":")
        # It listens where its image says and its own check asks; no name of another is that.
        assert host == "0.0.0.0" and int(port) in container.image.ports, name
        has_databases = name == "factory" or name.startswith("card-store")
        given = variables.get("SKILLMESH_FACTORY_DATABASE", "") if has_databases else ""
        assert settings.factory.database_url == given, name


def test_files_and_volumes_and_secrets_are_declared_when_they_are_used() -> None:
    content = compose.content()
    for name, service in content["services"].items():
        for one in service.get("volumes", ()):
            source = one.split(":")[0]
            assert source in content["volumes"] or (dockerfile.ROOT / source).exists(), (name, one)
        for one in service.get("secrets", ()):
            assert one["source"] in content["secrets"], (name, one)
        for one in service.get("configs", ()):
            assert one["source"] in content["configs"], (name, one)
        for one in service.get("networks", ()):
            assert one in content["networks"], (name, one)
        for one in service.get("depends_on", ()):
            assert one in content["services"], (name, one)
    for name, one in content["configs"].items():
        assert "content" in one or (dockerfile.ROOT / one["file"]).is_file(), name


def test_names_of_hosts_are_services_when_addresses_name_them() -> None:
    names = set(compose.content()["services"])
    for container in compose.containers(compose.variables_of(ENV_FILE)).values():
        for value in container.environment.values():
            for host in re.findall(r"\b([a-z][a-z-]+):\d{4}\b", value):
                assert host in names, value


def test_only_the_gateway_and_the_dashboards_are_published() -> None:
    content = compose.content()
    published = {name for name, one in content["services"].items() if "ports" in one}
    assert published == {"gateway", "grafana"}
    assert content["networks"]["mesh"]["internal"] is True
    outside = {name for name, one in content["services"].items() if "outside" in one["networks"]}
    assert outside == {"gateway", "distiller", "grafana"}
    for name in published:
        assert all(one.startswith("127.0.0.1:") for one in content["services"][name]["ports"])
