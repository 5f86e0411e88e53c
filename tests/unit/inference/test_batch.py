"""Rows generated together against transformers, which generates each alone."""

from __future__ import annotations

import pytest
import torch

from services.inference import batch as batches
from services.inference import sampling
from shared.lora import manager as managers
from tests import tiny_model

TOKENS = 12
QUERIES = ["Who built it?", "How tall is the old lighthouse of Skarn Holm, in metres?", "日本", "?"]


@pytest.fixture
def manager(base):
    made = managers.LoRAManager(base.model)
    for seed, key in enumerate("abc", start=1):
        made.apply_card(tiny_model.card_for(base, key, seed=seed), key)
    return made


@pytest.fixture
def batch(base, manager):
    return batches.Batch(base.model, manager)


def _row(card: str | None = None) -> batches.Row:
    return batches.Row(card, sampling.Sampler(sampling.Sampling()))


def _reference(query: str, card: str | None, count: int) -> list[int]:
    """What transformers generates with a card, on a model of its own."""
    base = tiny_model.tiny_base(0)
    if card is not None:
        manager = managers.LoRAManager(base.model)
        seed = "abc".index(card) + 1
        manager.apply_card(tiny_model.card_for(base, card, seed=seed), card)
        manager.activate(card)
    base.model.generation_config.eos_token_id = None
    prompt = torch.tensor([base.prompt_ids(query)])
    mask = torch.ones_like(prompt)
    out = base.model.generate(prompt, attention_mask=mask, max_new_tokens=count, do_sample=False)
    return out[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("cards", [[None] * 4, ["a"] * 4, ["a", None, "b", "a"]])
def test_rows_are_those_of_transformers_when_generated_together(base, batch, cards):
    rows = [_row(card) for card in cards]
    told = [[] for _ in rows]
    for row, query, tokens in zip(rows, QUERIES, told, strict=True):
        batch.join([row], [base.prompt_ids(query)])
        tokens.append(row.token)
    for _ in range(TOKENS - 1):
        batch.step()
        for row, tokens in zip(rows, told, strict=True):
            tokens.append(row.token)
    assert told == [_reference(q, c, TOKENS) for q, c in zip(QUERIES, cards, strict=True)]


@pytest.mark.parametrize("cards", [[None] * 4, ["a"] * 4, ["a", None, "b", "a"]])
def test_rows_are_those_of_transformers_when_their_prompts_are_read_together(base, batch, cards):
    rows = [_row(card) for card in cards]
    batch.join(rows, [base.prompt_ids(query) for query in QUERIES])
    told = [[row.token] for row in rows]
    for _ in range(TOKENS - 1):
        batch.step()
        for row, tokens in zip(rows, told, strict=True):
            tokens.append(row.token)
    assert told == [_reference(q, c, TOKENS) for q, c in zip(QUERIES, cards, strict=True)]


def test_others_go_on_unchanged_when_rows_join_and_leave_between_two_tokens(base, batch):
    told: dict[batches.Row, list[int]] = {}
    asked: dict[batches.Row, tuple[str, str | None]] = {}

    def join(query: str, card: str | None) -> batches.Row:
        row = _row(card)
        batch.join([row], [base.prompt_ids(query)])
        told[row], asked[row] = [row.token], (query, card)
        return row

    def step(count: int) -> None:
        for _ in range(count):
            batch.step()
            for row in batch.rows:
                told[row].append(row.token)

    long = join(QUERIES[1], "b")
    step(2)
    first = join(QUERIES[0], "a")
    step(3)
    batch.leave([long])  # The others lose their padding.
    step(1)
    join(QUERIES[2], None)
    step(2)
    batch.leave([first])
    step(2)
    last = join(QUERIES[1], "c")  # Longer than who is there: those get padding.
    step(3)
    batch.leave([last])
    step(1)
    for row, tokens in told.items():
        assert tokens == _reference(*asked[row], len(tokens)), asked[row]
    [remaining] = batch.rows
    batch.leave([remaining])
    assert batch.rows == [] and batch.can_grow


def test_others_go_on_unchanged_when_several_leave_at_once(base, batch):
    cards = [None, "a", "b", None]
    rows = [_row(card) for card in cards]
    batch.join(rows, [base.prompt_ids(query) for query in QUERIES])
    told = [row.token for row in rows]
    batch.leave([rows[1], rows[3]])
    assert batch.rows == [rows[0], rows[2]]
    batch.step()
    for at in (0, 2):
        assert [told[at], rows[at].token] == _reference(QUERIES[at], cards[at], 2)


def test_other_cards_do_no_harm_when_they_were_active_between_two_tokens(base, batch, manager):
    row = _row("a")
    batch.join([row], [base.prompt_ids(QUERIES[0])])
    told = [row.token]
    for other in ("b", None, "c"):
        manager.activate(other)
        batch.step()
        told.append(row.token)
    assert told == _reference(QUERIES[0], "a", 4)


def test_card_that_is_swapped_for_another_answers_when_rows_are_mixed(base, batch, manager):
    first, second = _row("a"), _row(None)
    batch.join([first], [base.prompt_ids(QUERIES[0])])
    batch.join([second], [base.prompt_ids(QUERIES[0])])
    batch.step()
    batch.leave([first])
    manager.remove_card("a")
    # The new card takes the place in memory that the old one had.
    manager.apply_card(tiny_model.card_for(base, "a", seed=3), "a")
    third = _row("a")
    batch.join([third], [base.prompt_ids(QUERIES[0])])
    told = [third.token]
    for _ in range(3):
        batch.step()
        told.append(third.token)
    assert told == _reference(QUERIES[0], "c", 4)
