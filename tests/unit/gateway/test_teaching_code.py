"""Which repositories may be learned: those that are linked, under names that nobody else has."""

from __future__ import annotations

import pathlib

import pytest

from services.gateway.command_line import teaching_code
from shared import repositories, terminal


def repository(folder: pathlib.Path, name: str) -> pathlib.Path:
    path = folder / name
    (path / ".git").mkdir(parents=True)
    return path


def test_repository_is_linked_under_its_folder_s_name(tmp_path: pathlib.Path) -> None:
    path, folder = repository(tmp_path, "My_Tidal.app"), tmp_path / "state" / "repositories"
    assert teaching_code.link(path, folder) == "my-tidal-app"
    assert (folder / "my-tidal-app").resolve() == path
    assert teaching_code.link(path, folder) == "my-tidal-app"
    assert teaching_code.link(folder / "my-tidal-app", folder) == "my-tidal-app"


def test_repository_in_the_folder_itself_needs_no_link(tmp_path: pathlib.Path) -> None:
    path = repository(tmp_path, "tidal")
    assert teaching_code.link(path, tmp_path) == "tidal"
    assert not path.is_symlink()


def test_name_is_refused_when_another_repository_has_it(tmp_path: pathlib.Path) -> None:
    one, two = repository(tmp_path / "a", "tidal"), repository(tmp_path / "b", "tidal")
    folder = tmp_path / "repositories"
    teaching_code.link(one, folder)
    with pytest.raises(terminal.UsageError, match=f"belongs to {one}; rename .* or remove"):
        teaching_code.link(two, folder)
    assert (folder / "tidal").resolve() == one


@pytest.mark.parametrize("name", ["nothing", "plain"])
def test_folder_is_refused_when_it_is_no_repository(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(terminal.UsageError, match="no git repository"):
        teaching_code.link(tmp_path / name, tmp_path / "repositories")
    assert not (tmp_path / "repositories").exists()


@pytest.mark.parametrize("name", ["~nobody-has-this-name/tidal", "loop", "x" * 300])
def test_path_is_refused_when_it_leads_nowhere(
    tmp_path: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("loop").symlink_to("loop")
    with pytest.raises(terminal.UsageError, match=f"^{name[:20]}"):
        teaching_code.link(pathlib.Path(name), tmp_path / "repositories")


def test_path_may_begin_with_the_home_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    repository(tmp_path, "tidal")
    assert teaching_code.link(pathlib.Path("~/tidal/"), tmp_path / "repositories") == "tidal"


@pytest.mark.parametrize("name", ["A B", "ö", "x" * 300, "..a..", "-"])
def test_name_of_any_folder_passes_as_a_repository_and_names_a_card(name: str) -> None:
    found = repositories.name_of(pathlib.PurePath("/somewhere", name))
    repositories.check_name(found)
    assert len(repositories.card_of(found)) <= 63
