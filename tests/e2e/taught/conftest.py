"""One cluster for all tests of this folder: starting it takes as long as one of them.

`make test-faults` starts another for each service that it kills.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.taught import lessons, schools


@pytest.fixture(scope="package")
def school(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[schools.School]:
    folder = tmp_path_factory.mktemp(f"school-{request.param}")
    facts = [*(lesson.facts for lesson in lessons.LESSONS), lessons.SEEN]
    with schools.opened(folder, facts) as running:
        yield running
