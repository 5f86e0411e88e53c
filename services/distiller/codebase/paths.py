"""What the name of a file says of its role."""

from __future__ import annotations

import re

_TEST = re.compile(
    r"(?:^|/)(?:tests?|testing|__tests__|specs?|testdata)/"
    r"|(?:^|/)(?:test_[^/]*|conftest|[^/]*_test|[^/]*[.-](?:test|spec)|[^/]*Tests?)\.\w+$"
)


def is_test(path: str) -> bool:
    """Whether a file within a repository holds tests, or what only tests use."""
    return _TEST.search(path) is not None
