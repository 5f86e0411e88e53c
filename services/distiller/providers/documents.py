"""`DocumentProvider`: a teacher without a model, that reads the user's own documents.

Answers are quoted, never composed: the sentences that most probably answer a question. Where that
is not clear between neighbours it quotes up to three. Needs the embedder, reached through the
router's `Embed`.

It makes facts alone. Implications and near misses are left to language models: rules that turn a
sentence round, or ask it as a yes/no question, have to know what its words refer to, and would
teach that every question of that form is answered with yes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence

from services.distiller import filters, vectors
from services.distiller.documents import asking, ranking, reading, words
from services.distiller.providers import base
from shared import errors
from shared.flight import datasets

NAME = "documents"
_LEAST_SIMILARITY = 0.40
"""Below this no passage speaks of what the question is about."""
_ENOUGH_PROBABILITY = 0.8
_MOST_SENTENCES = 3
_SUMMARY_SENTENCES = 3
_LONGEST_SUMMARY_CHARACTERS = 400
_MOST_NEIGHBOURS, _LONGEST_PASSAGE_CHARACTERS = 3, 4000
_LEAST_NEW_STEMS = 2
"""An answer says more than the question by at least so many words."""
_FILLED_UP_TO = 8
"""Where fewer questions were asked, the card also learns what else the document says: a question
about it would be routed to the card. Beyond that, what nobody asked only stands in the way."""


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where a question finds its answer."""

    indexed: ranking.IndexedDocument
    similarity: float


