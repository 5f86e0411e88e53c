"""What the processes of a cluster are given; nothing is started here."""

from __future__ import annotations

import pathlib

import pytest

from services.gateway.cluster import cluster
from shared import errors
from shared import settings as config


def test_is_like_no_other_when_private(tmp_path: pathlib.Path) -> None:
    one = cluster.Cluster.private(tmp_path / "one", config.Settings())
    two = cluster.Cluster.private(tmp_path / "two", config.Settings())
    assert one.settings.cluster.name != two.settings.cluster.name
    assert not set(one.addresses.values()) & set(two.addresses.values())
    assert one.settings.discovery.stores == (one.addresses["card_store"],)
    assert not one.settings.discovery.zeroconf


def test_names_the_key_when_the_knowledge_folder_is_missing(tmp_path: pathlib.Path) -> None:
    settings = config.Settings(distiller=config.Distiller(knowledge_dir=tmp_path / "none"))
    with pytest.raises(errors.ConfigError, match=r"distiller\.knowledge_dir.*none"):
        cluster.Cluster.private(tmp_path / "state", settings).start()


def test_names_the_key_when_the_state_folder_is_a_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "state").write_text("no folder")
    settings = config.Settings(distiller=config.Distiller(knowledge_dir=tmp_path))
    with pytest.raises(errors.ConfigError, match=r"cluster\.state_dir.*state"):
        cluster.Cluster.private(tmp_path / "state", settings).start()


def test_reads_back_the_same_settings_when_written_for_the_processes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "one.md").write_text("One.")
    settings = config.Settings(distiller=config.Distiller(knowledge_dir=documents))
    local = cluster.Cluster.private(tmp_path / "state", settings)
    local._prepare()
    monkeypatch.setenv("SKILLMESH__ROUTER__ADDRESS", "127.0.0.1:9")
    environment = local._child_environment()
    assert not any(name.startswith("SKILLMESH__") for name in environment)
    monkeypatch.delenv("SKILLMESH__ROUTER__ADDRESS")
    written = config.load(pathlib.Path(environment[config.CONFIG_VARIABLE]))
    assert written == local.settings
    assert (written.distiller.knowledge_dir / "one.md").read_text() == "One."


def test_keeps_what_was_taught_when_started_again(tmp_path: pathlib.Path) -> None:
    taught = tmp_path / "state" / "knowledge" / "taught.md"
    taught.parent.mkdir(parents=True)
    taught.write_text("Taught.")
    settings = config.Settings(distiller=config.Distiller(knowledge_dir=tmp_path))
    cluster.Cluster.private(tmp_path / "state", settings)._prepare()
    assert [path.name for path in taught.parent.iterdir()] == ["taught.md"]


def test_knows_no_process_when_nothing_runs(tmp_path: pathlib.Path) -> None:
    local = cluster.Cluster.private(tmp_path, config.Settings())
    with pytest.raises(errors.UnavailableError, match="make up"):
        local.pid("router")
    assert not local.stop()
