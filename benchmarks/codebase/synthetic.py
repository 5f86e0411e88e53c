"""A repository of any length that nobody wrote: six languages, every definition another.

Each function is drawn from a grammar of statements over names of its own, so that parsers, the
search for calls and that for near-duplicates have as much to do as with a real one.
"""

from __future__ import annotations

import pathlib
import random
import subprocess
from collections.abc import Iterable

_NOUNS = """account batch bucket cache card channel cluster column contract customer digest document
 edge event factor field filter frame graph group header index invoice journal kernel label layer
 ledger limit matrix message metric model node notice offset order packet parcel payment policy
 profile quota record region report request route sample schema segment session signal snapshot
 source stage stream summary table target tenant ticket token trace tree user vector voucher window
 worker""".split()
_VERBS = """adjust align apply assign balance bind build check close collect compare compute count
 decode derive drop emit encode expand extract fetch fill find flush fold format gather group hash
 insert invert join limit list load lock map mark match measure merge move normalise open pack parse
 pick plan prune publish rank read record reduce refresh reject render replace resolve rotate round
 scale scan score select send shift sort split spread store sum swap sync trim update validate weigh
 wrap write""".split()
_PYTHON_SHARE = 0.6
_DEFINITIONS_A_FILE = 14
_OTHERS = ("ts", "go", "rs", "java", "c")


def make(root: pathlib.Path, lines: int, seed: int = 0) -> int:
    """Writes and commits a repository.

    Args:
        root: an empty folder.
        lines: at least so many, tests included.
        seed: another gives another repository.

    Returns:
        How many lines of code it has.
    """
    rng = random.Random(seed)
    written, number, others = 0, 0, 0
    while written < lines:
        number += 1
        if rng.random() < _PYTHON_SHARE:
            files = _python_files(rng, number)
        else:
            files = _other_file(rng, number, _OTHERS[others % len(_OTHERS)])
            others += 1
        for path, text in files:
            full = root / path
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text(text, encoding="utf-8")
            written += text.count("\n")
    commit(root)
    return written


def commit(root: pathlib.Path) -> None:
    """Makes the folder a repository with one commit of all that is in it."""
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "All"],
    ):
        subprocess.run(["git", "-C", str(root), *command], check=True)


