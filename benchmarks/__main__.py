"""`make bench area=AREA`: measures one area, or all of them."""

from __future__ import annotations

import os
import sys

from benchmarks import (
    codebase,
    ending,
    engine,
    gateway,
    hierarchy,
    loop,
    results,
    router,
    store,
    training,
)
from shared import settings as config
from shared import telemetry

AREAS = {
    "loop": loop.measure,
    "engine": engine.measure,
    "store": store.measure,
    "router": router.measure,
    "training": training.measure,
    "codebase": codebase.measure,
    "hierarchy": hierarchy.measure,
    "gateway": gateway.measure,
}
_VARIABLE = "SKILLMESH_ARG_area"


def main() -> None:
    """Reads the area from the environment, where make puts it."""
    wanted = os.environ.get(_VARIABLE, "")
    if wanted and wanted not in AREAS:
        sys.exit(f"bench: there is no area {wanted!r}; there are: {', '.join(AREAS)}")
    ending.at_sigterm()
    telemetry.configure(config.Telemetry(log_level="warning"), "bench")
    for area in [wanted] if wanted else list(AREAS):
        results.report(area, AREAS[area]())


if __name__ == "__main__":
    main()
