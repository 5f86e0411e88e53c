"""What is written down is true: pages are fresh, links lead somewhere, examples run."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from services.distiller.providers import base
from shared import errors

ROOT = pathlib.Path(__file__).resolve().parents[2]
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def _script(path: str) -> object:
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_reference_of_settings_is_fresh_when_a_setting_was_changed() -> None:
    script = _script("scripts/configuration_reference.py")
    written = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    assert written == script.page(), "run: python scripts/configuration_reference.py"


def test_every_key_of_the_configuration_file_stands_in_the_reference() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    for section in ("factory.judgement", "evolution.budget", "gateway.limits"):
        top, key = section.split(".")
        assert f"## {top}\n" in page and f"| `{key}` | section |" in page


def test_pages_are_built_without_a_warning_when_links_are_checked(tmp_path: pathlib.Path) -> None:
    _run("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"([^\"]+)\"", page)
    loaded += re.findall(r"<link[^>]+rel=\"stylesheet\"[^>]+href=\"([^\"]+)\"", page)
    assert loaded and not [one for one in loaded if "//" in one], "a page asks another host"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files_when_they_are_relative(name: str) -> None:
    targets = _LINK.findall((ROOT / name).read_text(encoding="utf-8"))
    gone = [one for one in targets if "://" not in one and not (ROOT / one).exists()]
    assert not gone


def test_card_is_read_by_another_implementation_when_an_example_made_it(
    tmp_path: pathlib.Path,
) -> None:
    made = _run("examples/make_card.py", str(tmp_path))
    path = tmp_path / "by-hand.lora.arrow"
    read = _run("examples/read_card.py", str(path))
    assert re.search(r"by-hand@([0-9a-f]{64})", made)[1] in read
    reader, maker = _script("examples/read_card.py"), _script("examples/make_card.py")
    manifest, changes = reader.read(path)
    weights = maker.card().modules["model.layers.0.self_attn.q_proj"]
    a = np.frombuffer(weights.lora_a, np.float16).reshape(64, 4).astype(np.float64)
    b = np.frombuffer(weights.lora_b, np.float16).reshape(4, 32).astype(np.float64)
    assert manifest["version"] == "1.0.0"
    np.testing.assert_allclose(changes["model.layers.0.self_attn.q_proj"], a @ b * 2, atol=1e-2)


async def test_faq_teaches_what_its_file_says_when_it_is_asked(tmp_path: pathlib.Path) -> None:
    script = _script("examples/faq_provider.py")
    path = tmp_path / "ferries.tsv"
    path.write_text("When does the ferry leave?\tAt six.\nWhere?\tPier two.\n", encoding="utf-8")
    teacher = script.FaqProvider(path)
    request = base.QARequest(topic="", queries=("when does the ferry leave",))
    found = await teacher.generate_qa(request)
    assert [pair.answer for pair in found] == ["At six.", "Pier two."]
    places = await teacher.locate(["Where?", "Who?"])
    assert [place.topic_key for place in places] == ["ferries", ""]
    with pytest.raises(errors.NotFoundError, match="ferries"):
        await teacher.generate_qa(base.QARequest(topic="", queries=("Who?",)))
    path.unlink()
    with pytest.raises(errors.TeacherUnavailableError, match="ferries"):
        await teacher.generate_qa(request)


def test_pictures_of_the_tour_are_those_that_the_script_takes() -> None:
    tour = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
    script = (ROOT / "scripts/tour_pictures.py").read_text(encoding="utf-8")
    kept = {path.stem: path.stat().st_size for path in (ROOT / "docs/pictures").iterdir()}
    assert kept and set(kept) == set(re.findall(r"\(pictures/([a-z]+)\.png\)", tour))
    assert all(f'"{name}"' in script for name in kept)
    assert max(kept.values()) <= 250_000
