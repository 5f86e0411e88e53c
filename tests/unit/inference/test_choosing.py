"""Which card of a code base is asked, among several, and when some can't be had."""

from __future__ import annotations

import pytest

from services.inference import choosing
from shared import errors

NEW, OLD, OTHER = "specialist-tidal@2", "specialist-tidal@1", "specialist-zonal@1"


class Engine:
    """Serves cards, some of which can't come into memory."""

    def __init__(self, *served: str, lost: tuple[str, ...] = ()) -> None:
        self._served, self._lost = served, lost

    def served(self) -> list[str]:
        return list(self._served)

    async def bring_lora(self, key: str, deadline_s: float | None = None) -> None:
        if key in self._lost:
            raise errors.UnavailableError("the peer that has it is away")


@pytest.mark.parametrize(
    ("path", "lost", "card"),
    [
        ("", (), OTHER),
        ("/home/a/tidal/src/x.py", (), NEW),
        ("C:\\work\\tidal\\x.py", (), NEW),
        ("/tidal/zonal/x.py", (), OTHER),
        ("/somewhere/x.py", (OTHER,), NEW),
        ("/tidal/x.py", (NEW,), OTHER),
        ("", (OTHER, NEW, OLD), None),
    ],
)
async def test_card_of_the_folder_goes_first_then_the_newest_that_can_be_had(
    path: str, lost: tuple[str, ...], card: str | None
) -> None:
    # Between two versions of a name the older one is still there for a moment.
    engine = Engine(OLD, NEW, OTHER, lost=lost)
    chosen = choosing.Choosing(engine, lambda _: (OTHER, NEW, OLD))
    assert await chosen.specialist(path, None) == card


async def test_base_is_left_when_no_code_base_was_learned() -> None:
    assert await choosing.Choosing(Engine()).specialist("/tidal/x.py", 1.0) is None


async def test_base_is_left_when_several_cards_in_a_row_can_not_be_had() -> None:
    lost = tuple(f"specialist-{name}@1" for name in ("a", "b", "c"))
    chosen = choosing.Choosing(Engine(*lost, OTHER, lost=lost), lambda _: (*lost, OTHER))
    assert await chosen.specialist("", None) is None
    assert await chosen.specialist("/zonal/x.py", None) == OTHER


@pytest.mark.parametrize(
    ("owners", "tenants", "may"),
    [
        ((), frozenset(), True),
        (("a",), frozenset({"a", "b"}), True),
        (("a",), frozenset({"b"}), False),
        (("a",), frozenset(), False),
        (("a",), None, True),
        # It is served already, and whose it is will be noted in a moment.
        (None, frozenset({"a"}), False),
        (None, None, True),
    ],
)
def test_card_answers_those_alone_whose_it_is_known_to_be(
    owners: tuple[str, ...] | None, tenants: frozenset[str] | None, may: bool
) -> None:
    chosen = choosing.Choosing(Engine(NEW), tenants_of=lambda key: owners)
    assert chosen.is_for(NEW, tenants) == may
    if may:
        assert chosen.named(NEW, tenants) == NEW
    else:
        with pytest.raises(errors.NotFoundError):
            chosen.named(NEW, tenants)
