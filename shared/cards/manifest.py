"""What a skill card says about itself: the JSON in the schema metadata of its Arrow file.

Knows nothing about weights, files or models.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

import pydantic
import pydantic_core

from shared import errors
from shared.models import embedder_id

FORMAT_VERSION = 1
MOST_BYTES = 4 * 1024 * 1024
"""Bytes of a manifest's JSON."""
MOST_VALUES = 65_536
"""Values in it, each of which costs far more than its text: about as many questions."""
_MOST_RECIPE = 1_000
_MOST_ERRORS = 1_000
_LONGEST_NAMED = 100
_UNIT_TOLERANCE = 0.01
"""Of a centroid's length: it may have been kept in half precision."""
NAME_PATTERN = r"[a-z0-9][a-z0-9-]{0,62}"
_VERSION_PATTERN = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
_ROUTE_PATTERN = r"[a-z0-9_]{0,62}"
_SHA256_PATTERN = r"[0-9a-f]{64}"
SPECIALIST_LOCAL = "specialist_local"
"""Route of the cards that were learned from a code base."""

Name = Annotated[str, pydantic.Field(pattern=f"^{NAME_PATTERN}$")]
Sha256 = Annotated[str, pydantic.Field(pattern=f"^{_SHA256_PATTERN}$")]

# Of an array with a million wrong values only the first is told: each would cost a KB.
_FIRST_ERROR = pydantic.FailFast()
_Texts = Annotated[tuple[str, ...], _FIRST_ERROR]


def _small(recipe: Any) -> Any:
    if isinstance(recipe, dict) and len(recipe) > _MOST_RECIPE:
        raise ValueError(f"has {len(recipe)} entries; at most {_MOST_RECIPE}")
    return recipe


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BaseModelReference(_Frozen):
    """The base model that a card belongs to."""

    id: str
    """Hugging Face id, local path or `embedded`; readable, not an identity."""
    revision: str
    fingerprint: Sha256
    """Hash of the configuration and of weight shapes and samples; see `shared.models.base`."""


class RoutingProfile(_Frozen):
    """What the router needs to find the card."""

    route: Annotated[str, pydantic.Field(pattern=f"^{_ROUTE_PATTERN}$")] = ""
    """How requests come to the card: empty for by their meaning, through the router; else by this
    name alone, such as `specialist_local`, and the router never proposes it."""
    embedder_id: str = ""
    """Whose vectors the centroid is made of; empty where the router is to make them."""
    centroid: Annotated[tuple[float, ...], _FIRST_ERROR] = ()
    """Mean of the example questions' unit vectors, scaled to unit length."""
    spread: Annotated[float, pydantic.Field(ge=0, le=2)] = 0.0
    """Root mean square distance of the examples from the centroid (0 to 2)."""
    examples: _Texts = ()
    """Questions that the card answers."""
    statements: _Texts = ()
    """What it answers: a question may use a word that only the answers have."""
    answered_by: Annotated[tuple[pydantic.NonNegativeInt, ...], _FIRST_ERROR] = ()
    """Of each example the place of its answer among the statements; empty where nobody tells."""

    @pydantic.field_validator("answered_by")
    @classmethod
    def _check_answered_by(
        cls, answered_by: tuple[int, ...], fields: pydantic.ValidationInfo
    ) -> tuple[int, ...]:
        """Whether it tells an answer of each example; checked after both."""
        examples, statements = (fields.data.get(name, ()) for name in ("examples", "statements"))
        if answered_by and len(answered_by) != len(examples):
            raise ValueError(f"has {len(answered_by)} entries for {len(examples)} examples")
        if answered_by and max(answered_by) >= len(statements):
            raise ValueError(f"names statement {max(answered_by)} of {len(statements)}")
        return answered_by

    @pydantic.field_validator("centroid")
    @classmethod
    def _check_centroid(
        cls, centroid: tuple[float, ...], fields: pydantic.ValidationInfo
    ) -> tuple[float, ...]:
        """Whether it can be a mean of the embedder's vectors; checked after `embedder_id`."""
        if not centroid:
            return centroid
        embedder, length = fields.data.get("embedder_id"), math.hypot(*centroid)
        if not embedder:
            raise ValueError("needs embedder_id, which tells whose vectors it is made of")
        if embedder == embedder_id.EMBEDDER_ID and len(centroid) != embedder_id.DIMENSION:
            raise ValueError(
                f"has {len(centroid)} values; vectors of {embedder} have {embedder_id.DIMENSION}"
            )
        if abs(length - 1.0) > _UNIT_TOLERANCE:
            raise ValueError(f"has length {length:.3g}; expected a unit vector")
        return centroid


