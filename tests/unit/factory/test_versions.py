from __future__ import annotations

import pytest

from services.factory import versions


@pytest.mark.parametrize(
    ("published", "following"),
    [
        ([], "1.0.0"),
        (["1.0.0"], "1.1.0"),
        (["1.9.0", "1.10.3", "1.2.0"], "1.11.0"),
        (["2.0.1", "1.7.0"], "2.1.0"),
        (["latest", "v3", ""], "1.0.0"),
    ],
)
def test_version_is_the_next_minor_one_when_others_are_published(
    published: list[str], following: str
) -> None:
    assert versions.next_minor(published) == following
