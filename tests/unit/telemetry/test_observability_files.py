"""Dashboard, alerts and the page about metrics name what there is, and all that there is."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from scripts import metrics_table
from shared import settings as config

ROOT = pathlib.Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "observability"
_NAME = re.compile(r"\b(?:skillmesh|process)_[a-z0-9_]+\b")
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")


def expressions(file: str) -> list[str]:
    if file.endswith(".json"):
        dashboard = json.loads((FOLDER / file).read_text())
        return [one["expr"] for panel in dashboard["panels"] for one in panel.get("targets", ())]
    content = yaml.safe_load((FOLDER / file).read_text())
    return [rule["expr"] for group in content["groups"] for rule in group["rules"]]


def names(file: str) -> set[str]:
    found = {name for one in expressions(file) for name in _NAME.findall(one)}
    # Labels that look like metrics, and what the rules record themselves.
    return {name for name in found if not name.startswith("skillmesh_:")}


@pytest.mark.parametrize("file", ["grafana.json", "alerts.yml"])
def test_every_metric_that_is_named_is_told_by_some_process(file: str) -> None:
    assert len(names(file)) > 15
    assert names(file) <= metrics_table.exposed()


def test_dashboard_shows_every_family_but_those_that_say_who_speaks() -> None:
    shown = names("grafana.json") | names("alerts.yml")
    families = {one for told in metrics_table.BY_PROCESS.values() for one in told}
    left_out = {one.name for one in families if not shown & set(one.exposed)}
    assert left_out == {
        "skillmesh_service",
        "skillmesh_hierarchy_version",
        "skillmesh_hierarchy_health_measure",
        "skillmesh_hierarchy_agent_examples",
        "skillmesh_hierarchy_layer_entropy",
        "skillmesh_hierarchy_layer_optimum",
        "skillmesh_hierarchy_layer_threshold",
        "skillmesh_hierarchy_layer_screened_share",
        "skillmesh_hierarchy_queue_bandwidth_left",
    }


def test_dashboard_has_its_rows_and_nothing_lies_on_anything_else() -> None:
    dashboard = json.loads((FOLDER / "grafana.json").read_text())
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ["Users", "Learning", "Nodes", "Store", "Teachers", "Hierarchy"]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24 and not own & taken, panel["title"]
        taken |= own
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_label_of_a_selector_is_one_that_the_family_has() -> None:
    labels = {
        name: set(one.labels)
        for told in metrics_table.BY_PROCESS.values()
        for one in told
        for name in one.exposed
    }
    selectors = re.compile(r"\b(skillmesh_[a-z0-9_]+)\{([^}]*)\}")
    found = [
        (name, label)
        for file in ("grafana.json", "alerts.yml")
        for one in expressions(file)
        for name, inside in selectors.findall(one)
        for label in re.findall(r"([a-z_]+)(?:=~|!=|=)", inside)
    ]
    assert len(found) > 10
    assert [(name, label) for name, label in found if label not in labels[name]] == []


def test_page_has_the_table_of_now() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    assert page == metrics_table.written_anew(page), (
        "run: python scripts/metrics_table.py docs/observability.md"
    )


def test_names_follow_the_field() -> None:
    """https://prometheus.io/docs/practices/naming/, as far as it can be told from a name."""
    seen: dict[str, Any] = {}
    for told in metrics_table.BY_PROCESS.values():
        for one in told:
            assert seen.setdefault(one.name, one) == one, "two meanings of one name"
            assert re.fullmatch(r"skillmesh_[a-z][a-z0-9_]*", one.name)
            assert not one.name.endswith(("_total", "_count", "_sum", "_bucket", "_ms", "_mib"))
            assert one.text and one.text[-1] != "."
            if one.kind == "histogram":
                assert one.name.endswith(("_seconds", "_confidence"))
                assert list(one.bounds) == sorted(set(one.bounds)) and len(one.bounds) < 20


def test_scrape_configuration_has_the_ports_of_the_settings() -> None:
    content = (FOLDER / "prometheus.yml").read_text()
    settings = config.Settings()
    told = dict(
        (process, target)
        for target, process in re.findall(
            r'targets: \["([^"]+)"\], labels: \{process: (\w+)\}', content
        )
    )
    assert told == settings.telemetry.metrics.addresses() | {"gateway": settings.gateway.address}


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian's package prometheus has it)")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "--lint-fatal", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
)
def test_promtool_accepts_the_files(arguments: tuple[str, ...]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
