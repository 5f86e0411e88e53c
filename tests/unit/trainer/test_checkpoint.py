from __future__ import annotations

import pathlib
from typing import Any

import pytest
import safetensors.torch
import torch

from services.trainer import checkpoint


def state() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    parameters = [torch.randn(2, 3, generator=generator) for _ in range(12)]
    moments = {
        index: {"step": torch.tensor(4.0), "exp_avg": parameter * 2, "exp_avg_sq": parameter**2}
        for index, parameter in enumerate(parameters)
    }
    return {
        "step": 4,
        "loss": 0.1 + 0.2,
        "noise": generator.get_state(),
        "parameters": parameters,
        "optimiser": {"state": moments},
    }


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "task" / "draft.checkpoint"


def test_the_state_comes_back_when_it_was_saved(path: pathlib.Path) -> None:
    saved = state()
    checkpoint.Checkpoint(path).save(saved, seconds=12.25)
    again = checkpoint.Checkpoint(path)
    loaded = again.load()
    assert loaded is not None
    assert (loaded["step"], loaded["loss"], again.seconds) == (4, 0.1 + 0.2, 12.25)
    assert torch.equal(loaded["noise"], saved["noise"])
    assert len(loaded["parameters"]) == 12
    assert all(map(torch.equal, loaded["parameters"], saved["parameters"]))
    assert loaded["moments"].keys() == saved["optimiser"]["state"].keys()
    for index, moments in saved["optimiser"]["state"].items():
        assert loaded["moments"][index].keys() == moments.keys()
        assert all(torch.equal(loaded["moments"][index][name], moments[name]) for name in moments)


def test_nothing_is_loaded_when_there_is_no_file(path: pathlib.Path) -> None:
    assert checkpoint.Checkpoint(path).load() is None


@pytest.mark.parametrize("kept", [0, 5, 400])
def test_nothing_is_loaded_when_the_file_is_cut_short(path: pathlib.Path, kept: int) -> None:
    checkpoint.Checkpoint(path).save(state(), seconds=1.0)
    whole = path.read_bytes()
    assert kept < len(whole)
    path.write_bytes(whole[:kept])
    assert checkpoint.Checkpoint(path).load() is None


def test_nothing_is_loaded_when_the_file_is_no_checkpoint(path: pathlib.Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff" * 4096)
    assert checkpoint.Checkpoint(path).load() is None


@pytest.mark.parametrize("numbers", [None, {"step": "4", "seconds": "1.0"}])
def test_nothing_is_loaded_when_another_version_wrote_it(
    path: pathlib.Path, numbers: dict[str, str] | None
) -> None:
    path.parent.mkdir()
    safetensors.torch.save_file({"parameter.0": torch.zeros(2)}, path, numbers)
    assert checkpoint.Checkpoint(path).load() is None


def test_nothing_is_loaded_when_the_checkpoint_was_removed(path: pathlib.Path) -> None:
    kept = checkpoint.Checkpoint(path)
    kept.save(state(), seconds=1.0)
    kept.remove()
    kept.remove()
    assert kept.load() is None
    assert not list(path.parent.iterdir())
