"""Makes a card by hand, saves it, loads it and looks at it.

    python examples/make_card.py FOLDER

Needs neither torch nor a base model: a card is data. A node takes it only where its fingerprint is
that of the node's base model.
"""

import pathlib
import sys

import numpy as np
import pyarrow as pa

from shared.cards.card import LoRACard, ModuleWeights
from shared.cards.format import LoRAFormat
from shared.cards.manifest import BaseModelReference, Manifest

RANK, IN, OUT = 4, 64, 32


def card() -> LoRACard:
    """A card of rank 4 for one module of a model that does not exist."""
    random = np.random.default_rng(0)
    a = random.standard_normal((IN, RANK)).astype(np.float16)
    b = random.standard_normal((RANK, OUT)).astype(np.float16)
    weights = ModuleWeights(
        rank=RANK,
        in_features=IN,
        out_features=OUT,
        alpha=8.0,
        dtype="float16",
        lora_a=pa.py_buffer(a.tobytes()),
        lora_b=pa.py_buffer(b.tobytes()),
    )
    manifest = Manifest(
        name="by-hand",
        version="1.0.0",
        base_model=BaseModelReference(id="nobody/nothing", revision="", fingerprint="0" * 64),
        target_modules=("q_proj",),
        domain="examples",
        description="Shows how a card is made.",
        created_at="2026-01-01T00:00:00Z",
    )
    return LoRACard(manifest, {"model.layers.0.self_attn.q_proj": weights})


if __name__ == "__main__":
    path = pathlib.Path(sys.argv[1], "by-hand.lora.arrow")
    digest = LoRAFormat.save(card(), path)
    loaded = LoRAFormat.load(path, expected_digest=digest)
    print(f"{path}: {loaded.name}@{digest}")
    print(f"rank {loaded.rank}, {loaded.size_bytes} bytes of weights, {list(loaded.modules)}")
