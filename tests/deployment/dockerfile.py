"""What a Dockerfile says of each of its targets, as far as a process can be run by it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass
class Image:
    """One target."""

    parent: str
    environment: dict[str, str]
    user: str = ""
    folder: str = "/"
    command: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    copied: tuple[tuple[str, str], ...] = ()
    """Source, `STAGE:PATH` where it is another stage's, and where it goes."""
    steps: tuple[str, ...] = ()
    """Shell commands of the build."""


def images(path: pathlib.Path = ROOT / "Dockerfile") -> dict[str, Image]:
    """All named stages, with what they inherit."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    found: dict[str, Image] = {}
    image = Image("", {})
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            base = found.get(parent)
            image = (
                dataclasses.replace(base, parent=parent, environment=dict(base.environment))
                if base
                else Image(parent, {})
            )
            found[name] = image
        elif word == "ENV":
            image.environment |= dict(one.split("=", 1) for one in shlex.split(rest))
        elif word == "USER":
            image.user = rest
        elif word == "WORKDIR":
            image.folder = rest
        elif word == "CMD":
            image.command = tuple(json.loads(rest))
        elif word == "HEALTHCHECK":
            image.health = tuple(json.loads(rest.partition("CMD ")[2]))
        elif word == "EXPOSE":
            image.ports = tuple(map(int, rest.split()))
        elif word == "RUN":
            image.steps += (rest,)
        elif word == "COPY":
            options = [one for one in rest.split() if one.startswith("--from=")]
            *sources, target = [one for one in rest.split() if not one.startswith("--")]
            stage = options[0].partition("=")[2] + ":" if options else ""
            image.copied += tuple((stage + source, target) for source in sources)
        elif word not in ("", "ARG", "STOPSIGNAL", "VOLUME"):
            raise ValueError(f"{path.name}: nobody here knows {word}")
    return found
