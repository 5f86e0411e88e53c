"""Reads a skill card with pyarrow and numpy alone, as docs/reference/card-format.md describes it.

    python examples/read_card.py CARD.lora.arrow

Nothing of skillmesh is imported: whoever writes another implementation may begin here.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import pyarrow as pa


def read(path: pathlib.Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The manifest of a card, and what it adds to the weight of each module, (in, out) float32."""
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    table.validate(full=True)
    manifest = json.loads(table.schema.metadata[b"skillmesh.manifest"])
    return manifest, {row["module"]: _change(row) for row in table.to_pylist()}


def _change(row: dict) -> np.ndarray:
    a = _matrix(row["lora_A"], row["dtype"]).reshape(row["in_features"], row["rank"])
    b = _matrix(row["lora_B"], row["dtype"]).reshape(row["rank"], row["out_features"])
    return a @ b * np.float32(row["alpha"] / row["rank"])


def _matrix(data: bytes, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":  # The upper half of a float32.
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"float32": "<f4", "float16": "<f2"}[dtype]).astype(np.float32)


if __name__ == "__main__":
    card = pathlib.Path(sys.argv[1])
    manifest, changes = read(card)
    digest = hashlib.sha256(card.read_bytes()).hexdigest()
    print(f"{manifest['name']} {manifest['version']}, sha256 {digest}")
    print(f"for {manifest['base_model']['id']} ({manifest['base_model']['fingerprint'][:12]})")
    for module, change in changes.items():
        print(
            f"  {module}: {change.shape[0]} x {change.shape[1]}, norm {np.linalg.norm(change):.3f}"
        )
