"""docs/command-line.md, which is made of the commands' help."""

from __future__ import annotations

import pytest

from services.gateway.command_line import reference


def test_reference_is_what_the_help_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert reference.PATH.read_text(encoding="utf-8") == reference.markdown(), (
        "write it anew: .venv/bin/python -m services.gateway.command_line.reference"
    )


def test_reference_has_every_command_and_what_belongs_to_it() -> None:
    text = reference.markdown()
    for heading in ("## ask\n", "## cards\n", "## cards show\n", "## tasks retry\n", "## doctor\n"):
        assert heading in text
    assert "Usage: skillmesh cards show [OPTIONS]" in text
