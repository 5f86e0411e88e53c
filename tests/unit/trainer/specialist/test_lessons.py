"""What is made of samples: prompts, outputs, what is cut and what is dropped."""

from __future__ import annotations

import pytest

from services.trainer.specialist import lessons
from shared.flight import samples
from shared.models import base as bases
from shared.models import completion
from tests import tiny_model
from tests.unit.trainer.specialist.code import sample

COMPLETE, WRITE = samples.Kind.COMPLETE, samples.Kind.WRITE


@pytest.fixture(scope="module")
def base() -> bases.BaseModel:
    return tiny_model.tiny_base()


def test_a_completion_is_prompted_as_a_node_prompts_it(base: bases.BaseModel) -> None:
    found = lessons.example(base, sample(COMPLETE, "def f():\n", "    pass"), 64)
    assert found is not None
    assert found.prompt_ids == completion.prompt_ids(base, "def f():\n")
    assert base.tokenizer.decode(found.answer_ids) == "    pass<|end|>"


def test_a_question_is_asked_by_the_chat_template(base: bases.BaseModel) -> None:
    one = sample(WRITE, "def f():", "pass")
    found = lessons.example(base, one, 64)
    assert found is not None
    assert list(found.prompt_ids) == base.prompt_ids("Do it.\n\ndef f():")
    bare = lessons.example(base, one, 64, ended=False)
    assert bare is not None and (*bare.answer_ids, base.tokenizer.eos_token_id) == found.answer_ids


def test_an_output_does_not_end_where_its_code_quotes_an_end_token(base: bases.BaseModel) -> None:
    for kind in (WRITE, COMPLETE):
        found = lessons.example(base, sample(kind, "END =", ' "<|end|>"\nx = 1'), 96)
        assert found is not None
        assert found.answer_ids.index(base.tokenizer.eos_token_id) == len(found.answer_ids) - 1
        assert base.tokenizer.decode(found.answer_ids) == ' "<|end|>"\nx = 1<|end|>'


def test_the_beginning_is_cut_when_the_text_before_the_cursor_is_long(
    base: bases.BaseModel,
) -> None:
    made = lessons.lessons(base, [sample(COMPLETE, "x" * 50 + "abc", "defg")], 20)
    assert (len(made.examples), made.cut, made.dropped) == (1, 1, 0)
    assert base.tokenizer.decode(made.examples[0].prompt_ids) == "x" * 12 + "abc"
    assert made.examples[0].tokens == 19


def test_samples_are_dropped_and_counted_when_their_outputs_do_not_fit(
    base: bases.BaseModel,
) -> None:
    made = lessons.lessons(
        base,
        [
            sample(COMPLETE, "a", "b" * 16),
            sample(COMPLETE, "a", "b" * 12),
            sample(WRITE, "a" * 30, "b"),
            sample(COMPLETE, "a", ""),
        ],
        20,
    )
    assert [one.answer for one in made.examples] == ["b" * 12]
    assert made.dropped == 3


def test_nothing_of_what_is_held_out_is_learned(base: bases.BaseModel) -> None:
    kept = sample(COMPLETE, "def g():\n", "    pass", symbol="g")
    hidden = sample(COMPLETE, "def secret():\n", "    pass", symbol="secret", held_out=True)
    made = lessons.lessons(base, [kept, hidden], 64, whole_texts=True)
    learned = [base.tokenizer.decode((*e.prompt_ids, *e.answer_ids)) for e in made.examples]
    assert len(learned) == 2 and not any("secret" in text for text in learned)


def test_a_definition_is_learned_as_one_text_when_it_has_several_samples(
    base: bases.BaseModel,
) -> None:
    several = [
        sample(COMPLETE, "def g():\n", "    pass"),
        sample(COMPLETE, "def g():\n  ", "  p"),
        sample(WRITE, "def g():", "def g():"),
        sample(COMPLETE, "other", " one", symbol="h"),
    ]
    assert lessons.texts(several) == ["def g():\n    pass", "other one"]
    made = lessons.lessons(base, several, 10, whole_texts=True)
    texts = [base.tokenizer.decode(e.answer_ids) for e in made.examples if not e.question]
    assert texts[-2:] == ["def g():\n", "other one"]


def test_code_alone_is_learned_when_questions_are_left_out(base: bases.BaseModel) -> None:
    both = [sample(COMPLETE, "def g():\n", "    pass"), sample(WRITE, "def g():", "def g(): pass")]
    made = lessons.lessons(base, both, 64, questions=False)
    assert [one.answer for one in made.examples] == ["    pass"]