class Lineage(_Frozen):
    """Where a card comes from."""

    task_id: str
    teacher: str
    dataset_digest: Sha256
    recipe: Annotated[dict[str, str | int | float], pydantic.BeforeValidator(_small)]
    seed: int
    code_version: str


class GateRow(_Frozen):
    """One line of the table that decided whether the card may be published."""

    name: str
    right: int
    asked: int
    required: float
    """Share that must be right (0 to 1)."""
    passed: bool


class Manifest(_Frozen):
    """Everything about a card but its weights."""

    format_version: int = FORMAT_VERSION
    name: Name
    version: Annotated[str, pydantic.Field(pattern=f"^{_VERSION_PATTERN}$")]
    base_model: BaseModelReference
    target_modules: _Texts
    """Last dotted part of the adapted modules, such as `q_proj`."""
    domain: str
    description: str
    routing: RoutingProfile | None = None
    lineage: Lineage | None = None
    gate: Annotated[tuple[GateRow, ...], _FIRST_ERROR] = ()
    licence: str = ""
    created_at: str
    """ISO 8601, UTC."""

    @property
    def route(self) -> str:
        """See `RoutingProfile.route`."""
        return "" if self.routing is None else self.routing.route

    def to_json(self) -> str:
        """Compact JSON with stable order of keys: equal manifests give equal bytes."""
        return self.model_dump_json()


def check_size(text: bytes) -> None:
    """Refuses JSON that would cost too much memory to read.

    Raises:
        errors.CardFormatError: names the limit that is passed.
    """
    if len(text) > MOST_BYTES:
        raise errors.CardFormatError(f"manifest: has {len(text)} bytes; at most {MOST_BYTES}")
    # More than there are, since those within texts count as well.
    values = sum(text.count(sign) for sign in (b",", b"[", b"{"))
    if values > MOST_VALUES:
        raise errors.CardFormatError(
            f"manifest: has {values} commas and brackets; at most {MOST_VALUES}"
        )


def parse(text: str | bytes) -> Manifest:
    """Reads a manifest.

    Raises:
        errors.CardFormatError: names the field that is wrong, or the limit that is passed.
    """
    check_size(text.encode() if isinstance(text, str) else text)
    try:
        # In two steps: of JSON that it reads itself, pydantic copies what was read into each error.
        values = pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise errors.CardFormatError(f"manifest: not readable as JSON: {error}") from error
    try:
        manifest = Manifest.model_validate(values)
    except pydantic.ValidationError as error:
        if error.error_count() > _MOST_ERRORS:
            raise errors.CardFormatError(
                f"manifest: {error.error_count()} of its fields are wrong or unknown"
            ) from None
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part)[:_LONGEST_NAMED] for part in first["loc"]) or "(whole)"
        raise errors.CardFormatError(f"manifest field {field}: {first['msg']}") from error
    if manifest.format_version != FORMAT_VERSION:
        raise errors.CardFormatError(
            f"manifest field format_version: {manifest.format_version} is not supported; "
            f"this version of skillmesh reads {FORMAT_VERSION}"
        )
    return manifest


def card_identity(name: str, digest: str) -> str:
    """The identity of a card everywhere: `name@digest`."""
    return f"{name}@{digest}"


def split_reference(reference: str) -> tuple[str, str]:
    """Splits `name@digest`, `name@alias` or `name` (alias `latest`).

    Raises:
        errors.InvalidInputError: the reference has another form.
    """
    name, _, selector = reference.partition("@")
    if not re.fullmatch(NAME_PATTERN, name) or ("@" in reference and not selector):
        raise errors.InvalidInputError(
            f"card reference {reference!r} is not of the form name, name@digest or name@alias"
        )
    return name, selector or "latest"


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 in lower-case hex."""
    return re.fullmatch(_SHA256_PATTERN, text) is not None


def slug(text: str) -> str:
    """A card name made from a title: lower case, digits, dashes, at most 63 characters."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")
    return cleaned or "skill"
