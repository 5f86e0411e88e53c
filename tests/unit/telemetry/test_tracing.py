"""Traces that go on elsewhere, where their spans go, and log lines that name them."""

from __future__ import annotations

import io
import json
import logging
import pathlib
from collections.abc import Iterator

import pytest
import structlog

from shared import errors, telemetry
from shared import settings as config
from shared.telemetry import exporting, tracing
from tests import traces


def test_a_trace_goes_on_when_it_is_resumed_from_its_text() -> None:
    traces.kept().clear()
    with tracing.span("question"):
        kept = tracing.traceparent()
    with tracing.span("other"):
        with tracing.resumed(kept), tracing.span("learn", task="t"):
            assert tracing.traceparent().split("-")[1] == kept.split("-")[1]
        assert tracing.traceparent().split("-")[1] != kept.split("-")[1]
    spans = traces.by_name()
    parent, question = spans["learn"].parent, spans["question"].context
    assert parent is not None and question is not None
    assert parent.span_id == question.span_id and parent.is_remote
    assert (spans["learn"].attributes or {})["skillmesh.task"] == "t"


@pytest.mark.parametrize("wrong", ["", "nonsense", "00-12-34-01", "\n", "00-" + "f" * 9000])
def test_a_trace_of_its_own_begins_when_the_text_is_wrong(wrong: str) -> None:
    traces.kept()
    with tracing.span("outside"):
        outside = tracing.traceparent()
        with tracing.resumed(wrong), tracing.span("inside"):
            inside = tracing.traceparent()
    assert inside and inside.split("-")[1] != outside.split("-")[1]


def test_there_is_no_trace_outside_of_spans() -> None:
    assert tracing.traceparent() == "" and tracing.ids() == {}


def test_file_holds_a_json_object_for_each_span(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "traces" / "router.jsonl"
    for _ in range(2):  # A service that starts again goes on.
        provider = exporting.provider(exporting.FileExporter(path), "router", "local")
        tracer = provider.get_tracer("test")
        with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
            pass
        provider.shutdown()
    spans = [json.loads(line) for line in path.read_text().splitlines()]
    assert [span["name"] for span in spans] == ["inner", "outer"] * 2
    assert spans[0]["parent_id"] == spans[1]["context"]["span_id"]
    assert spans[0]["resource"]["attributes"]["service.name"] == "router"
    assert path.stat().st_mode & 0o077 == 0


def test_no_span_is_kept_when_the_share_is_zero_but_those_that_others_keep(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "router.jsonl"
    provider = exporting.provider(exporting.FileExporter(path), "router", "local", 0.0)
    tracer = provider.get_tracer("test")
    tracer.start_span("begun here").end()
    kept = tracing.parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    tracer.start_span("begun elsewhere", context=kept).end()
    provider.shutdown()
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == [
        "begun elsewhere"
    ]


def test_names_the_key_when_the_folder_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    section = config.Traces(exporter="file", folder=tmp_path / "file" / "under")
    settings = config.Settings(telemetry=config.Telemetry(traces=section))
    with (
        pytest.raises(errors.ConfigError, match=r"telemetry\.traces\.folder"),
        exporting.exported(settings, "router"),
    ):
        pass


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    telemetry.configure(config.Telemetry(log_format="json"), "router")
    for handler in root.handlers:
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_line_names_its_trace_when_there_is_one(lines: io.StringIO) -> None:
    traces.kept()
    structlog.get_logger("a").info("outside")
    with tracing.span("question"):
        _, trace_id, span_id, _ = tracing.traceparent().split("-")
        structlog.get_logger("a").info("inside")
        logging.getLogger("b").warning("of a library")
    outside, *inside = map(json.loads, lines.getvalue().splitlines())
    assert "trace_id" not in outside and outside["service"] == "router"
    assert len(inside) == 2
    for line in inside:
        assert (line["trace_id"], line["span_id"]) == (trace_id, span_id)
