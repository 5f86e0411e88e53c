"""Manifests that are wrong are refused by name, however many things are wrong with them."""

from __future__ import annotations

import pytest

from shared import errors
from shared.cards import manifest as manifests
from tests import fakes

GOOD = fakes.tiny_card().manifest.to_json()
LINEAGE = (
    '{"task_id":"t","teacher":"t","dataset_digest":"' + "0" * 64 + '","seed":1,'
    '"code_version":"1","recipe":'
)


def _with(field: str, value: str) -> str:
    return f'{GOOD[:-1]},"{field}":{value}}}'


def _many(value: str, count: int = 20_000) -> str:
    return ",".join([value] * count)


def _entries(value: str, count: int) -> str:
    return ",".join(f'"{number}":{value}' for number in range(count))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff{}", b'{"name":NaN}', b"[" * 10_000, b"[]"])
def test_manifest_is_refused_when_it_is_no_json_object(text):
    with pytest.raises(errors.CardFormatError, match="manifest"):
        manifests.parse(text)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("gate", f"[{_many('{}')}]", r"gate\.0\.name"),
        ("target_modules", f"[{_many('1')}]", r"target_modules\.0"),
        ("routing", f'{{"examples":[{_many("1")}]}}', r"routing\.examples\.0"),
        ("routing", f'{{"centroid":[{_many("[]")}]}}', r"routing\.centroid\.0"),
        ("lineage", f"{LINEAGE}{{{_entries('[]', 2_000)}}}}}", r"lineage\.recipe: .* at most 1000"),
        ("x" * 1000, "1", "field x{100}:"),
    ],
)
def test_first_wrong_field_is_named_when_there_are_many(field, value, named):
    with pytest.raises(errors.CardFormatError, match=named):
        manifests.parse(_with(field, value))


def test_number_of_errors_is_told_when_it_is_high():
    with pytest.raises(errors.CardFormatError, match="2000 of its fields are wrong or unknown"):
        manifests.parse(f"{GOOD[:-1]},{_entries('1', 2_000)}}}")


def test_manifest_is_read_when_it_has_a_recipe_and_thousands_of_questions():
    questions = ",".join(f'"What is number {number}?"' for number in range(30_000))
    text = f'{GOOD[:-1]},"routing":{{"examples":[{questions}]}},"lineage":{LINEAGE}{{"rank":8}}}}}}'
    found = manifests.parse(text)
    assert found.routing is not None and len(found.routing.examples) == 30_000
    assert found.lineage is not None and found.lineage.recipe == {"rank": 8}
    assert manifests.parse(found.to_json()) == found
