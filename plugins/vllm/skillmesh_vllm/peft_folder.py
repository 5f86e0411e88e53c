"""A card's bytes as the PEFT adapter folder that vLLM loads.

Byte work alone, without torch and PEFT. A card keeps A as (in_features, rank) and B as (rank,
out_features); PEFT keeps both transposed. No pattern fields are written, which some versions of
vLLM do not know: modules of a lower rank are filled up with zeros to the highest.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skillmesh_vllm import errors

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_METADATA_KEY = b"skillmesh.manifest"
_FORMAT_VERSION = 1
_COLUMNS = (
    "module", "rank", "in_features", "out_features", "alpha", "dtype", "lora_A", "lora_B",
)  # fmt: skip
# Weights are moved as bits: numpy has no bfloat16.
_BITS: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<u4"),
    "float16": np.dtype("<u2"),
    "bfloat16": np.dtype("<u2"),
}
_SAFETENSORS_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_ALPHA_ROUNDING = 1e-6
"""Alpha is kept in float32: one scale at several ranks comes back a little apart."""


@dataclasses.dataclass(frozen=True)
class _Matrix:
    """One of a module's two matrices, in the card's orientation."""

    key: str
    """Its name in PEFT."""
    dtype: str
    shape: tuple[int, int]
    """Of what PEFT keeps: transposed and filled up."""
    bits: npt.NDArray[Any]

    @property
    def size_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.bits.itemsize

    def stored(self) -> npt.NDArray[Any]:
        if self.bits.shape == self.shape[::-1]:
            return np.ascontiguousarray(self.bits.T)
        filled = np.zeros(self.shape, self.bits.dtype)
        filled[: self.bits.shape[1], : self.bits.shape[0]] = self.bits.T
        return filled


def write(data: pa.Buffer, base_fingerprint: str, folder: pathlib.Path) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` into a folder, synced to disk.

    Args:
        data: the card's file, whose digest was checked.
        base_fingerprint: of the base model that is served.
        folder: exists, and is nobody else's yet.

    Raises:
        errors.DamagedError: the file is no card.
        errors.MismatchError: it was made for another base model, or can't be expressed.
    """
    batch, manifest = _read(data)
    name, base = manifest["name"], manifest["base_model"]
    if base["fingerprint"] != base_fingerprint:
        raise errors.MismatchError(
            f"card {name} was made for base model {base['id']} with fingerprint "
            f"{base['fingerprint']}; this vLLM serves {base_fingerprint}"
        )
    modules = [dict(zip(_COLUMNS, row, strict=True)) for row in _rows(batch)]
    ranks = [int(module["rank"]) for module in modules]
    if min(ranks) < 1 or len({module["module"] for module in modules}) < len(modules):
        raise errors.DamagedError(f"card {name}: a module has no rank, or appears twice")
    rank = max(ranks)
    scales = [module["alpha"] / module["rank"] for module in modules]
    if not math.isclose(min(scales), max(scales), rel_tol=_ALPHA_ROUNDING):
        raise errors.MismatchError(
            f"card {name}: its modules have different scales (alpha / rank), {min(scales):g} to "
            f"{max(scales):g}, which vLLM can't express; merge or extract it with one scale"
        )
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base["id"],
        "revision": base["revision"],
        "inference_mode": True,
        "r": rank,
        "lora_alpha": max(scales) * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted({str(m["module"]).rpartition(".")[2] for m in modules}),
    }
    with (folder / WEIGHTS_FILE).open("xb") as file:
        _write_safetensors(file, [one for m in modules for one in _matrices(m, rank)])
    with (folder / CONFIG_FILE).open("xb") as file:
        file.write(json.dumps(config, indent=2).encode())
        _sync(file)


def _read(data: pa.Buffer) -> tuple[pa.RecordBatch, dict[str, Any]]:
    try:
        reader = pa.ipc.open_file(data)
        manifest = json.loads((reader.schema.metadata or {})[_METADATA_KEY])
        if reader.num_record_batches != 1 or tuple(reader.schema.names) != _COLUMNS:
            raise ValueError("its columns are not those of a skill card")
        batch = reader.get_batch(0)
        # A batch with bad offsets crashes the process that trusts it.
        batch.validate(full=True)
        texts = (manifest["name"], *(manifest["base_model"][k] for k in ("id", "revision")))
        if manifest["format_version"] != _FORMAT_VERSION or not all(
            isinstance(text, str) for text in (*texts, manifest["base_model"]["fingerprint"])
        ):
            raise ValueError(f"its format is not version {_FORMAT_VERSION}; update this plugin")
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise errors.DamagedError(f"what the store sent is no skill card: {error}") from error
    if not batch.num_rows:
        raise errors.DamagedError("what the store sent adapts no module")
    return batch, manifest


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    plain = [batch.column(name).to_pylist() for name in _COLUMNS[:6]]
    buffers = [[value.as_buffer() for value in batch.column(name)] for name in _COLUMNS[6:]]
    yield from zip(*plain, *buffers, strict=True)


def _matrices(module: dict[str, Any], rank: int) -> Iterator[_Matrix]:
    own, inner, outer = module["rank"], module["in_features"], module["out_features"]
    for side, rows, columns, shape in (
        ("A", inner, own, (rank, inner)),
        ("B", own, outer, (outer, rank)),
    ):
        key = f"base_model.model.{module['module']}.lora_{side}.weight"
        try:
            bits = np.frombuffer(module[f"lora_{side}"], _BITS[module["dtype"]])
            yield _Matrix(key, module["dtype"], shape, bits.reshape(rows, columns))
        except (ValueError, KeyError, TypeError) as error:
            raise errors.DamagedError(f"{key}: not {rows} x {columns} weights: {error}") from error


def _write_safetensors(file: IO[bytes], matrices: list[_Matrix]) -> None:
    """Length of the header, header, weights: https://huggingface.co/docs/safetensors."""
    # The widest first, so that each begins where its own width divides the offset.
    matrices = sorted(matrices, key=lambda one: -one.bits.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for one in matrices:
        end = at + one.size_bytes
        dtype = _SAFETENSORS_DTYPES[one.dtype]
        header[one.key] = {"dtype": dtype, "shape": one.shape, "data_offsets": (at, end)}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for one in matrices:
        file.write(one.stored().data)
    _sync(file)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
