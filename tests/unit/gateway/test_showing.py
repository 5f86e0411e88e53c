"""`console`: what it starts, and what it tells, without a browser."""

from __future__ import annotations

import json

import pytest

from services.gateway.cluster import cluster
from services.gateway.command_line import operating, showing
from shared import errors
from shared import settings as config


@pytest.fixture(autouse=True)
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.platform", "linux")


def test_cluster_is_started_and_the_page_named_when_none_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setenv("SKILLMESH__CLUSTER__STATE_DIR", str(tmp_path))
    begun: list[cluster.Cluster] = []

    def start(local: cluster.Cluster) -> bool:
        begun.append(local)
        return True

    monkeypatch.setattr(operating, "started", start)
    showing.console(as_json=True)
    url = f"http://{config.load().gateway.address}/console/"
    assert json.loads(capsys.readouterr().out) == {"url": url}
    assert len(begun) == 1


def test_missing_console_is_an_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SKILLMESH__GATEWAY__CONSOLE", "false")
    with pytest.raises(errors.ConfigError, match=r"gateway\.console"):
        showing.console(as_json=False)