class DocumentProvider(base.CloudProvider):
    """Makes pairs from the documents of one folder."""

    name = NAME
    queries_a_call = 64
    repeats = frozenset({NAME})

    def __init__(self, folder: pathlib.Path, embed: vectors.AsyncEmbed) -> None:
        """Takes the knowledge folder and the embedder; reads at each request.

        Args:
            folder: holds files of `reading.SUFFIXES`, which may come and go.
            embed: texts to unit vectors.
        """
        self._folder, self._embed = folder, embed
        self._reader = reading.FolderReader(folder)
        self._indexed: dict[str, ranking.IndexedDocument] = {}
        self._lock = asyncio.Lock()

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        """Answers the request's questions, then makes questions for the rest of the document."""
        sources = [await self._source(query, request.document) for query in request.queries]
        pairs = [
            await self._answer(query, source)
            for query, source in zip(request.queries, sources, strict=True)
            if source is not None
        ]
        subject = await self._subject(request, sources)
        if subject is None:
            raise errors.NotFoundError(
                f"no document in {self._folder} says anything about "
                f"{request.topic or request.document or list(request.queries)!r}; add one with "
                "`make teach doc=PATH`, or configure another teacher in config.yaml (evolution)"
            )
        said = {pair.answer for pair in pairs}
        for passage in subject.document.passages:
            if len(pairs) >= min(
                request.count, _FILLED_UP_TO if request.queries else request.count
            ):
                break
            if any(passage.text in answer for answer in said):
                continue
            pairs.extend(_unasked(subject.document, passage))
        return pairs[: request.count]

    async def prepare(self) -> None:
        """Embeds the documents."""
        await self._documents()

    async def locate(self, queries: Sequence[str]) -> list[base.Location]:
        """The document that each question is about."""
        found = []
        for query in queries:
            source = await self._source(query, "")
            found.append(
                base.Location("", 0.0)
                if source is None
                else base.Location(source.indexed.document.name, source.similarity)
            )
        return found

    async def subject(
        self, request: base.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> base.Subject:
        """Heading and beginning of the document that most answers come from."""
        names = [pair.source.partition(":")[0] for pair in pairs]
        if not names:
            return base.Subject()
        name = max(dict.fromkeys(names), key=names.count)
        path = self._folder / name
        if not path.is_file():
            return base.Subject(pathlib.Path(name).stem)
        document = reading.read(path)
        beginning = " ".join(passage.text for passage in document.passages[:_SUMMARY_SENTENCES])
        return base.Subject(document.title, beginning[:_LONGEST_SUMMARY_CHARACTERS])

    async def _answer(self, query: str, source: _Source) -> datasets.QAPair:
        document = source.indexed.document
        vector, plain = await self._embed([query, ranking.unnamed(query, document.title)])
        ranked = source.indexed.rank(query, vector, plain)
        chosen, sure = [ranked[0]], ranked[0].probability
        while sure < _ENOUGH_PROBABILITY and len(chosen) < min(_MOST_SENTENCES, len(ranked)):
            further = ranked[len(chosen)]
            if (
                sum(len(one.passage.text) + 1 for one in (*chosen, further))
                > filters.LONGEST_CHARACTERS
            ):
                break
            chosen.append(further)
            sure += further.probability
        order = {passage: at for at, passage in enumerate(document.passages)}
        passages = sorted((one.passage for one in chosen), key=lambda one: order[one])
        passages = _completed(query, passages, document.passages[order[passages[-1]] + 1 :])
        return datasets.QAPair(
            question=query,
            answer=" ".join(passage.text for passage in passages),
            # Who has read the document asks in its words.
            paraphrases=tuple(asking.questions(document.title, ranked[0].passage)[-1:]),
            source=f"{document.name}:{ranked[0].passage.line}",
            teacher=NAME,
            score=min(1.0, sure),
            passage=_around(document, passages),
        )

    async def _source(self, query: str, document: str) -> _Source | None:
        documents = await self._documents()
        if document:
            documents = [one for one in documents if one.document.name == document]
        if not documents:
            return None
        vector = (await self._embed([query]))[0]
        best = max(documents, key=lambda one: one.similarity(vector))
        similarity = best.similarity(vector)
        if similarity < _LEAST_SIMILARITY and not document:
            return None
        return _Source(best, similarity)

    async def _subject(
        self, request: base.QARequest, sources: Sequence[_Source | None]
    ) -> ranking.IndexedDocument | None:
        """The document that the skill is about."""
        found = [source.indexed for source in sources if source is not None]
        if found:
            return max(found, key=found.count)
        if request.document or request.topic:
            source = await self._source(request.topic, request.document)
            return None if source is None else source.indexed
        return None

    async def _documents(self) -> list[ranking.IndexedDocument]:
        async with self._lock:
            documents = await asyncio.to_thread(self._reader.read)
            kept = {}
            for document in documents:
                key = hashlib.sha256(repr(document).encode()).hexdigest()
                kept[key] = self._indexed.get(key) or await ranking.IndexedDocument.index(
                    document, self._embed
                )
            self._indexed = kept
            return list(kept.values())


def _completed(
    query: str, quoted: list[reading.Passage], after: Sequence[reading.Passage]
) -> list[reading.Passage]:
    """Adds the next sentence where the quoted ones only lead up to the answer.

    `Plant a resistant variety.` names what `Which variety is resistant?` asks about, and no more.
    """
    kind, asked = words.wanted(query), words.stems(query)
    texts = [passage.text for passage in quoted]
    if not after or len(" ".join([*texts, after[0].text])) > filters.LONGEST_CHARACTERS:
        return quoted
    new = {stem for text in texts for stem in words.stems(text)} - asked
    lacks_kind = not any(words.offers(text, kind, asked) for text in texts)
    if len(new) < _LEAST_NEW_STEMS or (lacks_kind and words.offers(after[0].text, kind, asked)):
        return [*quoted, after[0]]
    return quoted


def _unasked(document: reading.Document, passage: reading.Passage) -> list[datasets.QAPair]:
    questions = asking.questions(document.title, passage)
    if not questions:
        return []
    return [
        datasets.QAPair(
            question=questions[0],
            answer=passage.text,
            paraphrases=tuple(questions[1:]),
            source=f"{document.name}:{passage.line}",
            teacher=NAME,
            score=datasets.UNASKED_SCORE,
            passage=_around(document, [passage]),
        )
    ]


def _around(document: reading.Document, quoted: Sequence[reading.Passage]) -> str:
    """Title and what stands around quoted passages, by turns before and after them."""
    all_passages = document.passages
    chosen = {at for at, passage in enumerate(all_passages) if passage in quoted}
    size = sum(len(all_passages[at].text) for at in chosen)
    for _ in range(_MOST_NEIGHBOURS):
        beside = {at + step for at in chosen for step in (-1, 1)} - chosen
        for at in sorted(beside & set(range(len(all_passages)))):
            size += len(all_passages[at].text)
            if size > _LONGEST_PASSAGE_CHARACTERS:
                break
            chosen.add(at)
    return "\n".join([document.title, *(all_passages[at].text for at in sorted(chosen))])
