"""How held-out code is measured, against what transformers itself computes."""

from __future__ import annotations

import math

import pytest
import torch

from services.trainer import gate, network
from services.trainer.specialist import lessons, proof
from shared.flight import samples
from shared.models import base as bases
from shared.models import completion, greedy
from tests import tiny_model
from tests.unit.trainer.specialist import code

KNOWN = gate.Row("known", 2, 2, 0.75, needed=True)


@pytest.fixture(scope="module")
def base() -> bases.BaseModel:
    return tiny_model.tiny_base()


def figures(perplexity: float, *completed: bool) -> proof.Figures:
    return proof.Figures(perplexity, tuple(proof.Completed(one, one) for one in completed))


@torch.no_grad()
def test_perplexity_is_that_of_transformers_when_rows_are_padded(base: bases.BaseModel) -> None:
    held_out = [one for one in code.taught() if one.held_out]
    examples = [e for one in held_out if (e := lessons.example(base, one, 96, ended=False))]
    loss, tokens = 0.0, 0
    for one in examples:
        ids = torch.tensor([[*one.prompt_ids, *one.answer_ids]])
        labels = ids.clone()
        labels[:, : len(one.prompt_ids)] = -100
        loss += float(base.model(ids, labels=labels).loss) * len(one.answer_ids)
        tokens += len(one.answer_ids)
    expected = math.exp(loss / tokens)
    assert proof.perplexity(base, examples, code.ignore) == pytest.approx(expected, rel=1e-4)


def test_a_completion_is_right_when_the_model_writes_that_very_line(
    base: bases.BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefixes = ("def a():\n", "x = [", "import torch\n\n\nclass")
    written = [
        tiny_model.continued_ids(base, completion.prompt_ids(base, prefix), 6)
        for prefix in prefixes
    ]
    # What the first writes last ends a line; a random model hardly writes line breaks.
    end = written[0][-1]
    assert end not in written[0][:-1], "choose another prefix"
    monkeypatch.setattr(completion, "end_ids", lambda _: frozenset({end}))
    line = completion.text(base, written[0][:-1])
    right = proof.Cursor(prefixes[0], line)
    longer = proof.Cursor(prefixes[0], line + "x")
    shorter = proof.Cursor(prefixes[0], line[:-1])
    others = [proof.Cursor(prefix, line) for prefix in prefixes[1:]]
    found = proof.completed(base, [longer, *others, right, shorter], 96, code.ignore)
    assert [one.line for one in found] == [False, False, False, True, False]
    assert found[3].word


def test_next_word_is_right_when_the_line_goes_on_otherwise(
    base: bases.BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = completion.continuation_ids(base, "total + 1")
    monkeypatch.setattr(greedy, "generated", lambda _, prompts, *rest: [said] * len(prompts))
    lines = ("total - 2", "total_of(x)", " total", "totals", "+ total")
    cursors = [proof.Cursor("x = ", line) for line in lines]
    found = proof.completed(base, cursors, 96, code.ignore)
    assert [one.word for one in found] == [True, False, True, False, False]
    assert not any(one.line for one in found)


def test_cursors_stand_in_held_out_completions_alone(base: bases.BaseModel) -> None:
    asked = proof.asked(base, code.taught(), 96, 100)
    assert len(asked.examples) == 4
    assert {one.prefix[:8] for one in asked.cursors} == {"def elk(", "def ant("}
    assert proof.Cursor("def elk(self):\n    ", "return self.elk") in asked.cursors
    within = {one.line for one in asked.cursors if not one.prefix.endswith("\n    ")}
    assert within == {"elk", ".elk", "ant", ".ant"}
    assert len(proof.asked(base, code.taught(), 96, 1).cursors) == 1


def test_brackets_alone_are_not_asked_for(base: bases.BaseModel) -> None:
    lines = "    f(\n        first,\n    )\n"
    one = code.sample(samples.Kind.COMPLETE, "def f():\n", lines, held_out=True)
    found = proof.asked(base, [one], 96, 100).cursors
    assert {"f(", ")"} & {c.line for c in found} == set()
    assert "first," in {c.line for c in found}


@pytest.mark.parametrize(
    ("card", "passed"),
    [
        (figures(79.0, True, True), [True, True, True, True]),
        (figures(81.0, True, True), [False, True, True, True]),
        (figures(50.0, False, True), [True, False, True, True]),
        (figures(50.0, False, False), [True, False, False, True]),
        (figures(200.0, False, False), [False, False, False, True]),
        (figures(math.nan, True, True), [False, True, True, True]),
        (figures(math.inf, True, True), [False, True, True, True]),
    ],
)
def test_a_card_passes_when_it_lowers_perplexity_by_a_fifth_and_completes_more(
    card: proof.Figures, passed: list[bool]
) -> None:
    rows = proof.rows(figures(100.0, True, False), card, KNOWN, 0.2)
    assert [row.name for row in rows] == ["perplexity", "completions", "lines", "known"]
    assert [row.passed for row in rows] == passed


def test_a_card_does_not_pass_when_nothing_was_held_out() -> None:
    rows = proof.rows(figures(math.nan), figures(math.nan), KNOWN, 0.2)
    assert [row.passed for row in rows] == [False, True, True, True]


def test_a_card_that_makes_nonsense_of_the_model_is_seen_as_worse_when_it_is_proved_again() -> None:
    for nonsense in (math.inf, math.nan):
        [perplexity, *_] = proof.rows(figures(100.0), figures(nonsense), KNOWN, 0.2)
        assert (perplexity.right, perplexity.asked) == (0, 1000)


def test_perplexity_is_infinite_when_the_loss_is_beyond_all_numbers(
    base: bases.BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = lessons.example(base, code.taught()[0], 96, ended=False)
    assert example is not None
    far = torch.tensor(1e9)
    monkeypatch.setattr(network.WholeModel, "cross_entropy", lambda *_: far)
    assert proof.perplexity(base, [example], code.ignore) == math.inf


def test_lines_of_other_scripts_are_not_asked_for_when_they_fill_the_context(
    base: bases.BaseModel,
) -> None:
    lines = "    # " + "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 180 + "\n    return one\n"
    one = code.sample(samples.Kind.COMPLETE, "def f(one):\n", lines, held_out=True)
    found = proof.asked(base, [one], 96, 100).cursors
    assert "return one" in {c.line for c in found}
    assert all(len(c.line) <= 96 for c in found)


def test_something_is_read_when_a_line_fills_the_context(base: bases.BaseModel) -> None:
    cursor = proof.Cursor("def f():\n", "x" * 120)
    assert proof.completed(base, [cursor], 96, code.ignore) == (
        proof.Completed(word=False, line=False),
    )
