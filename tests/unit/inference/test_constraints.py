"""Answers that fit a JSON schema: with the real base, in a batch, with cards, and when it can't."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import json

import jsonschema
import pytest
import torch

from services.inference import constraints
from services.inference import engine as engines
from services.inference import sampling as samplings
from shared import errors
from shared import settings as config
from shared.models import base as bases
from tests import tiny_model

QUERY = "Who built it?"
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "height_m": {"type": "integer", "minimum": 0, "maximum": 900},
        "kind": {"enum": ["bridge", "tower"]},
        "parts": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["name", "height_m", "kind", "parts"],
    "additionalProperties": False,
}
TEXT = json.dumps(SCHEMA)


@contextlib.asynccontextmanager
async def running(base, **more):
    engine = engines.ArrowEngine(base, config.Inference(**{"max_new_tokens": 120, **more}))
    engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def asked(**more):
    return samplings.Sampling(**{"json_schema": TEXT, **more})


def check(found, schema=SCHEMA):
    assert found.finish == "stop", found
    jsonschema.validate(json.loads(found.answer), schema)


async def test_what_is_wrong_with_a_schema_is_told_without_the_inside_of_its_parser():
    async with running(tiny_model.tiny_base(0)) as engine:
        with pytest.raises(errors.InvalidInputError, match="can't be followed: ") as refused:
            await engine.generate(QUERY, sampling=asked(json_schema='{"$ref": "#"}'))
    assert "<state>" not in str(refused.value) and str(refused.value).endswith("simplify it")


async def test_ten_answers_fit_the_schema_when_the_base_is_sampled_at_temperature_one():
    async with running(bases.load(bases.EMBEDDED), max_new_tokens=200) as engine:
        greedy = await engine.generate(QUERY, sampling=asked())
        found = await asyncio.gather(
            *(engine.generate(QUERY, sampling=asked(temperature=1.0, seed=n)) for n in range(10))
        )
        again = await engine.generate(QUERY, sampling=asked(temperature=1.0, seed=3))
    for one in (greedy, *found):
        check(one)
    assert len({one.answer for one in found}) == 10 and again.answer == found[3].answer


async def test_others_are_answered_as_ever_when_one_row_of_the_batch_has_a_schema(base):
    async with running(base, max_new_tokens=60) as engine:
        key = "tiny-skill@1"
        await engine.load_lora(tiny_model.card_for(base), key)
        hot = samplings.Sampling(temperature=1.0, seed=7)
        alone = [
            (await engine.generate(QUERY)).answer,
            (await engine.generate(QUERY, key)).answer,
            (await engine.generate(QUERY, sampling=hot)).answer,
        ]
        together = await asyncio.gather(
            engine.generate(QUERY),
            engine.generate(QUERY, key),
            engine.generate(QUERY, sampling=hot),
            engine.generate(QUERY, key, 150, sampling=asked(temperature=1.0, seed=1)),
            engine.generate(
                QUERY, None, 150, sampling=asked(top_p=0.9, temperature=2.0, top_k=5, seed=2)
            ),
        )
    assert [one.answer for one in together[:3]] == alone
    check(together[3])
    assert together[3].card == key
    check(together[4])


async def test_logprobs_are_of_the_model_itself_when_a_schema_leaves_one_token(base):
    schema = json.dumps({"const": "never"})
    async with running(base) as engine:
        found = await engine.generate(
            QUERY, sampling=samplings.Sampling(json_schema=schema, top_logprobs=1)
        )
    assert found.answer == '"never"'
    with torch.inference_mode():
        first = base.model(input_ids=torch.tensor([base.prompt_ids(QUERY)])).logits[0, -1]
    quote = base.tokenizer.convert_tokens_to_ids('"')
    assert found.logprobs[0].logprob == pytest.approx(float(first.log_softmax(-1)[quote]), abs=1e-4)
    assert found.logprobs[0].top[0].logprob > found.logprobs[0].logprob
    # Nothing is learned from a model's surprise at a form that it was made to keep to.
    assert (found.certainty.mean_logprob, found.certainty.mean_entropy) == (0.0, 0.0)
    assert found.certainty.tokens == found.new_tokens


async def test_answer_says_length_when_its_tokens_end_before_its_json(base):
    async with running(base) as engine:
        found = await engine.generate(QUERY, max_new_tokens=5, sampling=asked())
    assert (found.finish, found.new_tokens) == ("length", 5)
    with pytest.raises(json.JSONDecodeError):
        json.loads(found.answer)


async def test_free_forms_are_kept_to_when_schemas_say_little(base):
    async with running(base, max_new_tokens=150) as engine:
        for schema, kind in (
            (True, None),
            ({}, None),
            ({"type": "object", "maxProperties": 1}, dict),
        ):
            found = [
                await engine.generate(
                    QUERY,
                    sampling=asked(json_schema=json.dumps(schema), temperature=1.0, seed=seed),
                )
                for seed in range(4)
            ]
            # A random model seldom closes its strings, so that some answers end by their length.
            for one in found:
                if one.finish == "stop":
                    value = json.loads(one.answer)
                    assert kind is None or isinstance(value, kind)
                elif kind is dict:
                    assert one.answer.startswith("{")


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        ("{", "is not JSON: Expecting property name.*column 2"),
        ("[]", r"json_schema is \[\], expected an object"),
        ('"object"', "json_schema is \"object\""),
        ("[" * 100_000, "is not JSON|characters"),
        (" " * 100_001, "100,001 characters"),
        (json.dumps({"type": "strin"}), "at its top: Invalid type: strin"),
        (
            json.dumps({"properties": {"a": {}, "b/c": {"items": {"uniqueItems": True}}}}),
            "at /properties/b~1c/items: .*uniqueItems",
        ),
        (
            json.dumps({"anyOf": [{"type": "string"}, {"type": "string", "pattern": "(?=a)b"}]}),
            "at /anyOf/1: .*look-around",
        ),
        (
            json.dumps(
                {"properties": {"x": {}, "y": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"if": {}}}}
            ),
            "at /properties/y: .*if",
        ),
        (json.dumps({"properties": {"y": {"$ref": "http://x.org/z"}}}), "at /properties/y: "),
        ("false", "json_schema is false"),
    ],
)  # fmt: skip
async def test_schema_is_refused_with_the_place_when_it_is_wrong_or_not_supported(
    base, schema, match
):
    async with running(base, max_new_tokens=4) as engine:
        with pytest.raises(errors.InvalidInputError, match=match):
            await engine.generate(QUERY, sampling=asked(json_schema=schema))
        assert (await engine.generate(QUERY)).new_tokens == 4
        assert engine.load.running == engine.load.waiting == 0


async def test_request_is_refused_when_the_tokenizer_can_not_be_read(base):
    class Slow:
        """As tokenizers without the library tokenizers are."""

        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            if name == "backend_tokenizer":
                raise AttributeError(name)
            return getattr(self._inner, name)

    slow = dataclasses.replace(base, tokenizer=Slow(copy.deepcopy(base.tokenizer)))
    with pytest.raises(errors.PreconditionError, match="tokenizer of base model tiny"):
        await constraints.Schemas(slow).constraint(TEXT)


async def test_schema_is_compiled_once_when_it_comes_again(base, monkeypatch):
    compiled = []
    schemas = constraints.Schemas(base)
    compile_ = schemas._compile
    monkeypatch.setattr(schemas, "_compile", lambda text: compiled.append(text) or compile_(text))
    first, second = await schemas.constraint(TEXT), await schemas.constraint(TEXT)
    assert compiled == [TEXT]
    logits = torch.zeros(len(base.tokenizer) + 5)
    logits[-1] = 9.0  # The model's vocabulary may be wider than the tokenizer's.
    scores, likeliest, _ = first.allowed(logits)
    assert base.tokenizer.convert_ids_to_tokens(likeliest) == "{"
    assert torch.isfinite(scores).sum() == 1 and logits[-1] == 9.0
    first.take(likeliest)
    assert second.allowed(logits)[1] == likeliest
    assert not first.ended
