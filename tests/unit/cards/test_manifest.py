"""Manifests that are wrong are refused by name, however many things are wrong with them."""

from __future__ import annotations

import json

import pytest

from shared import errors
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.models import embedder_id
from tests import fakes

EMBEDDER = embedder_id.EMBEDDER_ID
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


def _unit(dimension: int) -> list[float]:
    return [1.0, *[0.0] * (dimension - 1)]


@pytest.mark.parametrize(
    ("profile", "named"),
    [
        ({"embedder_id": EMBEDDER, "centroid": _unit(383)}, "centroid: .*383 values.* have 384"),
        ({"embedder_id": EMBEDDER, "centroid": [0.0] * 384}, "centroid: .* has length 0;"),
        ({"embedder_id": EMBEDDER, "centroid": [1e300] * 384}, "centroid: .* has length .*e"),
        ({"embedder_id": "other", "centroid": [0.5, 0.5]}, "centroid: .* has length 0.707"),
        ({"centroid": _unit(384)}, "centroid: .* needs embedder_id"),
        ({"embedder_id": EMBEDDER, "centroid": [None]}, r"centroid\.0: .* valid number"),
        ({"spread": -0.1}, "spread: .* greater than or equal to 0"),
        ({"spread": 2.1}, "spread: .* less than or equal to 2"),
    ],
)
def test_routing_profile_is_refused_when_no_embedder_can_have_made_it(profile, named):
    with pytest.raises(errors.CardFormatError, match=f"manifest field routing.{named}"):
        manifests.parse(_with("routing", json.dumps(profile)))


@pytest.mark.parametrize("field", ["centroid", "spread"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_routing_profile_is_refused_when_a_number_is_not_finite(field, value):
    text = f"[{value}]" if field == "centroid" else value
    with pytest.raises(errors.CardFormatError, match="manifest"):
        manifests.parse(_with("routing", f'{{"embedder_id":"other","{field}":{text}}}'))


@pytest.mark.parametrize(
    "profile",
    [
        {"embedder_id": EMBEDDER, "centroid": _unit(384), "spread": 2.0},
        {"embedder_id": EMBEDDER},
        {"embedder_id": "other", "centroid": [0.6, -0.8]},
        {},
    ],
)
def test_routing_profile_is_read_when_an_embedder_can_have_made_it(profile):
    found = manifests.parse(_with("routing", json.dumps(profile)))
    assert found.routing == manifests.RoutingProfile(**profile)


def test_card_is_refused_when_its_maker_did_not_check_the_profile():
    card = fakes.tiny_card()
    for wrong in (
        {"embedder_id": EMBEDDER, "centroid": (float("nan"),) * 384},
        {"embedder_id": EMBEDDER, "centroid": (1.0, 0.0)},
        {"spread": float("nan")},
    ):
        routing = manifests.RoutingProfile().model_copy(update=wrong)
        manifest = card.manifest.model_copy(update={"routing": routing})
        uploaded = formats.LoRAFormat.to_bytes(card.with_manifest(manifest))
        with pytest.raises(errors.CardFormatError, match=r"manifest field routing\."):
            formats.LoRAFormat.from_bytes(uploaded)


@pytest.mark.parametrize("route", ["", manifests.SPECIALIST_LOCAL, "a" * 62])
def test_route_is_read_when_it_is_a_name(route):
    found = manifests.parse(_with("routing", json.dumps({"route": route})))
    assert found.route == route
    assert manifests.parse(found.to_json()) == found


def test_card_has_no_route_when_its_manifest_has_no_profile_or_an_older_one():
    assert manifests.parse(_with("routing", "null")).route == ""
    assert manifests.parse(_with("routing", '{"examples":["Who?"]}')).route == ""


@pytest.mark.parametrize("route", ["Local", "a-b", "a b", "a" * 63, "a\n"])
def test_route_is_refused_when_it_is_no_name(route):
    with pytest.raises(errors.CardFormatError, match=r"manifest field routing\.route"):
        manifests.parse(_with("routing", json.dumps({"route": route})))
