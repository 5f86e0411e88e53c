"""Answers that are generated together: one forward pass makes the next token of each.

A new answer joins between two tokens of the others and leaves when it ends; each row may use a card
of its own. Keys and values of all rows stand right-aligned, so that what a shorter row lacks on the
left is masked. Runs in the model's thread; knows nothing about requests, queues or text.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
import transformers
from transformers import cache_utils

from services.inference import captures, certainties, constraints, likelihoods, sampling
from shared.lora import manager as managers


@dataclasses.dataclass(eq=False)
class Row:
    """One answer under way."""

    card: str | None
    """Key of a resident card; None for the bare base model."""
    sampler: sampling.Sampler
    token: int = -1
    """The latest one; it is not in the cache yet."""
    cached: int = 0
    """Tokens in the cache."""
    error: Exception | None = None
    """Why no token could be chosen; the row can only leave."""
    certainty: certainties.Certainty | None = None
    """Adds up how sure the model is of its tokens; None where nobody asks."""
    capture: captures.Capture | None = None
    """Keeps what is to be remembered of the answer; None where nothing is."""
    scores: likelihoods.Scores | None = None
    """Takes how likely the latest token was; None where nobody asks."""
    constraint: constraints.Constraint | None = None
    """Says which tokens may come next; None where all may."""
    allowed_V: torch.Tensor | None = None
    """Logits of those that might be the latest one, (vocabulary,), where there is a constraint."""

    def choose(self, logits_V: torch.Tensor, likeliest: int, highest: float) -> None:
        """Takes the next token; what goes wrong concerns this row alone."""
        try:
            if self.constraint is None:
                self.token = self.sampler.choose(logits_V, likeliest, highest)
            else:
                self.allowed_V, likeliest, highest = self.constraint.allowed(logits_V)
                self.token = self.sampler.choose(self.allowed_V, likeliest, highest)
                self.constraint.take(self.token)
            if self.capture is not None:
                self.capture.add(self.token, logits_V)
        except Exception as error:
            self.error = error


class Batch:
    """The rows that are generated now."""

    def __init__(self, model: Any, manager: managers.LoRAManager) -> None:
        """Begins empty.

        Args:
            model: a transformers causal LM.
            manager: chooses the cards; it belongs to the same model.
        """
        self._model = model
        self._manager = manager
        self._is_plain = _is_plain(transformers.DynamicCache(config=model.config))
        self._cache: Any = None
        self.rows: list[Row] = []

    @property
    def can_grow(self) -> bool:
        """Whether another row fits: some models keep keys that can't be put side by side."""
        return self._is_plain or not self.rows

    @property
    def longest(self) -> int:
        """Tokens in the cache of each row, padding included."""
        return max((row.cached for row in self.rows), default=0)

    @torch.inference_mode()
    def join(self, rows: Sequence[Row], prompts: Sequence[Sequence[int]]) -> None:
        """Reads prompts together, chooses the first token of each, and takes the rows in.

        Args:
            rows: at least one, and one alone where the model's keys can't be put side by side.
            prompts: their token ids, at least one each.

        Raises:
            Exception: what the model raised. The rows are not in; where there was no memory to put
                them beside the others, these are gone as well.
        """
        lengths = [len(prompt) for prompt in prompts]
        longest = max(lengths)
        ids_B_T = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        self._manager.activate_rows([row.card for row in rows])
        cache = transformers.DynamicCache(config=self._model.config)
        with _contiguous_states(self._model), self._looking(rows):
            logits_B_V = self._logits(cache, ids_B_T, **_places(lengths, longest))
        _choose(rows, logits_B_V)
        for row, length in zip(rows, lengths, strict=True):
            row.cached = length
        if self.rows:
            with self._whole_or_empty():
                _put_beside(self._cache, cache)
        else:
            self._cache = cache
        self.rows.extend(rows)

    @torch.inference_mode()
    def step(self) -> None:
        """Makes the next token of every row."""
        ids_B_1 = [[row.token] for row in self.rows]
        # Prompts, or jobs that came in between, such as `encode`, have chosen other cards.
        self._manager.activate_rows([row.card for row in self.rows])
        cached_B = [row.cached + 1 for row in self.rows]
        places = _places(cached_B, max(cached_B), new=1)
        with self._looking(self.rows):
            logits_B_V = self._logits(self._cache, ids_B_1, **places)
        _choose(self.rows, logits_B_V)
        for row in self.rows:
            row.cached += 1

    @torch.inference_mode()
    def leave(self, rows: Collection[Row]) -> None:
        """Takes rows out together; what only they needed is forgotten.

        Raises:
            Exception: there was no memory for it; all rows are gone.
        """
        kept = [at for at, row in enumerate(self.rows) if row not in rows]
        self.rows = [self.rows[at] for at in kept]
        if not self.rows:
            self._cache = None
            return
        longest = self.longest
        with self._whole_or_empty():
            for layer in self._cache.layers:
                surplus = layer.keys.shape[-2] - longest
                layer.keys = layer.keys[kept, :, surplus:]
                layer.values = layer.values[kept, :, surplus:]

    def clear(self) -> None:
        """Forgets all rows."""
        self.rows, self._cache = [], None

    def _looking(self, rows: Sequence[Row]) -> contextlib.AbstractContextManager[None]:
        return captures.looking([row.capture for row in rows], self._manager.layer)

    @contextlib.contextmanager
    def _whole_or_empty(self) -> Iterator[None]:
        """No cache rather than one whose layers have different rows."""
        try:
            yield
        except BaseException:
            self.clear()
            raise

    def _logits(
        self, cache: Any, ids_B_T: Sequence[Sequence[int]], **places: torch.Tensor
    ) -> torch.Tensor:
        """Logits behind the last token of each row, (batch, vocabulary)."""
        device = self._model.device
        logits_B_1_V: torch.Tensor = self._model(
            input_ids=torch.tensor(ids_B_T, device=device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **{name: place.to(device) for name, place in places.items()},
        ).logits
        return logits_B_1_V[:, -1]


def _choose(rows: Sequence[Row], logits_B_V: torch.Tensor) -> None:
    highest_B, likeliest_B = logits_B_V.max(-1)
    found = zip(rows, logits_B_V, likeliest_B.tolist(), highest_B.tolist(), strict=True)
    for row, logits_V, likeliest, highest in found:
        row.choose(logits_V, likeliest, highest)
    asked = [at for at, row in enumerate(rows) if row.certainty is not None and row.error is None]
    if asked:
        certainties.add(
            [rows[at].certainty for at in asked],
            _decided([rows[at] for at in asked], asked, logits_B_V),
            [rows[at].token for at in asked],
        )
    told = [at for at, row in enumerate(rows) if row.scores is not None and row.error is None]
    if told:
        scores = [rows[at].scores for at in told]
        likelihoods.add(scores, logits_B_V[told], [rows[at].token for at in told])


def _decided(rows: Sequence[Row], places: Sequence[int], logits_B_V: torch.Tensor) -> torch.Tensor:
    """What rows were unsure about: of tokens that a schema leaves no choice of, nothing."""
    if any(row.allowed_V is not None for row in rows):
        free = zip(rows, places, strict=True)
        return torch.stack(
            [logits_B_V[at] if row.allowed_V is None else row.allowed_V for row, at in free]
        )
    return logits_B_V if len(rows) == len(logits_B_V) else logits_B_V[places]


def _places(lengths: Sequence[int], longest: int, new: int = 0) -> dict[str, torch.Tensor]:
    """Mask and positions of right-aligned rows; nothing where all are equally long.

    Args:
        lengths: tokens of each row, with the new ones.
        longest: of them.
        new: tokens that are read now; 0 for all.
    """
    if all(length == longest for length in lengths):
        return {}
    # Negative where a row has nothing.
    positions_B_T = torch.arange(longest) - (longest - torch.tensor(lengths))[:, None]
    return {
        "attention_mask": (positions_B_T >= 0).to(torch.int64),
        "position_ids": positions_B_T[:, -new:].clamp(min=0),
    }


@contextlib.contextmanager
def _contiguous_states(model: Any) -> Iterator[None]:
    """Gives the output layer its last states in one piece.

    The states behind the last tokens of several prompts lie apart in memory; in bfloat16 the
    product with them takes forty times as long.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, arguments: (arguments[0].contiguous(), *arguments[1:])
    )
    try:
        yield
    finally:
        hook.remove()


def _is_plain(cache: Any) -> bool:
    return all(type(layer) is cache_utils.DynamicLayer for layer in cache.layers)


def _put_beside(cache: Any, other: Any) -> None:
    """Appends the rows of another cache, both aligned on the right."""
    for layer, new in zip(cache.layers, other.layers, strict=True):
        length = max(layer.keys.shape[-2], new.keys.shape[-2])
        layer.keys = torch.cat([_padded(layer.keys, length), _padded(new.keys, length)])
        layer.values = torch.cat([_padded(layer.values, length), _padded(new.values, length)])


def _padded(states_B_H_T_D: torch.Tensor, length: int) -> torch.Tensor:
    missing = length - states_B_H_T_D.shape[-2]
    return torch.nn.functional.pad(states_B_H_T_D, (0, 0, missing, 0))
