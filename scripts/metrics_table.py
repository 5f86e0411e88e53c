"""All metrics as a Markdown table, from the code: `python scripts/metrics_table.py [FILE]`.

With a file, the part of it between the two marks is written anew.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence

from services.card_store import metrics as card_store
from services.distiller import metrics as distiller
from services.factory import metrics as factory
from services.gateway.web import metrics as gateway
from services.hierarchy import metrics as hierarchy
from services.inference import metrics as inference
from services.router import metrics as router
from services.trainer import metrics as trainer
from shared.flight import transfers
from shared.telemetry import calls, metrics

BEGIN, END = "<!-- metrics: begin -->", "<!-- metrics: end -->"
_GRPC = (*metrics.FAMILIES, *calls.FAMILIES)
BY_PROCESS: Mapping[str, Sequence[metrics.Family]] = {
    "gateway": (*metrics.FAMILIES, *gateway.FAMILIES),
    "router": (*_GRPC, *router.FAMILIES),
    "inference": (*_GRPC, *inference.FAMILIES),
    "factory": (*_GRPC, *factory.FAMILIES),
    "distiller": (*_GRPC, *distiller.FAMILIES),
    "trainer": (*_GRPC, *trainer.FAMILIES),
    "card_store": (*_GRPC, *card_store.FAMILIES),
    "card_store_data": (*metrics.FAMILIES, *transfers.FAMILIES),
    "hierarchy": (*_GRPC, *transfers.FAMILIES, *hierarchy.FAMILIES),
}
"""What each process tells."""


def table() -> str:
    """The rows, those of all processes first."""
    told: dict[metrics.Family, list[str]] = {}
    for process, families in BY_PROCESS.items():
        for family in families:
            told.setdefault(family, []).append(process)
    lines = ["| metric | kind | labels | process | meaning |", "| --- | --- | --- | --- | --- |"]
    for family, processes in sorted(told.items(), key=lambda one: (-len(one[1]), one[1])):
        whose = "all" if len(processes) == len(BY_PROCESS) else ", ".join(processes)
        name = family.exposed[0] if family.kind == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{name}` | {family.kind} | {labels} | {whose} | {family.text} |")
    return "\n".join(lines) + "\n"


def written_anew(text: str) -> str:
    """A page with the table of now between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def exposed() -> set[str]:
    """Every name that a query may have."""
    own = {name for families in BY_PROCESS.values() for one in families for name in one.exposed}
    return own | set(metrics.PROCESS)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        page = pathlib.Path(sys.argv[1])
        page.write_text(written_anew(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")
