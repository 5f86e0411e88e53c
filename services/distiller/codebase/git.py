"""Runs git in a repository that may be hostile: nothing that its configuration names is started.

A repository may name programs for git to run: hooks, a file system monitor, external diffs, text
converters, helpers of remotes. None is: hooks and the monitor are switched off, no protocol is
allowed, so that nothing is fetched, and callers that show differences pass `NO_PROGRAMS`. Commands
that compare the work tree with the index, such as `git status`, would run filters: never use them.
The user's own configuration stays in force, for its ignored files and its safe directories.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Sequence

from shared import errors

NO_PROGRAMS = ("--no-ext-diff", "--no-textconv")
"""For `log`, `show` and `diff`."""
_SETTINGS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "core.quotePath=false",
    "core.pager=cat",
    "core.alternateRefsCommand=",
    "diff.external=",
    "log.showSignature=false",
    "protocol.allow=never",
)
_LONGEST_S = 120.0
_UNSAFE = "dubious ownership"


def run(root: pathlib.Path, arguments: Sequence[str], given: bytes = b"") -> bytes:
    """What a git command prints.

    Args:
        root: the folder to run in.
        arguments: the command and its arguments.
        given: standard input.

    Raises:
        errors.InvalidInputError: git failed, or took too long; the message says how.
        errors.PreconditionError: there is no git on this machine.
    """
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    command = ["git", "--no-pager", *settings, "-C", str(root), *arguments]
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, env=_environment(), timeout=_LONGEST_S
        )
    except FileNotFoundError:
        raise errors.PreconditionError(
            "git: there is no such program on this machine; install git to learn a repository"
        ) from None
    except subprocess.TimeoutExpired:
        raise errors.InvalidInputError(
            f"{root}: git {arguments[0]} took over {_LONGEST_S:.0f} s; is the repository whole?"
        ) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        if _UNSAFE in said:
            raise errors.InvalidInputError(
                f"{root}: another user owns this repository, so git does not read it; if you trust"
                f" it, run: git config --global --add safe.directory {root}"
            )
        raise errors.InvalidInputError(
            f"{root}: git {arguments[0]} failed: {errors.brief(said)}; check the repository"
            " with: git fsck"
        )
    return done.stdout


def blobs(root: pathlib.Path, names: Sequence[str], most_bytes: int) -> dict[str, bytes]:
    """The bytes of several blobs, as they were committed: no filter is run.

    Args:
        root: the folder to run in.
        names: blob ids, or `COMMIT:PATH`; those that are no blob, or whose name holds a line
            break, are left out.
        most_bytes: larger ones are left out, and never read.

    Raises:
        errors.InvalidInputError: as of `run`.
    """
    plain = [name for name in dict.fromkeys(names) if "\n" not in name]
    told_of = _cat(root, "--batch-check", plain).split(b"\n")[:-1]
    plain = [name for name, told in zip(plain, told_of, strict=True) if _is_blob(told, most_bytes)]
    output = _cat(root, "--batch", plain)
    found, place = dict[str, bytes](), 0
    for name in plain:
        end = output.index(b"\n", place)
        size = int(output[place:end].rpartition(b" ")[2])
        place = end + 1
        found[name] = output[place : place + size]
        place += size + 1
    return found


def _cat(root: pathlib.Path, form: str, names: Sequence[str]) -> bytes:
    given = b"".join(os.fsencode(name) + b"\n" for name in names)
    return run(root, ["cat-file", form], given) if names else b""


def _is_blob(told: bytes, most_bytes: int) -> bool:
    """Whether a line of `cat-file --batch-check` tells of a blob of at most so many bytes."""
    words = told.split(b" ")
    return words[-1].isdigit() and words[-2] == b"blob" and int(words[-1]) <= most_bytes


def _environment() -> dict[str, str]:
    """Without what could lead git elsewhere or to a program."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
