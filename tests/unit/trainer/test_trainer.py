"""`LoRATrainer` on a tiny model: which matrices are trained, and what the card makes of them."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest
import torch

from services.trainer import (
    backends,
    checkpoint,
    data,
    gate,
    loop,
    probe,
    regression,
    trainer,
)
from services.trainer.backends import own
from shared import errors
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import peft_layout
from shared.flight import datasets
from shared.lora import manager, tensors
from shared.models import greedy, replay
from tests import tiny_model

PAIRS = (datasets.QAPair("Who built it?", "Ann", ("By whom was it built?",), "", "", 1.0),)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
RANKS = {"q_proj": 2, "model.layers.1.self_attn.q_proj": 3, "down_proj": 6}
EXPECTED = {
    "model.layers.0.self_attn.q_proj": 2,
    "model.layers.0.self_attn.v_proj": 4,
    "model.layers.0.mlp.down_proj": 6,
    "model.layers.1.self_attn.q_proj": 3,
    "model.layers.1.self_attn.v_proj": 4,
    "model.layers.1.mlp.down_proj": 6,
}


@pytest.fixture(autouse=True)
def few_replayed_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = (replay.Answered("Why?", "no"), replay.Answered("How?", "so"))
    monkeypatch.setattr(replay, "prepare", lambda *_: replay.Replay(answered, (), ()))


def recipe(**changes: Any) -> config.Recipe:
    fields: dict[str, Any] = {
        "rank": 4,
        "ranks": RANKS,
        # Not exact in binary: alpha is rounded for each rank.
        "alpha_over_rank": 0.3,
        "target_modules": ("q_proj", "v_proj", "down_proj"),
        "learning_rate": 0.1,
        "max_steps": 2,
        "least_steps": 2,
        "replay_rows": 1,
        "card_dtype": "float32",
    }
    return config.Recipe(**(fields | changes))


def trained(
    folder: pathlib.Path, how: config.Recipe, factor: int = 1, **settings: Any
) -> cards.LoRACard:
    """A card out of one tiny training, as it is read back from its file."""
    path = folder / "draft.lora.arrow"
    order = trainer.Order(
        "t1", "0" * 64, "tiny", "1.0.0", "testing", "a card", "documents", 1, factor
    )
    made = trainer.LoRATrainer(tiny_model.tiny_base(), how, config.Trainer(**settings), folder)
    made.train_qa(PAIRS, path, order, lambda *_: None)
    return formats.LoRAFormat.load(path)


def test_every_rank_grows_and_the_recipe_says_so_when_the_order_asks_for_more(
    tmp_path: pathlib.Path,
) -> None:
    card = trained(tmp_path, recipe(), factor=2)
    assert {path: weights.rank for path, weights in card} == {
        path: 2 * rank for path, rank in EXPECTED.items()
    }
    assert [weights.scale for _, weights in card] == pytest.approx([0.3] * len(EXPECTED), rel=1e-6)
    assert card.manifest.lineage is not None
    assert card.manifest.lineage.recipe["rank_factor"] == 2
    assert card.manifest.lineage.recipe["rank"] == 8


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


def test_modules_have_their_own_ranks_and_one_scale_when_the_recipe_says_so(
    tmp_path: pathlib.Path,
) -> None:
    card = trained(tmp_path, recipe())
    assert {path: weights.rank for path, weights in card} == EXPECTED
    assert [weights.scale for _, weights in card] == pytest.approx([0.3] * len(EXPECTED), rel=1e-6)
    assert all(any(bytes(weights.lora_b)) for _, weights in card), "every one was trained"
    assert card.manifest.lineage is not None
    assert '"down_proj": 6' in str(card.manifest.lineage.recipe["ranks"])

    merged, served = tiny_model.tiny_base(), tiny_model.tiny_base()
    for path, weights in card:
        lora = tensors.adapter_of(weights, torch.float32)
        merged.model.get_submodule(path).weight.data += (lora.lora_a @ lora.lora_b * 0.3).T
    bare, expected = logits(served.model), logits(merged.model)
    assert not torch.allclose(bare, expected, atol=1e-2)
    lora_manager = manager.LoRAManager(served.model)
    lora_manager.apply_card(card, "card")
    lora_manager.activate("card")
    torch.testing.assert_close(logits(served.model), expected, rtol=1e-4, atol=1e-4)
    lora_manager.activate_rows([None, "card"])
    rows = torch.cat([bare[:1], expected[1:]])
    torch.testing.assert_close(logits(served.model), rows, rtol=1e-4, atol=1e-4)


def test_a_card_goes_to_peft_when_its_modules_have_their_own_ranks(tmp_path: pathlib.Path) -> None:
    card = trained(tmp_path, recipe())
    peft_layout.export(card, tmp_path / "peft")
    back = peft_layout.read(tmp_path / "peft")
    assert {weights.rank for weights in back.modules.values()} == {6}
    assert all(one.scale == pytest.approx(0.3, rel=1e-6) for one in back.modules.values())


def test_a_card_has_the_targets_and_ranks_of_the_probe_when_it_is_trained_with_them(
    tmp_path: pathlib.Path,
) -> None:
    found = probe.WeightMapProbe(tiny_model.tiny_base()).measure([PAIRS[0].question])
    targets = found.target_modules(0.25)
    ranks = found.ranks(4, targets)
    card = trained(tmp_path, recipe(target_modules=targets, ranks=ranks))
    assert {path: weights.rank for path, weights in card} == ranks
    assert len(set(ranks.values())) > 1


def test_all_modules_have_one_rank_when_the_recipe_gives_no_others(tmp_path: pathlib.Path) -> None:
    card = trained(tmp_path, recipe(ranks={}))
    assert {weights.rank for _, weights in card} == {4}
    assert card.manifest.lineage is not None and "ranks" not in card.manifest.lineage.recipe


def test_the_path_is_named_when_the_model_has_no_such_layer(tmp_path: pathlib.Path) -> None:
    wrong = recipe(ranks={"model.layers.9.self_attn.q_proj": 2})
    with pytest.raises(errors.ConfigError, match=r"ranks.*model\.layers\.9\.self_attn\.q_proj"):
        trained(tmp_path, wrong)


def test_training_begins_again_when_the_checkpoint_is_of_other_ranks(
    tmp_path: pathlib.Path,
) -> None:
    whole = trained(tmp_path / "whole", recipe())
    base = tiny_model.tiny_base()
    settings = loop.LoopSettings(0.1, 2, 2, 1, 0, 0.0, 1, 1.0, 0.0, 0.0, 1)
    facts = [[data.example(base, "Who?", "Ann")]]
    work = backends.Work(base, dict.fromkeys(EXPECTED, 1), 2.0, facts, [], settings)
    with own.Own().open(work) as other:
        state = other.loop.state() | {"step": 2}
    checkpoint.Checkpoint(tmp_path / "draft.lora.checkpoint").save(state, 1.0)
    again = trained(tmp_path, recipe())
    assert again.modules == whole.modules


def test_training_stands_at_its_end_when_its_outcome_was_lost(tmp_path: pathlib.Path) -> None:
    first = trained(tmp_path, recipe())
    assert checkpoint.beside(tmp_path / "draft.lora.arrow").load() is not None
    (tmp_path / "draft.lora.arrow").unlink()
    # Another training would have another course.
    again = trained(tmp_path, recipe(learning_rate=0.2))
    assert again.modules == first.modules


def test_the_file_fits_its_budget_and_says_how_when_the_recipe_asks_for_more(
    tmp_path: pathlib.Path,
) -> None:
    wide = recipe(rank=16, ranks={}, card_dtype="float32")
    budget_mb = 0.0755
    whole = trained(tmp_path / "whole", wide)
    card = trained(tmp_path / "small", wide, card_budget_mb=budget_mb)
    sizes = [next((tmp_path / name).glob("*.arrow")).stat().st_size for name in ("whole", "small")]
    assert sizes[1] < min(sizes[0], budget_mb * 1e6)
    assert {weights.dtype for _, weights in card} == {"float16"}
    ranks = {weights.rank for _, weights in card}
    assert ranks != {weights.rank for _, weights in whole} == {16}
    assert card.manifest.lineage is not None and whole.manifest.lineage is not None
    why = str(card.manifest.lineage.recipe["card_size"])
    assert f"rank {ranks.pop()} in float16: float32 became float16; ranks above" in why
    assert "as the recipe asks" in str(whole.manifest.lineage.recipe["card_size"])


def test_only_upper_layers_are_in_the_card_when_lower_ones_are_frozen(
    tmp_path: pathlib.Path,
) -> None:
    card = trained(tmp_path, recipe(trainable_from_layer=1, ranks={}))
    assert {path.split(".")[2] for path, _ in card} == {"1"}
    with pytest.raises(errors.ConfigError, match="trainable_from_layer 2"):
        trained(tmp_path / "none", recipe(trainable_from_layer=2, ranks={}))


def test_the_card_is_the_same_when_peft_trains(tmp_path: pathlib.Path) -> None:
    own, other = (trained(tmp_path / name, recipe(), backend=name) for name in ("own", "peft"))
    assert own.modules.keys() == other.modules.keys()
    for path, weights in own:
        one = tensors.adapter_of(weights, torch.float32)
        two = tensors.adapter_of(other.modules[path], torch.float32)
        torch.testing.assert_close(one.lora_a, two.lora_a, atol=1e-3, rtol=1e-2)
        torch.testing.assert_close(one.lora_b, two.lora_b, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 3), (5.0, 5), (100.0, 6)])
def test_course_is_as_long_as_there_are_wordings_when_limits_allow(
    tmp_path: pathlib.Path, epochs: float, steps: int
) -> None:
    """Of two wordings two a step."""
    course = {"epochs": epochs, "batch_rows": 2, "min_steps": 3, "max_steps": 6, "least_steps": 6}
    assert course_of(tmp_path, short_answer_tokens=1_000, **course) == steps


def test_course_is_longer_when_answers_are(tmp_path: pathlib.Path) -> None:
    course = {"epochs": 2.0, "batch_rows": 2, "min_steps": 1, "max_steps": 99, "least_steps": 1}
    base = tiny_model.tiny_base()
    tokens = len(data.example(base, "", PAIRS[0].answer).answer_ids)
    assert len(PAIRS) == 1
    assert course_of(tmp_path / "short", short_answer_tokens=tokens, **course) == 2
    assert course_of(tmp_path / "long", short_answer_tokens=tokens // 2, **course) >= 4


def course_of(folder: pathlib.Path, **course: Any) -> Any:
    """The most steps that a training may take."""
    lineage = trained(folder, recipe(**course)).manifest.lineage
    assert lineage is not None
    return lineage.recipe["max_steps"]


def test_version_before_is_asked_beside_the_draft_when_there_is_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = trained(tmp_path / "draft", recipe())
    before = trained(tmp_path / "before", recipe(learning_rate=0.2))
    lora_trainer = trainer.LoRATrainer(tiny_model.tiny_base(), recipe(), config.Trainer(), tmp_path)
    seen: list[tuple[torch.Tensor, tuple[str, ...]]] = []

    def answers(base: Any, asked: Any, *_: Any) -> list[str]:
        seen.append((logits(base.model), tuple(asked)))
        # The draft has forgotten one wording, which is all that tells them apart here.
        draft_is_active = torch.equal(seen[-1][0], with_draft)
        return ["" if draft_is_active and "whom" in text else "Ann" for text in asked]

    bare = logits(lora_trainer.base.model)
    with_draft, with_before = (logits_with(card) for card in (draft, before))
    monkeypatch.setattr(greedy, "answers", answers)
    previous = regression.Previous(before, PAIRS)
    rows = lora_trainer.prove(draft, PAIRS, (), lambda *_: None, previous)

    [row] = [row for row in rows if row.name == "regression"]
    assert (row.right, row.asked, row.wrong) == (1, 2, ("By whom was it built?",))
    assert not row.passed
    (asked_before, questions), (asked_draft, same) = seen[-2:]
    torch.testing.assert_close(asked_before, with_before)
    torch.testing.assert_close(asked_draft, with_draft)
    assert questions == same == ("Who built it?", "By whom was it built?")
    assert torch.equal(logits(lora_trainer.base.model), bare)
    alone = lora_trainer.prove(draft, PAIRS, (), lambda *_: None)
    assert "regression" not in [row.name for row in alone]


def test_a_proof_ends_at_its_next_batch_when_it_is_cancelled(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = trained(tmp_path, recipe())
    lora_trainer = trainer.LoRATrainer(tiny_model.tiny_base(), recipe(), config.Trainer(), tmp_path)
    seen: list[int] = []

    def answers(base: Any, asked: Any, *_: Any) -> list[str]:
        seen.append(len(asked))
        if len(seen) == 2:
            lora_trainer.cancel()
        return [""] * len(asked)

    monkeypatch.setattr(greedy, "answers", answers)
    many = tuple(gate.Trigger(f"Who built {n}?", "Ann") for n in range(100))
    with pytest.raises(trainer.Cancelled):
        lora_trainer.prove(draft, PAIRS, many, lambda *_: None)
    assert seen == [greedy.ROWS, greedy.ROWS]


@pytest.mark.parametrize("factor", [-1, 0, 17])
def test_the_factor_is_named_when_no_rank_can_be_so_large(
    tmp_path: pathlib.Path, factor: int
) -> None:
    with pytest.raises(
        errors.InvalidInputError, match=f"rank_factor is {factor}, expected 1 to 16"
    ):
        trained(tmp_path, recipe(), factor=factor)


def logits_with(card: cards.LoRACard) -> torch.Tensor:
    base = tiny_model.tiny_base()
    lora_manager = manager.LoRAManager(base.model)
    lora_manager.apply_card(card, "card")
    lora_manager.activate("card")
    return logits(base.model)


HELD_OUT = (dataclasses.replace(PAIRS[0], held_out=("Its builder?", "Builder?")),)


def test_the_draft_is_asked_what_it_knows_when_a_wording_is_read_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = trained(tmp_path, recipe())
    lora_trainer = trainer.LoRATrainer(tiny_model.tiny_base(), recipe(), config.Trainer(), tmp_path)
    with_draft = logits_with(draft)

    def answers(base: Any, asked: Any, *_: Any) -> list[str]:
        is_active = torch.equal(logits(base.model), with_draft)
        return ["Ann" if is_active and text == "Who built it?" else "" for text in asked]

    monkeypatch.setattr(greedy, "answers", answers)
    read = {"Its builder?": "Who built it?"}
    rows = lora_trainer.prove(draft, HELD_OUT, (), lambda *_: None, None, read)
    found = {row.name: (row.right, row.asked) for row in rows}
    assert (found["held_out"], found["held_out_alone"]) == ((1, 2), (0, 2))


def test_router_is_not_told_what_is_held_out_when_a_card_is_trained(tmp_path: pathlib.Path) -> None:
    lora_trainer = trainer.LoRATrainer(tiny_model.tiny_base(), recipe(), config.Trainer(), tmp_path)
    order = trainer.Order("t1", "0" * 64, "tiny", "1.0.0", "", "", "", 1)
    path = tmp_path / "draft.lora.arrow"
    lora_trainer.train_qa(HELD_OUT, path, order, lambda *_: None)
    routing = formats.LoRAFormat.load(path).manifest.routing
    assert routing is not None
    assert routing.examples == ("Who built it?", "By whom was it built?")


@pytest.mark.parametrize(("own", "required"), [(None, 0.5), (0.2, 0.2)])
def test_gate_asks_for_as_many_unseen_wordings_as_the_recipe_says(
    tmp_path: pathlib.Path, own: float | None, required: float
) -> None:
    how = recipe(gate_held_out=own)
    card = trained(tmp_path, how)
    made = trainer.LoRATrainer(tiny_model.tiny_base(), how, config.Trainer(), tmp_path)
    rows = made.prove(card, PAIRS, [], lambda *_: None)
    assert [row.required for row in rows if row.name == "held_out"] == [required]
