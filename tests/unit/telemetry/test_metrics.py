"""What is told to Prometheus, and where."""

from __future__ import annotations

import asyncio
import pathlib
import threading
import urllib.request

import prometheus_client
import pytest
from prometheus_client import parser

from shared import errors
from shared import settings as config
from shared.telemetry import metrics

COUNT = metrics.counter("skillmesh_things", "Things", "kind")
LEVEL = metrics.gauge("skillmesh_level_bytes", "Level")


def chosen(folder: pathlib.Path, address: str = "127.0.0.1:0") -> config.Settings:
    section = config.Metrics(enabled=True, router=address)
    return config.Settings(
        cluster=config.Cluster(state_dir=folder), telemetry=config.Telemetry(metrics=section)
    )


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def test_figures_are_those_of_the_moment_when_they_are_scraped(tmp_path: pathlib.Path) -> None:
    level = [1.0]
    reader = metrics.Reader({LEVEL: lambda: level[0], COUNT: lambda: {("a",): 2, ("b",): 3}})
    with metrics.serving(chosen(tmp_path), "router", reader) as port:
        assert "skillmesh_level_bytes 1.0" in scraped(port)
        level[0] = 4.0
        text = scraped(port)
    assert "skillmesh_level_bytes 4.0" in text
    assert 'skillmesh_things_total{kind="b"} 3.0' in text
    assert 'skillmesh_service{cluster="local",role="router"} 1.0' in text
    for name in metrics.PROCESS:
        assert f"\n{name} " in text
    families = list(parser.text_string_to_metric_families(text))
    assert all(family.documentation for family in families)


def test_the_others_are_told_when_one_figure_cannot_be_read(tmp_path: pathlib.Path) -> None:
    def broken() -> float:
        raise errors.UnavailableError("the database is away")

    reader = metrics.Reader({LEVEL: broken, COUNT: lambda: {("a",): 2}})
    text = prometheus_client.generate_latest(metrics.collected(chosen(tmp_path), "router", reader))
    assert b"skillmesh_level_bytes" not in text
    assert b'skillmesh_things_total{kind="a"} 2.0' in text


def test_nothing_is_served_when_metrics_are_off(tmp_path: pathlib.Path) -> None:
    off = config.Settings(cluster=config.Cluster(state_dir=tmp_path))
    with metrics.serving(off, "router") as port:
        assert port == 0


def test_names_the_key_when_the_port_is_taken(tmp_path: pathlib.Path) -> None:
    with (
        metrics.serving(chosen(tmp_path), "router") as port,
        pytest.raises(errors.ConfigError, match=r"telemetry\.metrics\.router"),
        metrics.serving(chosen(tmp_path, f"127.0.0.1:{port}"), "router"),
    ):
        pass
    with metrics.serving(chosen(tmp_path, f"127.0.0.1:{port}"), "router") as again:
        assert again == port


async def test_what_belongs_to_the_event_loop_is_read_in_it(tmp_path: pathlib.Path) -> None:
    threads: list[int] = []

    def read() -> float:
        threads.append(threading.get_ident())
        return 1.0

    reader = metrics.LoopReader({LEVEL: read})
    with metrics.serving(chosen(tmp_path), "router", reader) as port:
        assert "skillmesh_level_bytes 1.0" in await asyncio.to_thread(scraped, port)
    assert threads == [threading.get_ident()]


def test_queries_find_a_family_by_the_names_that_it_tells() -> None:
    distribution = metrics.histogram("skillmesh_x_seconds", "X", metrics.SHORT_S, "kind")
    made = distribution.histogram()
    made.labels("a").observe(0.2)
    told = {sample.name for one in made.collect() for sample in one.samples}
    # `_created` is for OpenMetrics alone.
    assert set(distribution.exposed) == told - {"skillmesh_x_seconds_created"}
    counted = {sample.name for sample in COUNT.of({("a",): 1}).samples}
    assert set(COUNT.exposed) == counted == {"skillmesh_things_total"}
    assert {sample.name for sample in LEVEL.of(1).samples} == set(LEVEL.exposed)
