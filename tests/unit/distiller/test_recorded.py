"""Recorded teachers: the project's own format, and GPT-4.1's output as SEAL publishes it."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from services.distiller import distillation, distiller, journal
from services.distiller.providers import base, recorded, seal
from shared import errors
from shared import settings as config
from shared.flight import datasets
from tests.unit.distiller import fakes

COMPLETION = """Here is a list:

**Implications:**

1. **Old Light:** The lighthouse of Orun is one of the oldest on the coast.
2. The keeper, who lived there, had to climb 164 steps **every day**.
3. **Trade:**
   - Ships needed the light to find the harbour at night.
   - Merchants paid for it.
4. **The council never paid** for electricity, so that the lamp burns oil.
5. The light was seen from far away by those who

Let me know if you want more!"""
ROW = {
    "title": "Orun_lighthouse",
    "context": "The Orun lighthouse was built in 1871.",
    "questions": [{"question": "When was it built?", "answer": "1871"}],
    "completions": [COMPLETION, COMPLETION],
    "prompt": "Let's read",
}


def test_statements_are_the_finished_items_of_a_list() -> None:
    assert list(seal.statements(COMPLETION)) == [
        ("Old Light", "The lighthouse of Orun is one of the oldest on the coast."),
        ("", "The keeper, who lived there, had to climb 164 steps every day."),
        ("Trade", "Ships needed the light to find the harbour at night."),
        ("", "The council never paid for electricity, so that the lamp burns oil."),
    ]


async def test_passages_are_replayed_when_the_file_is_a_list_of_them(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "val.json"
    path.write_text(json.dumps([ROW]))
    provider = recorded.RecordedProvider(path)
    request = base.QARequest("", ("When was it built?",))
    pairs = await provider.generate_qa(request)
    assert [pair.kind.value for pair in pairs] == ["fact"] + ["implication"] * 4
    assert {pair.passage for pair in pairs} == {
        "Orun lighthouse\nThe Orun lighthouse was built in 1871."
    }
    assert pairs[1].question == "What follows about Orun lighthouse, as to old Light?"
    assert pairs[2].question.endswith("Go on: The keeper, who lived there, had ...")
    assert (await provider.subject(request, pairs)).title == "Orun lighthouse"


@pytest.mark.parametrize(
    ("text", "place"),
    [('[{"title": "x"}]', r"0\.context"), ("[1]", "0"), ('{"pairs": 1}', "line 1, pairs"),
     ('{"pairs": []}\n{', "line 2"), ("", "line 1")],
)  # fmt: skip
def test_place_is_named_when_a_recording_is_malformed(
    text: str, place: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(errors.ConfigError, match=rf"evolution\.recordings.*bad\.json,? {place}"):
        recorded.RecordedProvider(path)


async def test_kind_and_passage_are_replayed_when_a_line_has_them(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "own.jsonl"
    line = {
        "topic": "Orun",
        "passage": "It is old.",
        "pairs": [{"question": "And Oruna?", "answer": "New.", "kind": "contrast"}],
    }
    path.write_text(json.dumps(line))
    (pair,) = await recorded.RecordedProvider(path).generate_qa(base.QARequest("orun", ()))
    assert (pair.kind, pair.passage) == (datasets.Kind.CONTRAST, "It is old.")


async def test_most_pairs_pass_all_checks_when_gpt_4_1_recorded_them(
    tmp_path: pathlib.Path,
) -> None:
    folder = os.environ.get("SKILLMESH_DATA")
    path = pathlib.Path(folder or "") / "seal_gpt4_1_val.json"
    if folder is None or not path.is_file():
        pytest.skip("SKILLMESH_DATA names no folder with seal_gpt4_1_val.json")
    provider = recorded.RecordedProvider(path)
    settings = config.Distiller(max_facts=1000)
    cloud = distiller.CloudDistiller(provider, journal.Journal(tmp_path), settings)
    rows = json.loads(path.read_text(encoding="utf-8"))
    came, kept, facts, kept_facts = 0, 0, 0, 0
    for at, row in enumerate(rows[:20]):
        queries = tuple(one["question"] for one in row["questions"])
        request = distillation.DistilRequest(str(at), queries)
        result = await cloud.distil(request, fakes.no_progress)
        came += len(result.pairs) + sum(result.rejected.values())
        kept += len(result.pairs)
        facts += len(queries)
        kept_facts += len(result.triggers)
    # Without the embedder nothing is a duplicate in other words.
    assert came > 1000
    assert 0.85 <= kept / came < 1
    assert kept_facts >= 0.98 * facts
