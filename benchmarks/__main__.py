"""`make bench area=AREA`: measures one area, or all of them."""

from __future__ import annotations

import os
import sys

from benchmarks import engine, loop, results

AREAS = {"loop": loop.measure, "engine": engine.measure}
_VARIABLE = "SKILLMESH_ARG_area"


def main() -> None:
    """Reads the area from the environment, where make puts it."""
    wanted = os.environ.get(_VARIABLE, "")
    if wanted and wanted not in AREAS:
        sys.exit(f"bench: there is no area {wanted!r}; there are: {', '.join(AREAS)}")
    for area in [wanted] if wanted else list(AREAS):
        results.report(area, AREAS[area]())


if __name__ == "__main__":
    main()
