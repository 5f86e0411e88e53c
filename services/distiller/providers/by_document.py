"""`ByDocument`: a request that names a document goes to whoever can read it."""

from __future__ import annotations

from collections.abc import Sequence

from services.distiller.providers import base, breaker
from shared.flight import datasets


class ByDocument(base.CloudProvider):
    """Two teachers: one for documents of the knowledge folder, one for everything else.

    Without it a cloud teacher would be asked about a document that it has never seen.
    """

    def __init__(self, documents: base.CloudProvider, others: base.CloudProvider) -> None:
        """Takes the reader of documents and the teacher of everything else."""
        self._documents = documents
        self._others = others
        self.name = others.name
        self.queries_a_call = others.queries_a_call
        self.writes_code = others.writes_code
        self.repeats = documents.repeats | others.repeats

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        """Asks the one that the request is for."""
        return await self._for(request).generate_qa(request)

    async def write_code(self, request: base.CodeRequest) -> base.CodeAnswer:
        """Asks the teacher of everything else."""
        return await self._others.write_code(request)

    async def prepare(self) -> None:
        """Prepares both."""
        await self._others.prepare()
        await self._documents.prepare()

    async def locate(self, queries: Sequence[str]) -> list[base.Location]:
        """What the teacher of everything else says."""
        return await self._others.locate(queries)

    async def subject(
        self, request: base.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> base.Subject:
        """As the one says that the request is for."""
        return await self._for(request).subject(request, pairs)

    def circuits(self) -> list[breaker.Circuit]:
        """Those of everything else: the reader of documents is always asked."""
        return self._others.circuits()

    async def aclose(self) -> None:
        """Closes both."""
        await self._documents.aclose()
        await self._others.aclose()

    def _for(self, request: base.QARequest) -> base.CloudProvider:
        return self._documents if request.document else self._others
