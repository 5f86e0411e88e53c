"""Before and after: what commits made of the definitions that a repository has now.

Walks the history from its newest commit and compares the two versions of each changed file,
function by function. A pair counts where its after still stands in the commit that is learned, so
that nobody is taught what was given up. Of Python alone.

Asks git for commits and blobs only: nothing that a repository could configure, such as filters,
textconv or hooks, is run.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import itertools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence, Set

from services.distiller.codebase import chunks, git
from services.distiller.codebase.lessons import source
from shared import scrubbing

_LEAST_ALIKE, _MOST_ALIKE = 0.3, 0.995
"""Share of lines that before and after have in common: less is another function of that name."""
_AT_ONCE = 64
"""Changes whose files are read in one call of git."""
_LEAST_SUBJECT_WORDS = 3
_MOST_SUBJECT_CHARACTERS = 160
_MOST_BLOB_BYTES = 512 * 1024
_COMMIT = re.compile(r"\x01(?P<commit>[0-9a-f]+)\x02(?P<subject>[^\x00]*)")
_KINDLESS = re.compile(r"^(?:\w+(?:\([\w\s,./-]*\))?!?: |\[[\w\s#-]+\] *)")
_TICKETS = re.compile(r"\s*\(?(?:#\d+|\b[A-Z]{2,10}-\d+)\)?")
_NO_CODE = frozenset({"merge", "revert", "wip", "fixup!", "squash!", "bump"})


@dataclasses.dataclass(frozen=True)
class Pair:
    """A definition before a commit, and the commit's own words."""

    before: str
    """Out of its indentation."""
    subject: str
    """First line of the message."""
    commit: str


@dataclasses.dataclass(frozen=True)
class _Change:
    """One file that a commit changed."""

    commit: str
    subject: str
    path: str
    old: str
    """Blob ids."""
    new: str


def pairs(
    root: pathlib.Path, commit: str, most_commits: int, now: Sequence[chunks.Chunk]
) -> dict[str, Pair]:
    """The pair of each definition that a commit changed into what it is.

    Args:
        root: of the repository.
        commit: where to begin.
        most_commits: how far to go.
        now: the definitions as they are; of others than Python's functions nothing is found.

    Returns:
        By `key` of the definition; the newest commit where several made it so.

    Raises:
        errors.SkillmeshError: git failed.
    """
    pending: dict[str, dict[str, str]] = {}
    for chunk in now:
        if chunk.language == source.PYTHON and chunk.form != chunks.Form.CLASS:
            pending.setdefault(chunk.path, {})[chunk.symbol] = chunk.text
    found: dict[str, Pair] = {}
    blobs = _Blobs(root)
    changes = (one for one in _changes(root, commit, most_commits) if one.path in pending)
    while some := list(itertools.islice(changes, _AT_ONCE)):
        blobs.fetch({blob for one in some if pending[one.path] for blob in (one.old, one.new)})
        for change in some:
            wanted = pending[change.path]
            if not wanted:
                continue
            after, before = blobs.definitions(change.new), blobs.definitions(change.old)
            for symbol, text in list(wanted.items()):
                old = before.get(symbol)
                # As text first: most definitions of a file are not what a commit changed.
                if old is None or old == text or after.get(symbol) != text:
                    continue
                del wanted[symbol]
                if differs(old, text):
                    pair = Pair(source.dedented(old), change.subject, change.commit)
                    found[key(change.path, symbol)] = pair
    return found


def key(path: str, symbol: str) -> str:
    """Names a definition within the repository."""
    return f"{path}\0{symbol}"


def differs(before: str, after: str) -> bool:
    """Whether a change says something: more than layout, comments, docstring or a new name.

    Neither does one that left hardly a line as it was.
    """
    old, new = _code(before), _code(after)
    if not old or not new or old == new:
        return False
    if _renamed(source.tokens(old), source.tokens(new)):
        return False
    alike = difflib.SequenceMatcher(None, old.split("\n"), new.split("\n"), autojunk=False).ratio()
    return _LEAST_ALIKE <= alike <= _MOST_ALIKE


def told(subject: str) -> str:
    """What a commit's subject says, without tickets, kinds, and what is personal or secret.

    Empty where it says nothing.
    """
    public = scrubbing.scrub(subject.strip())
    plain = _TICKETS.sub("", _KINDLESS.sub("", public)).strip().rstrip(".")
    words = plain.split()
    if len(words) < _LEAST_SUBJECT_WORDS or words[0].casefold() in _NO_CODE:
        return ""
    return plain if len(plain) <= _MOST_SUBJECT_CHARACTERS else ""


def _code(text: str) -> str:
    """The code of a definition as its tree writes it, docstrings left out."""
    tree = source.tree(text)
    if tree is None:
        return ""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _renamed(old: Sequence[str], new: Sequence[str]) -> bool:
    """Whether one becomes the other by other names alone, each the same throughout."""
    if len(old) != len(new):
        return False
    there: dict[str, str] = {}
    back: dict[str, str] = {}
    for left, right in zip(old, new, strict=True):
        if left != right and not (left.isidentifier() and right.isidentifier()):
            return False
        if there.setdefault(left, right) != right or back.setdefault(right, left) != left:
            return False
    return True


def _changes(root: pathlib.Path, commit: str, most_commits: int) -> Iterator[_Change]:
    """Files that were changed rather than added, from the newest commit on."""
    # Neither by path nor by kind of change: git would go on until it has so many that match.
    output = git.run(
        root,
        [
            "log", f"--max-count={most_commits}", "--no-merges", "--raw", "--no-abbrev",
            "--no-renames", "--no-color", "--ignore-submodules=all", "-z", *git.NO_PROGRAMS,
            "--format=%x01%H%x02%s", commit, "--",
        ],
    ).decode(errors="replace")  # fmt: skip
    commit_id = subject = ""
    fields = iter(output.split("\0"))
    for field in fields:
        named = _COMMIT.match(field.lstrip("\n"))
        if named is not None:
            commit_id, subject = named["commit"], named["subject"].strip()
            continue
        told_of = field.lstrip("\n").split(" ")
        if not told_of[0].startswith(":") or len(told_of) != 5:
            continue
        path = next(fields, "")
        if told_of[4] == "M":
            yield _Change(commit_id, subject, path, told_of[2], told_of[3])


class _Blobs:
    """Versions of files, as their definitions."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._known: dict[str, Mapping[str, str]] = {}

    def fetch(self, ids: Set[str]) -> None:
        """Reads these in one call of git, and forgets all others."""
        # A version is the new one of a commit and the old one of the next.
        self._known = {blob: told for blob, told in self._known.items() if blob in ids}
        missing = sorted(ids - self._known.keys())
        if not missing:
            return
        read = git.blobs(self._root, missing, _MOST_BLOB_BYTES)
        self._known |= {name: _read(data) for name, data in read.items()}

    def definitions(self, blob: str) -> Mapping[str, str]:
        """The text of each function, by symbol; none where the version is missing or no Python."""
        return self._known.get(blob, {})


def _read(data: bytes) -> Mapping[str, str]:
    text = data.decode(errors="replace").replace("\r\n", "\n")
    if text[:1] in (" ", "\t"):
        return {}
    tree = source.tree_of_any_depth(text)
    return dict(_definitions(tree, text.split("\n"), "")) if tree is not None else {}


def _definitions(node: ast.AST, lines: Sequence[str], within: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _definitions(child, lines, f"{within}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([child.lineno, *(one.lineno for one in child.decorator_list)])
            yield f"{within}{child.name}", "\n".join(lines[first - 1 : child.end_lineno])
