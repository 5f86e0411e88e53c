"""The parts of the base model's recipe that can be checked without training it."""

from __future__ import annotations

import random
import string

import torch

from shared.models.embedded.recipe import compositions, families, muon, train

VOCABULARY = (
    "walk walked walking walks stone stones river rivers bright brightly open opened opening opens "
    "music musical famous active washable"
).split()


def test_singular_values_come_near_one_when_a_matrix_is_orthogonalised():
    generator = torch.Generator().manual_seed(1)
    for shape in ((24, 40), (40, 24)):
        matrix = torch.randn(shape, generator=generator)
        values = torch.linalg.svdvals(muon.orthogonalised(matrix))
        assert muon.orthogonalised(matrix).shape == shape
        assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_update_is_that_of_torch_when_the_gradients_are_the_same():
    start = torch.randn(16, 12, generator=torch.Generator().manual_seed(2))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    own = muon.Muon([ours], lr=0.02, weight_decay=0.01)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.01)
    for seed in range(3):
        gradient = torch.randn(16, 12, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        own.step()
        reference.step()
    # The reference computes in bfloat16.
    assert torch.allclose(ours, theirs, atol=2e-3)
    assert not torch.allclose(ours, start, atol=2e-3)


def test_words_are_told_apart_when_the_vocabulary_has_their_forms():
    lexicon = compositions.Lexicon(VOCABULARY)
    assert [str(verb) for verb in lexicon.kinds["verb"]] == ["walk", "open"]
    assert {"stone", "river"} <= set(lexicon.kinds["noun"])
    assert {"bright", "musical", "famous", "active", "washable"} <= set(lexicon.kinds["adjective"])


def test_wordings_ask_about_the_thing_when_a_question_is_composed():
    lexicon = compositions.Lexicon(VOCABULARY)
    rng = random.Random(3)
    for _ in range(60):
        wordings = compositions.compose(lexicon, "Orun", 2, rng)
        assert len(set(wordings)) == 2
        assert all("Orun" in text and "{" not in text for text in wordings)


def test_every_family_can_be_filled_in():
    slots = {"x": "Orun", "y": "Brack", "v": "five"}
    names = {field for _, field, _, _ in string.Formatter().parse("{x}{y}{v}") if field}
    for family in families.load():
        assert len(set(family.questions)) >= 6, family.name
        for text in (*family.questions, *family.statements):
            used = {field for _, field, _, _ in string.Formatter().parse(text) if field}
            assert used <= names and "x" in used, text
            assert "Orun" in text.format(**slots)


def test_contrast_is_least_when_wordings_of_one_meaning_lie_together():
    together = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    apart = together[[0, 2, 1, 3]]
    batch = {"vectors": together, "meaning": torch.tensor([0, 0, 1, 1])}
    near = train.meaning_losses(together, batch, 0.1)
    far = train.meaning_losses(apart, batch, 0.1)
    assert float(near[0]) == 0.0 and float(far[0]) == 0.5
    assert float(near[1]) < 0.01 < 5 < float(far[1])
