"""Which licence a file is under: its own SPDX line, else the nearest licence file above it.

Licences are told by phrases that only they have. A licence file whose text is of none of them is
`UNKNOWN`, which no allow-list names: something is stated, nobody here can say what.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from typing import Any

UNKNOWN = "LicenseRef-unknown"
_FILE_NAME = re.compile(r"(?i)(?:licen[cs]e|copying|unlicense)(?:[-_.][\w.-]+)?$")
_EXPRESSION = re.compile(r"[A-Za-z0-9.+()-]+(?:[ \t]+[A-Za-z0-9.+()-]+)*")
_LONGEST_EXPRESSION = 120
_SPDX_LINE = re.compile(rf"SPDX-License-Identifier:[ \t]*({_EXPRESSION.pattern})")
_CHARACTERS_WITH_HEADER = 4_000
_TITLE_CHARACTERS = 400
"""GNU licences name one another in their text, but not in their titles."""
_PHRASES: tuple[tuple[str, str], ...] = (
    ("commons clause", UNKNOWN),
    ("business source license", "BUSL-1.1"),
    ("server side public license", "SSPL-1.0"),
    ("apache license version 2.0", "Apache-2.0"),
    ("licensed under the apache license, version 2.0", "Apache-2.0"),
    ("mozilla public license version 2.0", "MPL-2.0"),
    ("boost software license - version 1.0", "BSL-1.0"),
    ("this is free and unencumbered software released into the public domain", "Unlicense"),
    ("cc0 1.0 universal", "CC0-1.0"),
    ("python software foundation license version 2", "PSF-2.0"),
    ("eclipse public license - v 2.0", "EPL-2.0"),
    ("altered source versions must be plainly marked as such", "Zlib"),
    ("all advertising materials mentioning features", "BSD-4-Clause"),
    ("permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
)
_GNU = (
    ("gnu affero general public license", {"3": "AGPL-3.0-only"}),
    ("gnu lesser general public license", {"3": "LGPL-3.0-only", "2.1": "LGPL-2.1-only"}),
    ("gnu general public license", {"3": "GPL-3.0-only", "2": "GPL-2.0-only"}),
)
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}


def is_licence_file(name: str) -> bool:
    """Whether a file of this name, without folders, states a licence."""
    return _FILE_NAME.match(name) is not None and not name.endswith((".py", ".js", ".go", ".rs"))


def of_text(text: str) -> str:
    """SPDX identifier of a licence file's text, or `UNKNOWN`."""
    declared = of_header(text)
    if declared:
        return declared
    plain = re.sub(r"[\s*#/]+", " ", text).strip().casefold()
    title = plain[:_TITLE_CHARACTERS]
    named = [(title.find(name), versions) for name, versions in _GNU if name in title]
    if named:
        _, versions = min(named, key=lambda one: one[0])
        told = re.search(r"version (\d(?:\.\d)?)", title)
        return versions.get(told[1] if told else "", UNKNOWN)
    for phrase, licence in _PHRASES:
        if phrase in plain:
            return licence
    if "redistribution and use in source and binary forms" in plain:
        return "BSD-3-Clause" if "neither the name" in plain else "BSD-2-Clause"
    if re.search(
        r"permission to use, copy, modify,? and/?(?:or)? ?distribute this software", plain
    ):
        return "ISC" if "provided that the above copyright notice" in plain else "0BSD"
    return UNKNOWN


def of_header(text: str) -> str:
    """The SPDX expression that a file's first lines declare; empty where they declare none."""
    found = _SPDX_LINE.search(text[:_CHARACTERS_WITH_HEADER])
    return _expression(found[1]) if found else ""


def _expression(text: str) -> str:
    """What may be an SPDX expression; any other text is `UNKNOWN`: people write who they are."""
    plain = text.strip()
    is_one = len(plain) <= _LONGEST_EXPRESSION and _EXPRESSION.fullmatch(plain)
    return plain if is_one else UNKNOWN


def of_pyproject(text: str) -> str:
    """The licence that a `pyproject.toml` declares; empty where it declares none."""
    try:
        project: dict[str, Any] = tomllib.loads(text).get("project", {})
        declared = project.get("license", "")
        if isinstance(declared, dict):
            declared = declared.get("text", "")
        if isinstance(declared, str) and declared.strip():
            return _expression(declared) if "\n" not in declared.strip() else of_text(declared)
        for classifier in project.get("classifiers", ()):
            licence = _CLASSIFIERS.get(str(classifier).rpartition(" :: ")[2])
            if licence:
                return licence
    except (tomllib.TOMLDecodeError, AttributeError, TypeError, RecursionError):
        return ""
    return ""


def of_files(texts: Mapping[str, str]) -> str:
    """The SPDX expression of one folder's licence files, by name.

    `LICENSE-MIT` beside `LICENSE-APACHE` gives the choice, as is the custom; others hold together.
    """
    found = {name: of_text(text) for name, text in texts.items()}
    choice = len(found) > 1 and all(re.search(r"(?i)licen[cs]e[-_]\w+", name) for name in found)
    return (" OR " if choice else " AND ").join(sorted(set(found.values())))


class Nearest:
    """The licence of the nearest folder above a file that states one."""

    def __init__(self, by_folder: Mapping[str, str]) -> None:
        """Takes SPDX expressions by folder; that of the root is the empty string."""
        self._by_folder = by_folder

    def __call__(self, path: str) -> str:
        """The SPDX expression; empty where none is stated."""
        folder = path
        while folder:
            folder = folder.rpartition("/")[0]
            if folder in self._by_folder:
                return self._by_folder[folder]
        return self._by_folder.get("", "")


def nearest(paths: Collection[str], read: Callable[[str], str | None]) -> Nearest:
    """Reads the licences that the files among these paths state.

    Args:
        paths: all of a repository.
        read: gives a file's text, or None.
    """
    by_folder: dict[str, dict[str, str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if is_licence_file(name) and (text := read(path)) is not None:
            by_folder.setdefault(folder, {})[name] = text
    found = {folder: of_files(texts) for folder, texts in by_folder.items()}
    if "" not in found and "pyproject.toml" in paths:
        text = read("pyproject.toml")
        if text and (declared := of_pyproject(text)):
            found[""] = declared
    return Nearest(found)


@functools.lru_cache(maxsize=1_000)
def is_allowed(expression: str, allowed: tuple[str, ...]) -> bool:
    """Whether an SPDX expression can be met with licences of the allow-list alone.

    `OR` needs one side, `AND` both; an exception (`WITH`) only adds rights. What is no such
    expression is not allowed.
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    known = {licence.casefold() for licence in allowed}
    try:
        value, rest = _either(tokens, known)
    except (IndexError, RecursionError):
        return False
    return value and not rest


def _either(tokens: list[str], known: set[str]) -> tuple[bool, list[str]]:
    value, tokens = _both(tokens, known)
    while tokens and tokens[0].upper() == "OR":
        other, tokens = _both(tokens[1:], known)
        value = value or other
    return value, tokens


def _both(tokens: list[str], known: set[str]) -> tuple[bool, list[str]]:
    value, tokens = _one(tokens, known)
    while tokens and tokens[0].upper() == "AND":
        other, tokens = _one(tokens[1:], known)
        value = value and other
    return value, tokens


def _one(tokens: list[str], known: set[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        value, tokens = _either(tokens[1:], known)
        return value, tokens[1:] if tokens[0] == ")" else [*tokens, ")"]
    value, tokens = tokens[0].casefold() in known, tokens[1:]
    return value, tokens[2:] if tokens and tokens[0].upper() == "WITH" else tokens
