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


def blobs(root: pathlib.Path, names: Sequence[str]) -> dict[str, bytes]:
    """The bytes of several blobs, as they were committed: no filter is run.

    Args:
        root: the folder to run in.
        names: blob ids, or `COMMIT:PATH`; those that are no blob, or whose name holds a line
            break, are left out.

    Raises:
        errors.InvalidInputError: as of `run`.
    """
    plain = [name for name in dict.fromkeys(names) if "\n" not in name]
    given = b"".join(os.fsencode(name) + b"\n" for name in plain)
    output = run(root, ["cat-file", "--batch"], given) if plain else b""
    found, place = dict[str, bytes](), 0
    for name in plain:
        end = output.index(b"\n", place)
        told = output[place:end].split(b" ")
        place = end + 1
        if told[-1] in (b"missing", b"ambiguous"):
            continue
        size = int(told[-1])
        if told[-2] == b"blob":
            found[name] = output[place : place + size]
        place += size + 1
    return found


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
