"""The command that `make setup` writes: it runs this checkout's code from any folder."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[3]


def launcher(folder: pathlib.Path) -> pathlib.Path:
    """An environment with nothing in it but this Python, and the command."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    subprocess.run(["bash", str(ROOT / "scripts/launcher.sh"), str(folder)], check=True)
    return folder / "bin" / "skillmesh"


def test_runs_from_a_folder_with_modules_of_the_same_name(tmp_path: pathlib.Path) -> None:
    command = launcher(tmp_path / "an $odd 'environment'")
    elsewhere = tmp_path / "elsewhere"
    for name in ("services", "shared"):
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "__init__.py").write_text("raise SystemExit('taken for ours')")
    done = subprocess.run(
        [str(command), "cards", "show", "a b; $(touch pwned)"],
        cwd=elsewhere,
        env={"PATH": os.environ["PATH"], "SKILLMESH__CARD_STORE__ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert done.stderr.startswith("error: the cluster is not running")
    assert not (elsewhere / "pwned").exists()


def test_replaces_a_link_and_not_what_it_leads_to(tmp_path: pathlib.Path) -> None:
    other = tmp_path / "another checkout's"
    other.write_text("untouched")
    command = launcher(tmp_path / "environment")
    command.unlink()
    command.symlink_to(other)
    subprocess.run(
        ["bash", str(ROOT / "scripts/launcher.sh"), str(tmp_path / "environment")], check=True
    )
    assert other.read_text() == "untouched" and not command.is_symlink()
