"""One cluster for all tests of this folder: starting it takes as long as many of them.

Its calls are protected, its teacher are documents. The files run in the order of their names: the
learning loop counts what the cluster did before, which must be nothing.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from services.gateway.cluster import cluster
from services.gateway.command_line import questions
from shared import settings as config
from shared.security import certs

GATHER_S = 12.0
"""A hundred answers take a while on a machine that runs other tests as well."""
CODE_STEPS = 40
"""Of the training on code: enough for files this much alike."""


@pytest.fixture(scope="package")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Cluster]:
    exam = questions.load(None, None)
    state_dir = tmp_path_factory.mktemp("cluster")
    (state_dir / "knowledge").mkdir()
    (state_dir / "knowledge" / exam.document.name).write_text(exam.text)
    settings = config.load(cluster.ROOT / "config.yaml")
    specialist = settings.trainer.specialist.model_copy(update={"min_steps": CODE_STEPS})
    settings = settings.model_copy(
        update={
            "trainer": settings.trainer.model_copy(update={"specialist": specialist}),
            "evolution": config.Evolution(provider_type="documents"),
            "factory": settings.factory.model_copy(update={"gather_s": GATHER_S}),
            "security": _secured(state_dir / "certs"),
            "telemetry": settings.telemetry.model_copy(
                update={"traces": config.Traces(exporter="file")}
            ),
        }
    )
    with cluster.Cluster.private(state_dir, settings) as running:
        yield running


def _secured(folder: pathlib.Path) -> config.Security:
    """What `make certs` makes, mutual TLS, and an operator's token in every process."""
    tokens = certs.make(folder, [])
    own = folder / "operator.token"
    own.touch(mode=0o600)
    own.write_text(tokens["operator"])
    tls = config.Tls(
        certificate=folder / "service.pem",
        key=folder / "service.key",
        authority=folder / "authority.pem",
        client_certificates=True,
    )
    return config.Security(tls=tls, tokens=folder / "tokens.json", token_file=own)
