from __future__ import annotations

import pytest

from shared.models import base as bases
from tests import tiny_model


@pytest.fixture
def base() -> bases.BaseModel:
    return tiny_model.tiny_base(0)
