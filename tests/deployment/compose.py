"""What docker-compose.yml says of each container: entry point, variables, secrets, volumes."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.deployment import dockerfile

FILE = dockerfile.ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@dataclasses.dataclass(frozen=True)
class Container:
    """One service that runs an image of this project."""

    name: str
    image: dockerfile.Image
    command: tuple[str, ...]
    health: tuple[str, ...]
    environment: dict[str, str]
    """That of the image included."""
    secrets: dict[str, str]
    """Name below /run/secrets to the secret's name."""
    volumes: dict[str, str]
    """Folder in the container to the volume, or the path on the host."""
    profiles: tuple[str, ...]


def content(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file, with the variables put in."""

    def value(match: re.Match[str]) -> str:
        return (variables or {}).get(match[1]) or match[2] or ""

    loaded: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, FILE.read_text()))
    return loaded


def variables_of(path: pathlib.Path) -> dict[str, str]:
    """Those of an --env-file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def containers(variables: Mapping[str, str] | None = None) -> dict[str, Container]:
    """Those that are built here, by name."""
    images = dockerfile.images()
    found = {}
    for name, service in content(variables)["services"].items():
        if "build" not in service:
            continue
        image = images[service["build"]["target"]]
        check = service.get("healthcheck", {}).get("test", ("CMD", *image.health))
        found[name] = Container(
            name,
            image,
            tuple(service.get("command", image.command)),
            tuple(check[1:]),
            image.environment | {key: str(one) for key, one in service["environment"].items()},
            {one.get("target", one["source"]): one["source"] for one in service["secrets"]},
            {one.split(":")[1]: one.split(":")[0] for one in service.get("volumes", ())},
            tuple(service.get("profiles", ())),
        )
    return found
