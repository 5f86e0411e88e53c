"""What people and programs are told of a code base that was learned."""

from __future__ import annotations

import io
import json

import rich.console

from services.gateway import domain
from services.gateway.command_line import code_report
from shared import terminal
from shared.cards import manifest as manifests
from shared.flight import samples
from tests.unit.distiller import fakes

CARD = "specialist-tidal@" + "a" * 64
SHORT = fakes.sample(instruction="Write [bold]half[/bold].", path="halves.py")


def outcome() -> code_report.Outcome:
    task = domain.Task(
        id="t1",
        trigger_query="tidal",
        other_queries=(),
        domain="code",
        priority=3,
        status=domain.COMPLETED,
        card=CARD,
        error="",
        progress=1.0,
        detail="",
        stage_times=(domain.StageTime("distil", 2.6), domain.StageTime("train", 92.7)),
        created_at_ms=0,
        updated_at_ms=0,
        retry_of="",
        repository="tidal",
    )
    code_base = domain.CodeBase(
        repository="tidal",
        commit_id="c" * 40,
        licence="MIT",
        teacher="repository",
        files=13,
        lines=1578,
        chunks=70,
        samples={"complete": 59, "write": 58},
        held_out=45,
        removed={"GitHub Token": 1},
        skipped={"binary": 2},
        rejected={},
        samples_digest="b" * 64,
        folder="/state/distiller/code_bases/x",
    )
    gate = (
        manifests.GateRow(name="perplexity", right=967, asked=1000, required=0.2, passed=True),
        manifests.GateRow(name="completions", right=3, asked=25, required=0.04, passed=True),
    )
    manifest = manifests.Manifest(
        name="specialist-tidal",
        version="1.0.0",
        base_model=manifests.BaseModelReference(id="b", revision="r", fingerprint="0" * 64),
        target_modules=(),
        domain="code",
        description="",
        routing=manifests.RoutingProfile(route=manifests.SPECIALIST_LOCAL),
        gate=gate,
        created_at="2026-01-01T00:00:00+00:00",
    )
    return code_report.Outcome(task, code_base, manifest, SHORT)


def test_summary_names_all_that_was_read_made_and_measured() -> None:
    told = io.StringIO()
    code_report.show(outcome(), rich.console.Console(file=told, width=120))
    text = told.getvalue()
    for part in (
        "learned tidal at commit cccccccccccc",
        "13 files, 1,578 lines, 70 chunks",
        "117 (59 complete, 58 write), 45 of them kept for the proof; by repository",
        "secrets   1 GitHub Token taken out",
        "left out  2 binary",
        "rejected  none",
        "distil 2.6 s, train 92.7 s",
        "97% ",
        "12% (3 of 25)",
        "Write [bold]half[/bold].",
        "return x / 2",
        "specialist_local or specialist-tidal",
    ):
        assert part in text, part


def test_json_holds_the_same_for_programs(capsys) -> None:
    terminal.print_json(code_report.as_json(outcome()))
    found = json.loads(capsys.readouterr().out)
    assert found["code_base"]["samples"] == {"complete": 59, "write": 58}
    assert found["card"]["route"] == "specialist_local"
    assert [row["right"] for row in found["card"]["gate"]] == [967, 3]
    assert found["sample"]["kind"] == "write" and found["task"]["card"] == CARD


def test_sample_to_read_is_short_and_has_an_instruction() -> None:
    long = fakes.sample(output="x" * 1_000)
    complete = fakes.sample(samples.Kind.COMPLETE, output="y")
    assert code_report.to_read([complete, long, SHORT]) is SHORT
    assert code_report.to_read([complete]) is complete
