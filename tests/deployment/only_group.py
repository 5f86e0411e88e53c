"""Runs a module with the packages of one dependency group: `only_group GROUP MODULE ARGUMENT…`.

Everything else that is installed here can't be imported, as in the image of that group.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.metadata
import re
import runpy
import sys
import tomllib
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from packaging import requirements

from tests.deployment import dockerfile

_IMAGE_HAS = ("setuptools",)
"""Parts of it are imported by others where it is there; it is not in images."""


def groups() -> dict[str, list[requirements.Requirement]]:
    """What each group names, those included that it includes."""
    content = tomllib.loads((dockerfile.ROOT / "pyproject.toml").read_text())["dependency-groups"]

    def of(name: str) -> list[requirements.Requirement]:
        found = []
        for one in content[name]:
            if isinstance(one, dict):
                found += of(one["include-group"])
            else:
                found.append(requirements.Requirement(one))
        return found

    return {name: of(name) for name in content}


def closure(wanted: Iterable[requirements.Requirement]) -> set[str]:
    """The names of all that pip would install, as the environment here says."""
    found: set[str] = set()
    left = [(plain(one.name), extra) for one in wanted for extra in ("", *one.extras)]
    seen = set(left)
    while left:
        name, extra = left.pop()
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            one = requirements.Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                for further in ("", *one.extras):
                    if (pair := (plain(one.name), further)) not in seen:
                        seen.add(pair)
                        left.append(pair)
    return found


def plain(name: str) -> str:
    """The normalised name of a distribution."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Closed(importlib.abc.MetaPathFinder):
    """Finds nothing of what other distributions alone bring."""

    def __init__(self, allowed: set[str]) -> None:
        whose = importlib.metadata.packages_distributions()
        self._closed = {
            top for top, names in whose.items() if not {plain(name) for name in names} & allowed
        }

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in self._closed:
            raise ModuleNotFoundError(f"{fullname} is in no package of the group", name=fullname)
        return None


def main() -> Any:
    group, module, *arguments = sys.argv[1:]
    allowed = closure(groups()[group])
    sys.meta_path.insert(0, Closed(allowed))
    for name in [one for one in sys.modules if one.partition(".")[0] == "packaging"]:
        del sys.modules[name]
    sys.argv = [module, *arguments]
    return runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
