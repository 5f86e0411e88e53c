"""What every section of config.yaml is made of; see `shared.settings`."""

from __future__ import annotations

from typing import Annotated

import pydantic

Address = Annotated[str, pydantic.Field(pattern=r"^[^:\s]+:\d{1,5}$")]
"""`host:port`."""
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Positive = Annotated[float, pydantic.Field(gt=0)]
Count = Annotated[int, pydantic.Field(ge=1)]


class Section(pydantic.BaseModel):
    """Frozen; a key that it does not know is an error that names it."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
