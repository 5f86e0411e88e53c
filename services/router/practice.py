"""What the router practises on before it knows any card, embedded once and kept on disk.

Ties `background` (texts) to `calibration` (rows) with the embedder. Knows nothing about the cards
of the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from services.router import background, calibration, observation, profile, space, words

Embed = Callable[[Sequence[str]], Awaitable[profile.Vectors]]
"""Texts to vectors of shape (texts, dimension)."""


@dataclasses.dataclass(frozen=True)
class Practice:
    """The ground that every calibration stands on."""

    rows: calibration.Rows
    unrelated: tuple[profile.Question, ...]
    """Questions that belong to no card."""
    sums: space.Sums
    """Of the practice cards: what a space is made of while there are few others."""


async def prepare(
    embed: Embed, vocabulary: Sequence[str], cache_dir: pathlib.Path | None = None
) -> Practice:
    """Embeds the background and scores the practice cards.

    Args:
        embed: the embedder.
        vocabulary: its words, most frequent first.
        cache_dir: where the vectors are kept from one start to the next.
    """
    weigher = words.Words(vocabulary)
    cards = background.practice(vocabulary)
    groups: list[tuple[str, ...]] = [background.unrelated(vocabulary)]
    for card in cards:
        groups += [card.examples, card.statements]
        groups += [card.held_out, card.nameless, card.namesakes, card.untold]
    texts = [text for group in groups for text in group]
    vectors_N_D = await _vectors(embed, texts, cache_dir)
    embedded = iter(zip(texts, vectors_N_D, strict=True))
    unrelated, *of_cards = [
        [profile.Question(text, profile.unit(vector), weigher.of(text))
         for _, (text, vector) in zip(group, embedded, strict=False)]
        for group in groups
    ]  # fmt: skip
    practised, askers = [], []
    for number, card in enumerate(cards):
        examples, statements, *asked = of_cards[6 * number : 6 * number + 6]
        made_up = profile.Card(f"practice-{number:03}", "", "", "", card.examples)
        practised.append(profile.build(made_up, examples, statements))
        askers.append(observation.Askers(*asked))
    sums = space.sums(np.stack([e.vector for e in p.examples]) for p in practised)
    rows = observation.practise(practised, askers, unrelated, space.fit(sums))
    return Practice(rows, tuple(unrelated), sums)


async def _vectors(
    embed: Embed, texts: Sequence[str], cache_dir: pathlib.Path | None
) -> profile.Vectors:
    if cache_dir is None:
        return await embed(texts)
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
    path = cache_dir / f"practice-{digest}.npy"
    first = await embed(texts[:1])
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept: profile.Vectors = np.load(path, allow_pickle=False)
        # The first text is embedded every time, so that a changed embedder is noticed.
        if kept.shape == (len(texts), first.shape[1]) and np.allclose(kept[0], first[0], atol=1e-3):
            return kept
    made = await embed(texts)
    with contextlib.suppress(OSError):  # A full or read-only disk only costs the next start.
        cache_dir.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        with draft.open("wb") as file:
            np.save(file, made, allow_pickle=False)
        draft.replace(path)
    return made
