"""Log-probabilities of tokens: against a forward pass of transformers, and against the text."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch

from services.inference import engine as engines
from services.inference import likelihoods, prompts, vocabularies
from services.inference import sampling as samplings
from shared import errors
from shared import settings as config
from shared.models import base as bases
from tests import tiny_model

QUERY, TOKENS = "Who built it?", 24


@pytest.fixture(scope="module")
def embedded() -> bases.BaseModel:
    return bases.load(bases.EMBEDDED)


@contextlib.asynccontextmanager
async def running(base, **more):
    engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=TOKENS, **more))
    engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def joined(found) -> bytes:
    return b"".join(one.utf8 for one in found)


def reference(base, prompt_ids, count):
    """Log-probabilities of what transformers generates greedily, token by token."""
    ids = tiny_model.continued_ids(base, prompt_ids, count)
    with torch.inference_mode():
        whole = torch.tensor([[*prompt_ids, *ids]])
        scores = base.model(input_ids=whole).logits[0].float().log_softmax(-1)
    return ids, scores[len(prompt_ids) - 1 : len(prompt_ids) - 1 + len(ids)]


@pytest.mark.parametrize("top", [0, 3, 20])
async def test_logprobs_are_those_of_a_forward_pass_over_the_answer(embedded, top):
    async with running(embedded) as engine:
        found = await engine.generate(
            "What is the capital of France?", sampling=samplings.Sampling(top_logprobs=top)
        )
    prompt = embedded.prompt_ids("What is the capital of France?")
    ids, scores = reference(embedded, prompt, TOKENS)
    assert len(found.logprobs) == len(ids) == found.new_tokens > 1
    for one, token, row in zip(found.logprobs, ids, scores, strict=True):
        assert one.logprob == pytest.approx(float(row[token]), abs=1e-4)
        best = row.topk(20).values[:top].tolist() if top else []
        assert [other.logprob for other in one.top] == pytest.approx(best, abs=1e-4)
        if top:
            assert (one.top[0].text, one.top[0].utf8) == (one.text, one.utf8)
    assert "".join(one.text for one in found.logprobs) == found.answer
    assert joined(found.logprobs) == found.answer.encode()


async def test_logprobs_are_of_the_models_own_distribution_when_it_is_sampled_hot(base):
    async with running(base) as engine:
        plain = samplings.Sampling(temperature=2.0, top_k=7, seed=5)
        told = samplings.Sampling(temperature=2.0, top_k=7, seed=5, top_logprobs=2)
        without, found = await engine.generate(QUERY, sampling=plain), None
        pieces = [piece async for piece in engine.stream(QUERY, sampling=told)]
        found = pieces[-1].final
    assert found == without and without.logprobs == ()
    assert tuple(one for piece in pieces[:-1] for one in piece.logprobs) == found.logprobs
    ids = base.prompt_ids(QUERY)
    vocabulary = vocabularies.Vocabulary(base.tokenizer)
    for one in found.logprobs:
        with torch.inference_mode():
            scores = base.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        # One of the model's most likely seven, and none of another has both its bytes and score.
        near = [t for t in scores.topk(7).indices.tolist() if vocabulary.utf8(t) == one.utf8]
        assert [float(scores[t]) for t in near] == pytest.approx([one.logprob], abs=1e-4)
        ids = [*ids, near[0]]


async def test_bytes_are_the_answers_when_characters_spread_over_tokens(base):
    # Bytes at random: most are no whole characters.
    async with running(base) as engine:
        for seed in range(8):
            sampling = samplings.Sampling(temperature=3.0, seed=seed, top_logprobs=1)
            found = await engine.generate(QUERY, sampling=sampling)
            assert joined(found.logprobs).decode("utf-8", "replace") == found.answer
            assert "".join(one.text for one in found.logprobs) == found.answer
            assert len(found.logprobs) >= found.new_tokens - found.answer.count("<|")


@pytest.mark.parametrize("length", [1, 2, 3, 5])
async def test_tokens_add_up_to_the_answer_when_a_stop_string_cuts_it(embedded, length):
    query = "Tell me a story about a bridge."
    hot = {"temperature": 1.0, "seed": 1}
    async with running(embedded) as engine:
        whole = (await engine.generate(query, sampling=samplings.Sampling(**hot))).answer
        assert len(whole) > 12
        for at in range(0, len(whole) - length, 3):
            stop = whole[at : at + length]
            sampling = samplings.Sampling(top_logprobs=1, stop=(stop, "never said"), **hot)
            pieces = [piece async for piece in engine.stream(query, sampling=sampling)]
            found = pieces[-1].final
            assert found.answer == whole[: whole.index(stop)]
            assert "".join(one.text for one in found.logprobs) == found.answer
            assert joined(found.logprobs) == found.answer.encode()
            told = [len(piece.logprobs) for piece in pieces]
            assert sum(told[:-1]) == len(found.logprobs) and told[-1] == 0


async def test_rows_that_do_not_ask_are_not_scored_when_others_do(base, monkeypatch):
    rows = []
    add = likelihoods.add
    monkeypatch.setattr(
        likelihoods,
        "add",
        lambda found, logits, ids: rows.append(len(ids)) or add(found, logits, ids),
    )
    async with running(base) as engine:
        await engine.generate(QUERY)
        assert rows == []
        told = [p async for p in engine.stream(QUERY, sampling=samplings.Sampling(top_logprobs=1))]
        assert set(rows) == {1} and told[-1].final.logprobs


async def test_completion_tells_its_tokens_behind_the_space_that_it_repeats(embedded):
    async with running(embedded) as engine:
        sampling = samplings.Sampling(top_logprobs=1)
        found = await engine.generate(prompts.Cursor("The capital of "), sampling=sampling)
    assert "".join(one.text for one in found.logprobs) == found.answer
    assert joined(found.logprobs) == found.answer.encode() and found.logprobs


@pytest.mark.parametrize("top", [-1, 21])
async def test_request_is_refused_when_too_many_are_asked_for(base, top):
    async with running(base) as engine:
        with pytest.raises(errors.InvalidInputError, match="top_logprobs"):
            await engine.generate(QUERY, sampling=samplings.Sampling(top_logprobs=top))


@pytest.mark.parametrize(
    ("said", "text", "expected"),
    [
        ([b"a", b"b"], "ab", [("a", b"a"), ("b", b"b")]),
        ([b"\xc3", b"\xa9!"], "é!", [("", b"\xc3"), ("é!", b"\xa9!")]),
        ([b" a", b"b"], "ab", [("a", b"a"), ("b", b"b")]),
        ([b" ", b"ab"], "ab", [("", b""), ("ab", b"ab")]),
        ([b"\xff", b"a"], "\ufffda", [("", b"\xff"), ("\ufffda", b"a")]),
        ([b"a", b"\xe2\x82"], "a\ufffd", [("a", b"a"), ("\ufffd", b"\xe2\x82")]),
        ([b"##a", b"b"], "a b", [("", b""), ("a b", b"a b")]),
        ([b""], "", [("", b"")]),
    ],
)
def test_text_is_shared_out_among_the_tokens_that_complete_it(said, text, expected):
    found = vocabularies.shared_out(said, text)
    if said[0] == b"\xff":  # Whether the byte is wrong is known with it, or with the next one.
        assert "".join(part for part, _ in found) == text
        assert [one for _, one in found] == said
    else:
        assert found == expected


def test_every_byte_has_a_symbol_in_byte_level_vocabularies():
    tokenizer = tiny_model.tiny_base(0).tokenizer
    vocabulary = vocabularies.Vocabulary(tokenizer)
    for text in ("a b\n", "é", "日本", "\x00\x7f\xa0\xad", "🙂"):
        ids = tokenizer(text)["input_ids"]
        assert b"".join(map(vocabulary.utf8, ids)) == text.encode()
    assert {vocabulary.utf8(at) for at in range(256)} == {bytes([at]) for at in range(256)}
    assert vocabulary.is_special(tokenizer.eos_token_id) and not vocabulary.is_special(0)


def test_embedded_vocabulary_says_bytes_when_characters_fall_back_to_them(embedded):
    vocabulary = vocabularies.Vocabulary(embedded.tokenizer)
    text = "Ärger kostet 5 € – 🙂 日本"
    ids = embedded.tokenizer(text, add_special_tokens=False)["input_ids"]
    said = b"".join(map(vocabulary.utf8, ids))
    assert said == f" {text}".encode()
    parts = vocabularies.shared_out([vocabulary.utf8(one) for one in ids], text)
    assert b"".join(one for _, one in parts) == text.encode()
    assert "".join(part for part, _ in parts) == text


@pytest.mark.parametrize("sizes", list(itertools.product([1, 2, 3], repeat=2)))
def test_tokens_are_told_once_when_their_text_leaves_in_other_pieces(sizes):
    class Letters:
        def is_special(self, token):
            return False

        def utf8(self, token):
            return ("é" * token).encode()

    scores = likelihoods.Scores(0)
    telling = likelihoods.Telling(Letters(), scores)
    for size in sizes:
        scores.token, scores.logprob = size, -float(size)
        telling.add("é" * size)
    told = [telling.handed_out("é") for _ in range(sum(sizes))]
    ends = list(itertools.accumulate(sizes))
    assert [at + 1 for at, found in enumerate(told) if found] == ends
    assert [one.text for found in told for one in found] == ["é" * size for size in sizes]
    assert telling.rest(cut=True) == ()
