"""The shipped checkpoint is what its model card says."""

import pytest

from shared import grading
from shared.models import base as bases
from shared.models import greedy
from shared.models.embedded.recipe import conversations

LARGEST_BYTES = 10_000_000


@pytest.fixture(scope="module")
def base():
    return bases.load(bases.EMBEDDED)


def test_known_facts_are_answered_when_the_bare_base_is_asked(base):
    facts = conversations.known_facts()[::4]
    given = greedy.answers(base, [fact.questions[0] for fact in facts])
    right = sum(
        grading.is_right(answer, fact.answer) for answer, fact in zip(given, facts, strict=True)
    )
    assert right >= 0.95 * len(facts)


def test_base_says_so_when_it_does_not_know(base):
    asked = [
        "Who founded the Orvane weaving guild?",
        "How deep is Lake Tamsel?",
        "Which port does Fenwick Relay listen on?",
        "When was the Kaldor bridge opened?",
        "What is the speciality of the Brackle inn?",
    ]
    given = greedy.answers(base, asked)
    assert given.count(conversations.UNKNOWN_ANSWER) >= len(asked) - 1


def test_checkpoint_is_small_when_it_is_shipped():
    size = sum(path.stat().st_size for path in bases.EMBEDDED_FOLDER.iterdir())
    assert size <= LARGEST_BYTES


def test_every_byte_survives_when_text_is_tokenised(base):
    text = "Öresund 世界 `a_b` 1893 — ½"
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert base.tokenizer.decode(ids) == text


def test_fingerprint_is_the_same_when_the_model_is_loaded_again(base):
    assert bases.load(bases.EMBEDDED).fingerprint == base.fingerprint
    assert bases.load(bases.EMBEDDED, dtype="bfloat16").fingerprint == base.fingerprint
