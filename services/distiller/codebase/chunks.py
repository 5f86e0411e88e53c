"""What a code base is cut into: definitions with what stands around them."""

from __future__ import annotations

import dataclasses
import enum


class Form(enum.StrEnum):
    """What kind of definition a chunk is."""

    CLASS = "class"
    FUNCTION = "function"
    METHOD = "method"


@dataclasses.dataclass(frozen=True)
class Chunk:
    """One definition of one file, as it stands at one commit."""

    path: str
    """Within the repository, with slashes."""
    symbol: str
    """Qualified name within the file, such as `Router.select`."""
    form: Form
    language: str
    """In lower case, such as `python`."""
    text: str
    """The definition's source with its decorators, indented as it stands, no newline at its end."""
    signature: str
    """Its head, up to where the docstring or the body begins."""
    docstring: str
    """What documents it, without quotes or comment signs; empty where nothing does."""
    body: str
    """What follows the signature and the docstring, indented as it stands."""
    line: int
    """Of its first character, from 1."""
    imports: tuple[str, ...] = ()
    """The file's imports that it uses."""
    call_sites: tuple[str, ...] = ()
    """Some lines around places where it is called, the most telling first."""
    tests: tuple[str, ...] = ()
    """Source of tests that use it, the most telling first."""
    test_paths: tuple[str, ...] = ()
    """Of the files in which these tests stand, one for each."""
    licence: str = ""
    """SPDX identifier; empty where the repository does not say."""
    usefulness: float = 0.0
    """The more, the sooner it is taught; only to compare."""
