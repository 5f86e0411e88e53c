"""`python -m benchmarks.gateway [PART …] [--minutes N]`: parts of the area, printed alone."""

from __future__ import annotations

import argparse

from benchmarks import results
from benchmarks.gateway import measure
from shared import settings as config
from shared import telemetry


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(measure.PARTS))
    parser.add_argument("--minutes", type=float, default=measure.MINUTES, help="of soak and kills")
    parser.add_argument("--rounds", type=int, default=measure.ROUNDS, help="of throughput")
    parser.add_argument("--seed", type=int, default=0, help="of who is killed")
    told = parser.parse_args()
    unknown = [part for part in told.parts if part not in measure.PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; there are: {', '.join(measure.PARTS)}")
    telemetry.configure(config.Telemetry(log_level="warning"), "bench")
    found = measure.parts(told.parts or list(measure.PARTS), told.minutes, told.rounds, told.seed)
    results.print_rows("gateway", found)


if __name__ == "__main__":
    main()
