"""A cluster with tokens, and the teacher that it asks."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from services.gateway.cluster import cluster
from shared import settings as config
from shared.security import certs
from tests.e2e import counting_teacher
from tests.e2e.taught import lessons

TOGETHER = "owners"
"""The one that the ordinary suite starts."""
_GATHER_S = 0.5
"""Nobody asks a second question about the same."""


@dataclasses.dataclass(frozen=True)
class School:
    """See `opened`."""

    local: cluster.Cluster
    teacher: counting_teacher.CountingTeacher
    token: str
    """An operator's."""


@contextlib.contextmanager
def opened(
    folder: pathlib.Path, facts: Sequence[Sequence[counting_teacher.Fact]]
) -> Iterator[School]:
    """Starts it.

    Args:
        folder: gets the state folder, and certificates and tokens.
        facts: lessons that the teacher knows.
    """
    tokens = certs.make(folder / "certs", [])
    own = folder / "certs" / "operator.token"
    own.touch(mode=0o600)
    own.write_text(tokens["operator"])
    settings = config.load(cluster.ROOT / "config.yaml")
    recipe = settings.model.recipe().model_copy(update={"max_steps": lessons.STEPS})
    with counting_teacher.CountingTeacher(facts) as teacher:
        changed = {
            "evolution": config.Evolution(provider_type="local", endpoint=teacher.endpoint),
            "model": settings.model.model_copy(update={"recipes": {settings.model.base: recipe}}),
            # What the judge asks would count like a call that is repeated.
            "distiller": settings.distiller.model_copy(update={"judge": "none"}),
            "factory": settings.factory.model_copy(update={"gather_s": _GATHER_S}),
            "security": config.Security(tokens=folder / "certs" / "tokens.json", token_file=own),
        }
        private = cluster.Cluster.private(folder / "state", settings.model_copy(update=changed))
        with private as local:
            yield School(local, teacher, tokens["operator"])
