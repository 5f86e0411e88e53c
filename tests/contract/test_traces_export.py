"""Spans arrive at a collector: OTLP over gRPC, as OpenTelemetry's own protocol has it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from services.gateway.cluster import cluster

SCRIPT = """
from shared import settings as config
from shared.telemetry import exporting, tracing

with exporting.exported(config.load(), "router"):
    with tracing.span("question"), tracing.span("route", card="a@b"):
        print(tracing.traceparent())
"""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.came = threading.Event()

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.requests.append(request)
        self.came.set()
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    kept, server = Collector(), grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield kept, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def run(tmp_path: pathlib.Path, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {"SKILLMESH__CLUSTER__STATE_DIR": str(tmp_path), "PYTHONPATH": str(cluster.ROOT)}
    told = {f"SKILLMESH__TELEMETRY__TRACES__{name}": value for name, value in variables.items()}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env=os.environ | own | told,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_collector_gets_the_spans_before_the_process_ends(
    collector: tuple[Collector, str], tmp_path: pathlib.Path
) -> None:
    kept, endpoint = collector
    done = run(tmp_path, EXPORTER="otlp", ENDPOINT=endpoint)
    assert kept.came.is_set()
    sent = [one for request in kept.requests for one in request.resource_spans]
    told = {one.key: one.value.string_value for one in sent[0].resource.attributes}
    assert told["service.name"] == "router" and told["service.namespace"] == "local"
    spans = {span.name: span for one in sent for scope in one.scope_spans for span in scope.spans}
    assert set(spans) == {"question", "route"}
    assert spans["route"].parent_span_id == spans["question"].span_id
    assert spans["route"].trace_id.hex() == done.stdout.split("-")[1]


def test_process_ends_well_when_there_is_no_collector(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, EXPORTER="otlp", ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 0 and done.stdout


def test_nothing_is_written_when_traces_are_off(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, EXPORTER="none")
    assert done.stdout.strip() == "" and not (tmp_path / "traces").exists()
    run(tmp_path, EXPORTER="file")
    assert len((tmp_path / "traces" / "router.jsonl").read_text().splitlines()) == 2
