"""`python -m benchmarks.gateway [PART …] [--minutes N]`: parts of the area, printed alone."""

from __future__ import annotations

import argparse

from benchmarks import ending, results
from benchmarks.gateway import parts
from shared import settings as config
from shared import telemetry


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts.PARTS))
    parser.add_argument("--minutes", type=float, default=parts.MINUTES, help="of soak and kills")
    parser.add_argument("--rounds", type=int, default=parts.ROUNDS, help="of throughput")
    parser.add_argument("--seed", type=int, default=0, help="of who is killed")
    told = parser.parse_args()
    unknown = [part for part in told.parts if part not in parts.PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; there are: {', '.join(parts.PARTS)}")
    ending.at_sigterm()
    telemetry.configure(config.Telemetry(log_level="warning"), "bench")
    found = parts.measured(told.parts or list(parts.PARTS), told.minutes, told.rounds, told.seed)
    results.print_rows("gateway", found)


if __name__ == "__main__":
    main()
