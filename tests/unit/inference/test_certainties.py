from __future__ import annotations

import pytest
import torch

from services.inference import certainties
from services.inference import engine as engines
from shared import settings as config
from tests import tiny_model

QUERY = "Who built it?"


def test_means_are_those_computed_by_hand():
    certainty, other = certainties.Certainty(), certainties.Certainty()
    # Probabilities 1/2, 1/4, 1/4, and certainty of the third.
    logits = torch.tensor([[2.0, 1.0, 1.0], [-1e9, -1e9, 0.0]]).log()
    logits[1] = torch.tensor([float("-inf"), float("-inf"), 0.0])
    certainties.add([certainty, other], logits, [0, 2])
    certainties.add([certainty, None], logits, [1, 2])
    assert certainty.tokens == 2
    assert certainty.mean_logprob == pytest.approx((-0.693147 - 1.386294) / 2, abs=1e-5)
    assert certainty.mean_entropy == pytest.approx(1.039721, abs=1e-5)
    assert (other.tokens, other.mean_logprob, other.mean_entropy) == (1, 0.0, 0.0)
    assert (certainties.Certainty().mean_logprob, certainties.Certainty().mean_entropy) == (0, 0)


async def test_signals_are_those_of_a_forward_pass_over_the_answer(base):
    engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=6))
    engine.start()
    try:
        await engine.load_lora(tiny_model.card_for(base, seed=1), "a@1")
        with_card = await engine.generate(QUERY, "a@1")
        found = await engine.generate(QUERY)
    finally:
        await engine.stop()
    ids = base.prompt_ids(QUERY)
    logprobs, entropies = [], []
    with torch.inference_mode():
        for _ in range(found.certainty.tokens):
            scores = base.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            token = int(scores.argmax())
            logprobs.append(float(scores[token]))
            entropies.append(float(-(scores.exp() * scores).sum()))
            ids = [*ids, token]
    assert found.certainty.tokens >= found.new_tokens > 0
    assert found.certainty.mean_logprob == pytest.approx(sum(logprobs) / len(logprobs), abs=1e-4)
    assert found.certainty.mean_entropy == pytest.approx(sum(entropies) / len(entropies), abs=1e-4)
    assert with_card.certainty is None
