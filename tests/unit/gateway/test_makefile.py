"""How the Makefile hands arguments over: whatever they hold, no shell and no make reads them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[3]
NASTY = "a \"b\" 'c' $HOME $(shell touch pwned) `touch pwned` ; touch pwned # %d \\ é"


def make(tmp_path: pathlib.Path, *arguments: str) -> dict[str, str]:
    fake = tmp_path / "bin" / "skillmesh"
    fake.parent.mkdir()
    fake.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps({'argv': sys.argv[1:], **os.environ}))\n"
    )
    fake.chmod(0o755)
    ready = tmp_path / "ready"
    ready.touch()
    printed = subprocess.run(
        [
            *("make", "-s", "-f", str(ROOT / "Makefile"), f"VENV={tmp_path}", f"READY={ready}"),
            *arguments,
        ],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": "/home/somebody"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(printed.stdout)
    return found


def test_passes_text_untouched_when_it_looks_like_commands(tmp_path: pathlib.Path) -> None:
    for name in ("requirements.lock", "scripts/setup.sh", "scripts/launcher.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = make(tmp_path, "ask", f"q={NASTY}", "json=1")
    assert found["SKILLMESH_ARG_q"] == NASTY
    assert found["SKILLMESH_ARG_json"] == "1"
    assert found["argv"] == ["ask"]  # type: ignore[comparison-overlap]
    assert "q" not in found
    assert not (tmp_path / "pwned").exists()


def test_correction_is_handed_over_untouched(tmp_path: pathlib.Path) -> None:
    for name in ("requirements.lock", "scripts/setup.sh", "scripts/launcher.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = make(tmp_path, "correct", "q=Who?", f"answer={NASTY}", "wait=1")
    assert found["argv"] == ["correct"]  # type: ignore[comparison-overlap]
    handed = {name: found[f"SKILLMESH_ARG_{name}"] for name in ("q", "answer", "wait")}
    assert handed == {"q": "Who?", "answer": NASTY, "wait": "1"}
    assert not (tmp_path / "pwned").exists()


def test_lists_every_target_when_asked_for_help() -> None:
    printed = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    wanted = (
        "setup certs demo test test-faults up console down status doctor nodes logs ask explain "
        "teach teach-repo correct tell agents cards tasks nightly base-model protos check bench "
        "docs help"
    )
    assert {line.split()[1] for line in printed.splitlines()} == set(wanted.split())
