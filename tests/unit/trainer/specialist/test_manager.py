"""Cards of a tiny code base: trained, resumed, cancelled, and proved on what was held out."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
import torch

from services.trainer import checkpoint, course
from services.trainer import pace as paces
from services.trainer.specialist import manager
from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from tests import tiny_model
from tests.unit.trainer.specialist import code


@pytest.fixture(autouse=True)
def few_replayed_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    code.answer_few_questions(monkeypatch)


def trained(made: manager.TrainingManager, folder: pathlib.Path, seed: int = 1) -> cards.LoRACard:
    path = folder / f"draft{formats.SUFFIX}"
    made.train(code.taught(), path, code.order(seed), code.ignore)
    checkpoint.beside(path).remove()
    return formats.LoRAFormat.load(path)


def weights(card: cards.LoRACard) -> dict[str, bytes]:
    return {path: bytes(one.lora_b) for path, one in card}


def test_a_card_says_how_it_was_trained_and_why_and_by_which_route_it_is_asked(
    tmp_path: pathlib.Path,
) -> None:
    card = trained(code.managed(tmp_path), tmp_path)
    manifest = card.manifest
    assert manifest.route == manifests.SPECIALIST_LOCAL
    assert manifest.routing is not None and manifest.routing.examples == ()
    assert {path.rpartition(".")[2] for path, _ in card} == {
        "q_proj", "k_proj", "v_proj", "o_proj",
    }  # fmt: skip
    assert manifest.licence == "MIT" and manifest.lineage is not None
    assert "there is no GPU" in str(manifest.lineage.recipe["plan"])
    assert manifest.lineage.recipe["backend"] == "own"
    assert manifest.lineage.recipe["dropped"] == 0


def test_the_same_card_comes_of_the_same_seed(tmp_path: pathlib.Path) -> None:
    once, again, other = (
        weights(trained(code.managed(tmp_path, epochs=1.0), tmp_path, seed)) for seed in (1, 1, 2)
    )
    assert once == again
    assert once != other


def test_a_training_goes_on_where_it_was_cancelled(tmp_path: pathlib.Path) -> None:
    path = tmp_path / f"draft{formats.SUFFIX}"
    stopped = code.managed(tmp_path)

    def cancel_soon(share: float, detail: str, pace: paces.Pace | None = None) -> None:
        if pace is not None and pace.step >= 4:  # The first checkpoint.
            stopped.cancel()

    with pytest.raises(course.Cancelled):
        stopped.train(code.taught(), path, code.order(), cancel_soon)
    saved = checkpoint.beside(path).load()
    assert saved is not None and not path.exists()
    shown: list[float] = []

    def watch(share: float, detail: str, pace: object = None) -> None:
        if pace is not None:
            shown.append(share)

    resumed = code.managed(tmp_path)
    outcome = resumed.train(code.taught(), path, code.order(), watch)
    assert saved["step"] < outcome.steps
    assert min(shown) > saved["step"] / outcome.steps - 1e-9
    checkpoint.beside(path).remove()
    gone_on, whole = formats.LoRAFormat.load(path), trained(code.managed(tmp_path), tmp_path)
    for module, one in gone_on:
        first, second = (
            torch.frombuffer(bytearray(w.lora_b), dtype=torch.float32)
            for w in (one, whole.modules[module])
        )
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


def test_a_card_helps_with_what_was_held_out_and_the_gate_says_so(tmp_path: pathlib.Path) -> None:
    made = code.managed(tmp_path, epochs=20.0)
    rows = made.prove(trained(made, tmp_path), code.taught(), code.ignore)
    perplexity, completions, lines, known = rows
    assert perplexity.name == "perplexity" and perplexity.passed and perplexity.right > 500
    # Within a line of a held-out definition all but its own name is as in the others.
    assert completions.name == "completions" and completions.passed and completions.asked > 0
    assert lines.name == "lines" and lines.asked == completions.asked
    assert known.name == "known" and known.asked == 2
    assert all(row.curable for row in rows)


def test_nothing_is_left_in_the_model_when_a_proof_is_over(tmp_path: pathlib.Path) -> None:
    base = tiny_model.tiny_base()
    before = {name: type(module) for name, module in base.model.named_modules()}
    made = code.managed(tmp_path, base, epochs=1.0)
    card = trained(made, tmp_path)
    made.prove(card, code.taught(), code.ignore)
    made.cancel()
    with pytest.raises(course.Cancelled):
        made.prove(card, code.taught(), code.ignore)
    assert {name: type(module) for name, module in base.model.named_modules()} == before


def test_a_training_is_refused_when_everything_is_held_out(tmp_path: pathlib.Path) -> None:
    held_out = [one for one in code.taught() if one.held_out]
    with pytest.raises(errors.InvalidInputError, match="none can be trained on"):
        code.managed(tmp_path).train(
            held_out, tmp_path / "draft.lora.arrow", code.order(), code.ignore
        )


def test_questions_are_left_out_when_there_is_no_time_for_all(tmp_path: pathlib.Path) -> None:
    hurried = code.managed(tmp_path, cpu_minutes=0.003)
    many = [
        dataclasses.replace(one, symbol=f"{one.symbol}{at}", path=f"{at}.py")
        for at in range(300)
        for one in code.taught()
    ]
    everything, how = hurried.chosen(many[:24])
    assert "left out" not in how.why and len(everything.examples) == 24
    some, how = hurried.chosen(many)
    assert "answer questions are left out" in how.why
    assert len(some.examples) == 300 * 8 and how.steps * how.batch_rows < 300 * 12