class _Names:
    """Names that differ within a file."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._taken: set[str] = set()

    def of_function(self) -> str:
        while True:
            name = f"{self._rng.choice(_VERBS)}_{self.noun()}_{self.noun()}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def noun(self) -> str:
        return self._rng.choice(_NOUNS)

    def some_nouns(self, count: int) -> list[str]:
        return self._rng.sample(_NOUNS, count)


def _expression(rng: random.Random, known: list[str]) -> str:
    left, right = rng.choice(known), rng.choice([*known, str(rng.randrange(1, 999))])
    return f"{left} {rng.choice(['+', '-', '*'])} {right}"


def _python_files(rng: random.Random, number: int) -> Iterable[tuple[str, str]]:
    names = _Names(rng)
    functions: list[str] = []
    parts = [f'"""Module {number}."""\n\nimport json\nimport math\n']
    for _ in range(_DEFINITIONS_A_FILE):
        name = names.of_function()
        parts.append(_python_function(rng, names, name, functions))
        functions.append(name)
    nouns = names.some_nouns(3)
    methods = "\n".join(
        _indented(_python_function(rng, names, names.of_function(), functions, "self, "))
        for _ in range(4)
    )
    head = f"class {nouns[0].title()}{nouns[1].title()}:\n"
    parts.append(f'{head}    """A {nouns[0]} of one {nouns[1]}."""\n\n{methods}')
    folder, module = f"app/part_{number % 40}", f"{nouns[0]}_{nouns[2]}_{number}"
    yield f"{folder}/{module}.py", "\n\n".join(parts)
    tested = rng.sample(functions, 4)
    body = "\n\n".join(
        f"def test_{name}():\n    assert {module}.{name}({rng.randrange(99)}, 2, 3) is not None\n"
        for name in tested
    )
    path = f"tests/test_{module}.py"
    yield path, f"from {folder.replace('/', '.')} import {module}\n\n\n{body}"


def _python_function(
    rng: random.Random, names: _Names, name: str, functions: list[str], own: str = ""
) -> str:
    arguments = names.some_nouns(3)
    known, lines = list(arguments), []
    for _ in range(rng.randrange(2, 7)):
        fresh, shape = f"{names.noun()}_{rng.randrange(9)}", rng.randrange(5)
        if shape == 0:
            lines.append(f"    if {rng.choice(known)} > {rng.randrange(999)}:")
            lines.append(f"        return {_expression(rng, known)}")
        elif shape == 1:
            lines.append(f"    {fresh} = 0")
            lines.append(f"    for step in range({rng.randrange(2, 40)}):")
            lines.append(f"        {fresh} += step * ({_expression(rng, known)})")
        elif shape == 2 and functions:
            lines.append(
                f"    {fresh} = {rng.choice(functions)}({', '.join(rng.choices(known, k=3))})"
            )
        elif shape == 3:
            lines.append(
                f"    {fresh} = json.loads('{{\"{names.noun()}\": {rng.randrange(999)}}}')"
            )
            lines.append(f"    {fresh} = sum({fresh}.values())")
        else:
            lines.append(f"    {fresh} = math.floor({_expression(rng, known)})  # {names.noun()}")
        known.append(fresh)
    head = f"def {name}({own}{', '.join(f'{one}: float' for one in arguments)}) -> float:"
    told = f'    """{name.replace("_", " ").capitalize()} by its {arguments[0]}."""'
    return "\n".join([head, told, *lines, f"    return {known[-1]}", ""])


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else line for line in text.split("\n"))


def _other_file(rng: random.Random, number: int, suffix: str) -> Iterable[tuple[str, str]]:
    names = _Names(rng)
    made = [_braced_function(rng, names, suffix) for _ in range(_DEFINITIONS_A_FILE)]
    body = "\n".join(made)
    stem = f"{names.noun()}_{number}"
    wrapped = {
        "java": f"package app;\n\npublic class {stem.title()} {{\n{body}\n}}\n",
        "go": f"package app\n\n{body}",
    }
    yield f"app/native_{number % 20}/{stem}.{suffix}", wrapped.get(suffix, body)


def _braced_function(rng: random.Random, names: _Names, suffix: str) -> str:
    arguments, name = names.some_nouns(3), names.of_function()
    known, lines = list(arguments), []
    declared = {"ts": "const {} = {};", "go": "{} := {}", "rs": "let {} = {};"}
    declare = declared.get(suffix, "int {} = {};")
    condition = "if {} > {} {{" if suffix in ("go", "rs") else "if ({} > {}) {{"
    stop = "" if suffix == "go" else ";"
    for step in range(rng.randrange(3, 8)):
        if rng.random() < 0.4:
            lines.append("    " + condition.format(rng.choice(known), rng.randrange(999)))
            lines += [f"        return {_expression(rng, known)}{stop}", "    }"]
        else:
            fresh = f"{names.noun()}{step}"
            lines.append("    " + declare.format(fresh, _expression(rng, known)))
            known.append(fresh)
    a, b, c = arguments
    head = {
        "ts": f"export function {name}({a}: number, {b}: number, {c}: number): number {{",
        "go": f"func {name}({a} int, {b} int, {c} int) int {{",
        "rs": f"pub fn {name}({a}: i64, {b}: i64, {c}: i64) -> i64 {{",
        "java": f"    public int {name}(int {a}, int {b}, int {c}) {{",
        "c": f"static int {name}(int {a}, int {b}, int {c}) {{",
    }[suffix]
    told = f"// {name.replace('_', ' ').capitalize()} of one {names.noun()}."
    return "\n".join([told, head, *lines, f"    return {known[-1]}{stop}", "}", ""])
