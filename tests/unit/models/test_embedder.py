"""The embedder beside the reference implementation of the same model."""

from __future__ import annotations

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers

from shared import errors
from shared.models import embedder as embedders
from shared.models import files

SHORT = (
    "What is the exchange rate between dollars and euros?",
    "can you tell me how many calories a cup of blueberries has",
    "Wie hoch ist der Turm von Skarnholm, and who built it? 塔は何メートルですか。",
    "tandrel --port 8080 & echo $?",
    "naïve café, e\u0301te\u0301 🙂",
    "?",
    " \t\n",
    "\x00\x01\x7f\ufffd",
    "",
)
LONG = {
    "words": "the quick brown fox jumps over the lazy dog " * 2_300,
    "lines": "\n".join(f"line {n}" for n in range(10_000)),
    "no spaces": "塔は何メートルですか" * 10_000,
    "one word": "a" * 100_000,
    "blanks": " " * 100_000 + "What is at the end?",
    "cut in a word": " " * 4_090 + "unbelievably long",
    "full within the word that is cut": "a " * 252 + " " * 3_532 + "x" * 120 + " tower " * 9,
}


@pytest.fixture(scope="module")
def embedder() -> embedders.Embedder:
    return embedders.Embedder()


@pytest.fixture(scope="module")
def reference() -> sentence_transformers.SentenceTransformer:
    transformers.utils.logging.disable_progress_bar()
    folder = str(files.embedder_folder())
    return sentence_transformers.SentenceTransformer(folder, device="cpu", local_files_only=True)


def _cosines(one, other):
    return (one * other).sum(axis=1)


@pytest.mark.parametrize(
    "texts", [SHORT, *((text,) for text in LONG.values())], ids=["short", *LONG]
)
def test_vectors_are_those_of_the_reference_implementation(embedder, reference, texts):
    expected = reference.encode(
        list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )
    found = embedder.embed(texts)
    assert found.shape == (len(texts), embedders.DIMENSION) and found.dtype == np.float32
    assert _cosines(found, expected).min() > 1 - 1e-5


def test_vector_does_not_depend_on_its_company_when_texts_are_many(embedder):
    texts = [*SHORT, *LONG.values()]
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    assert np.abs(embedder.embed(texts, batch_size=5) - alone).max() < 1e-5


def test_vectors_are_the_same_when_the_processor_has_no_packed_weights(embedder, monkeypatch):
    monkeypatch.setattr(type(torch.backends.quantized), "supported_engines", ["qnnpack"])
    other = embedders.Embedder()
    assert np.abs(other.embed(SHORT) - embedder.embed(SHORT)).max() < 1e-3


def test_half_a_surrogate_pair_is_read_as_an_unknown_sign(embedder):
    found = embedder.embed(["\ud83d How tall is it?", "? How tall is it?"])
    assert np.array_equal(found[0], found[1])


def test_no_texts_give_no_vectors(embedder):
    assert embedder.embed([]).shape == (0, embedders.DIMENSION)


def test_other_weights_are_refused_by_name(tmp_path):
    with pytest.raises(errors.ConfigError, match="missing"):
        embedders.Embedder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"other")
    with pytest.raises(errors.ConfigError, match="expected 53aa51"):
        embedders.Embedder(tmp_path)
