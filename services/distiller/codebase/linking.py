"""Finds out which definition a call means, within one repository and as far as names tell.

Python names go through the file's imports, re-exports in other files, and the class around a
`self`. What that leaves open, and every call in another language, is resolved where one definition
alone has that name. A call of something outside the repository means nothing here.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from services.distiller.codebase import definitions

Key = tuple[str, str]
"""Path and symbol."""
_MOST_HOPS = 5
"""From one re-export to the next."""
_LEAST_NAME = 4
"""Characters of a name that is resolved by itself: shorter ones mean anything."""
_COMMON = frozenset(
    name
    for kind in (str, bytes, list, dict, set, tuple, int, float, frozenset, memoryview)
    for name in dir(kind)
) | frozenset(
    """open close read write flush send recv start stop run join wait result done cancel next
    push map filter reduce forEach then catch toString equals hashCode size length main init
    Println Printf Errorf Error String expect assert describe require unwrap clone into iter
    collect printf malloc free push_back begin save load call apply bind test each""".split()
)
"""Methods that built-in types and half of all libraries have."""
_FAMILIES = {"typescript": "javascript", "c++": "c"}
"""Languages that call one another's functions as their own."""
_ROOTS = ("src/", "lib/", "python/")


@dataclasses.dataclass(frozen=True, slots=True)
class Use:
    """One place where a definition is called."""

    path: str
    line: int
    caller: str
    """Symbol; empty at the top of the file."""
    by_test: bool


class Linker:
    """The definitions of a repository by their names."""

    def __init__(self, files: Sequence[definitions.ParsedFile]) -> None:
        """Takes all files of the repository."""
        self._files = files
        self._local = {f.path: frozenset(d.symbol for d in f.definitions) for f in files}
        self._imports = {f.path: {i.name: i.target for i in f.imports} for f in files}
        self._modules: dict[str, str] = {}
        self._by_name: dict[tuple[str, str], list[Key]] = collections.defaultdict(list)
        self._packages = {
            f.path.rpartition("/")[0] for f in files if f.path.endswith("__init__.py")
        }
        for file in files:
            if file.language == "python":
                for name in self._module_names(file.path):
                    self._modules.setdefault(name, file.path)
            for definition in file.definitions:
                if not definition.is_test:
                    name = definition.symbol.rpartition(".")[2]
                    key = (file.path, definition.symbol)
                    self._by_name[_family(file.language), name].append(key)

    def uses(self) -> dict[Key, list[Use]]:
        """Where each definition is called, in the order of the files."""
        found: dict[Key, list[Use]] = collections.defaultdict(list)
        for file in self._files:
            tests = {d.symbol for d in file.definitions if d.is_test}
            for call in file.calls:
                key = self._resolve(file, call)
                if key is not None and key != (file.path, call.caller):
                    by_test = file.is_test or call.caller in tests
                    found[key].append(Use(file.path, call.line, call.caller, by_test))
        return found

    def _resolve(self, file: definitions.ParsedFile, call: definitions.Call) -> Key | None:
        if file.language != "python":
            return self._alone(file, call.name)
        root, _, rest = call.name.partition(".")
        local = self._local[file.path]
        if root in ("self", "cls"):
            owner = call.caller.rpartition(".")[0]
            if f"{owner}.{rest}" in local:
                return file.path, f"{owner}.{rest}"
            return self._alone(file, rest)
        target = self._imports[file.path].get(root)
        if target is not None:
            absolute = self._absolute(file.path, target)
            return self._of_dotted(f"{absolute}.{rest}" if rest else absolute)
        if call.name in local:
            return file.path, call.name
        return self._alone(file, rest) if rest else None

    def _alone(self, file: definitions.ParsedFile, name: str) -> Key | None:
        """The one definition of a name; one in the same file comes before others."""
        name = name.rpartition(".")[2]
        candidates = self._by_name.get((_family(file.language), name), ())
        here = [key for key in candidates if key[0] == file.path]
        if len(here) == 1 and file.language != "python":
            return here[0]
        known = len(name) >= _LEAST_NAME and name not in _COMMON
        return candidates[0] if len(candidates) == 1 and known else None

    def _of_dotted(self, name: str, hops: int = _MOST_HOPS) -> Key | None:
        """The definition of an absolute name such as `shared.errors.brief`."""
        parts = name.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            path = self._modules.get(".".join(parts[:cut]))
            if path is None:
                continue
            symbol = ".".join(parts[cut:])
            if symbol in self._local[path]:
                return path, symbol
            target = self._imports[path].get(parts[cut])
            if target is None or not hops:
                return None
            passed_on = [self._absolute(path, target), *parts[cut + 1 :]]
            return self._of_dotted(".".join(passed_on), hops - 1)
        return None

    def _absolute(self, path: str, target: str) -> str:
        """An import's target without leading dots."""
        level = len(target) - len(target.lstrip("."))
        if not level:
            return target
        folders = path.split("/")[:-level]
        return ".".join([*folders, target[level:]])

    def _module_names(self, path: str) -> Iterable[str]:
        """By which a file may be imported: its full path, and that from its outermost package."""
        folder, _, name = path.rpartition("/")
        stem = name.rpartition(".")[0]
        parts = [*(folder.split("/") if folder else []), *([] if stem == "__init__" else [stem])]
        yield ".".join(parts)
        outer = folder
        while outer in self._packages and "/" in outer:
            outer = outer.rpartition("/")[0]
        if outer and outer not in self._packages:
            yield ".".join(parts[outer.count("/") + 1 :])
        for root in _ROOTS:
            if path.startswith(root):
                yield ".".join(parts[1:])


def _family(language: str) -> str:
    return _FAMILIES.get(language, language)
