"""The corpus of the embedded base model: tokenised conversations, prose, and vectors of meaning.

Knows nothing about the model. The questions' sentence embeddings, which take longest to make, are
kept in the work folder, so that an interrupted training need not make them again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import pathlib
import random
import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from shared.models import embedder as embedding
from shared.models.embedded.recipe import conversations, families, prose, recipe, tokenizer

_POOL_GROUPS = 256
"""Groups that are sorted by length together: rows of a batch should be of similar length."""
_CHUNK_TEXTS = 2048


@dataclasses.dataclass(frozen=True)
class Row:
    """One tokenised conversation."""

    ids: list[int]
    answer_start: int
    meaning: int
    """Index of its meaning: wordings of one question share it."""
    vector: int
    """Row of its question's embedding."""


class Corpus:
    """Everything that is trained on."""

    def __init__(self, settings: recipe.Recipe, work: pathlib.Path) -> None:
        """Generates, embeds and tokenises; the first time takes about ten minutes.

        Args:
            settings: sizes, shares and seed.
            work: folder where the embeddings are kept.
        """
        embedder = embedding.Embedder()
        vocabulary = embedder.vocabulary()
        writer = conversations.ConversationWriter(
            vocabulary, random.Random(settings.seed), families.load(), settings.invented_facts
        )
        shares = {
            "known": settings.known_share,
            "invented": settings.invented_share,
            "unknown": settings.unknown_share,
        }
        groups = list(writer.write(settings.conversations, shares))
        paragraphs = prose.paragraphs()
        longer = [word for word in vocabulary if len(word) > 2]
        self.tokenizer = tokenizer.train(
            [*paragraphs, *_plain_wordings(), *_ranked(longer)], settings.vocab_size
        )
        self.word_vectors = word_vectors(self.tokenizer, embedder, settings.hidden)
        questions = list(dict.fromkeys(talk.question for group in groups for talk in group))
        vectors = _embedded(embedder, questions, work)
        self.vectors = F.normalize(torch.from_numpy(vectors - vectors.mean(axis=0)), dim=-1)
        self.groups = self._rows(groups, {text: at for at, text in enumerate(questions)})
        stream = list(itertools.chain.from_iterable(
            [*ids, self.tokenizer.eos_token_id] for ids in self._tokenise(paragraphs)
        ))  # fmt: skip
        self.prose = torch.tensor(stream, dtype=torch.long)

    def _rows(
        self, groups: Sequence[list[conversations.Conversation]], vector_of: dict[str, int]
    ) -> list[list[Row]]:
        talks = [talk for group in groups for talk in group]
        meanings = {m: at for at, m in enumerate(dict.fromkeys(talk.meaning for talk in talks))}
        asked = self._tokenise(
            [f"{tokenizer.USER}{t.question}{tokenizer.END}{tokenizer.ASSISTANT}" for t in talks]
        )
        answered = self._tokenise([f"{talk.answer}{tokenizer.END}" for talk in talks])
        rows = iter(
            Row(question + answer, len(question), meanings[talk.meaning], vector_of[talk.question])
            for talk, question, answer in zip(talks, asked, answered, strict=True)
        )
        return [list(itertools.islice(rows, len(group))) for group in groups]

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False).input_ids
        return ids


def batches(corpus: Corpus, settings: recipe.Recipe) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of groups of similar length, each of about `tokens_a_step` tokens."""
    rng = random.Random(settings.seed + 1)
    groups = list(corpus.groups)
    while True:
        rng.shuffle(groups)
        for at in range(0, len(groups), _POOL_GROUPS):
            pool = sorted(groups[at : at + _POOL_GROUPS], key=_width)
            ready, batch, width = [], list[Row](), 0
            for group in pool:
                width = max(width, _width(group))
                batch.extend(group)
                if len(batch) * width >= settings.tokens_a_step:
                    ready.append(batch)
                    batch, width = [], 0
            rng.shuffle(ready)
            yield from (_collate(rows, corpus) for rows in ready)


def _width(group: Sequence[Row]) -> int:
    return max(len(row.ids) for row in group)


def _collate(batch: list[Row], corpus: Corpus) -> dict[str, torch.Tensor]:
    width = _width(batch)
    ids_B_T = torch.full((len(batch), width), corpus.tokenizer.pad_token_id)
    answers_B_T = torch.zeros(len(batch), width, dtype=torch.bool)
    for index, row in enumerate(batch):
        ids_B_T[index, : len(row.ids)] = torch.tensor(row.ids)
        answers_B_T[index, row.answer_start : len(row.ids)] = True
    return {
        "ids": ids_B_T,
        "answers": answers_B_T,
        "start": torch.tensor([row.answer_start - 1 for row in batch]),
        "meaning": torch.tensor([row.meaning for row in batch]),
        "vectors": corpus.vectors[torch.tensor([row.vector for row in batch])],
    }


def word_vectors(
    vocab: transformers.PreTrainedTokenizerFast, embedder: embedding.Embedder, hidden: int
) -> torch.Tensor:
    """Starting values of the token embeddings, shape (vocabulary, hidden), float32.

    A token starts where the sentence embedder puts it when it reads it alone, reduced by principal
    components, as in Model2Vec (Tulkens and van Dongen 2024): a mean of these already tells what a
    sentence is about.
    """
    tokens = vocab.convert_ids_to_tokens(list(range(len(vocab))))
    readable = [t.replace("▁", "") for t in tokens]
    rows = [i for i, text in enumerate(readable) if text.isalpha()]
    vectors = torch.from_numpy(embedder.embed([readable[i] for i in rows], 256))
    vectors = vectors - vectors.mean(0)
    _, _, components = torch.pca_lowrank(vectors, q=hidden, niter=4)
    reduced = F.normalize(vectors @ components, dim=-1)
    started = F.normalize(torch.randn(len(tokens), hidden), dim=-1)
    started[rows] = reduced
    return started


def _embedded(
    embedder: embedding.Embedder, texts: Sequence[str], work: pathlib.Path
) -> embedding.Vectors:
    """Vectors of texts, shape (texts, 384), from the work folder where it has them."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    path = work / f"vectors-{digest}.npy"
    if path.is_file():
        kept: embedding.Vectors = np.load(path, allow_pickle=False)
        return kept
    # Texts of similar length share a batch: padding is what costs time.
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    made = np.empty((len(texts), embedding.DIMENSION), dtype=np.float32)
    for at in range(0, len(order), _CHUNK_TEXTS):
        chunk = order[at : at + _CHUNK_TEXTS]
        made[chunk] = embedder.embed([texts[index] for index in chunk])
        print(f"corpus: {at + len(chunk)} of {len(texts)} questions embedded", flush=True)
    np.save(path, made, allow_pickle=False)
    return made


def _plain_wordings() -> list[str]:
    """Families and known facts as they are: invented names would only spoil the vocabulary."""
    found = [w for family in families.load() for w in (*family.questions, *family.statements)]
    facts = conversations.known_facts()
    found += [text for fact in facts for text in (*fact.questions, fact.answer)]
    return [re.sub(r"\{\w\}", "it", wording) for wording in found] * 2


def _ranked(vocabulary: Sequence[str]) -> list[str]:
    """Common English words, each as often as its rank suggests (Zipf's law)."""
    return [
        " ".join([word] * max(2, 12_000 // (rank + 400)))
        for rank, word in enumerate(vocabulary[:9000])
    ]
