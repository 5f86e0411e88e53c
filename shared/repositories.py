"""What code bases are called, as folders that may be learned and as cards.

Knows nothing about git; a repository is learned where a folder of its name, or a link to one, lies
in the folder that `distiller.codebase.repositories_dir` names.
"""

from __future__ import annotations

import pathlib
import re

from shared import errors
from shared import settings as config
from shared.cards import manifest as manifests

_CARD = "specialist-"
"""What the names of their cards begin with."""
_LONGEST = 63 - len(_CARD)
_NAME = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{_LONGEST - 1}}}")


def folder(settings: config.Settings) -> pathlib.Path:
    """Where the repositories that may be learned lie."""
    return settings.cluster.state_dir / settings.distiller.codebase.repositories_dir


def name_of(path: pathlib.PurePath) -> str:
    """The name of a repository by the folder that it is in."""
    return manifests.slug(path.name)[:_LONGEST].strip("-")


def card_of(repository: str) -> str:
    """The name of a repository's card."""
    return _CARD + repository


def check_name(repository: str) -> None:
    """Refuses what can't name a repository; what passes is one plain part of a path.

    Raises:
        errors.InvalidInputError: says what names are like.
    """
    if not _NAME.fullmatch(repository):
        raise errors.InvalidInputError(
            f"repository {repository[:100]!r}: a name has lower-case letters, digits and dashes, "
            f"begins with no dash and has at most {_LONGEST} characters; rename the folder or link"
        )
