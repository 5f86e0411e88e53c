"""Invents names, things and values, so that the corpus speaks of far more than one could write.

Knows nothing about questions: it only supplies what fills their slots.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

_ONSETS = "b br c ch d dr f fl g gr h j k kl kr l m n p pr q r s sh sk st t th tr v w y z".split()
_VOWELS = "a e i o u ai ea ie oa ou y".split()
_CODAS = " b ck d l ll m n nd ng nt r rd rn rs s sk ss st t th v x z".split(" ")
_ENDINGS = "a en ford ham holm ia ica in is land mar mere o or ton um us vale wick".split()
_TITLES = "Dr Professor Captain Mayor Sister Judge".split()
_FIRST_NAMES = (
    "Ada Alma Anders Beatrix Boris Carla Cyrus Dana Edda Elias Farid Greta Hanna Hugo Ida Ines "
    "Ivo Jonas Karim Lena Lucas Mara Marek Nadia Nils Olga Oscar Petra Quentin Rosa Ruben Selma "
    "Simon Tara Tobias Ulla Vera Viktor Wanda Yara Zeno"
).split()
_COLOURS = (
    "red blue green yellow black white grey orange purple brown silver golden pink dark-blue "
    "pale-green crimson turquoise amber violet copper-red"
).split()
_MATERIALS = (
    "granite oak steel copper brass glass clay slate marble bamboo wool leather silk concrete "
    "limestone aluminium paper wax ceramic iron tin rubber cork birch"
).split()
_MONTHS = (
    "January February March April May June July August September October November December"
).split()
_UNITS = {
    "length": "metres centimetres kilometres feet millimetres miles",
    "mass": "kilograms grams tonnes pounds",
    "duration": "minutes hours days weeks months years seconds",
    "temperature": "degrees",
    "speed": "kilometres per hour, metres per second, knots",
    "area": "square metres, hectares, square kilometres",
    "volume": "litres millilitres cubic metres",
    "power": "watts kilowatts volts amperes",
}
_CODE_FORMS = (
    "{a}-{n}",
    "{a}{n}",
    "{n}",
    "{w}.{x}",
    "/{w}/{w2}",
    "{w}_{w2}",
    "--{w}",
    "{a}{a2}-{n}",
)


@dataclasses.dataclass(frozen=True)
class Words:
    """Word lists that the inventor draws from: common ones first."""

    vocabulary: Sequence[str]
    nouns: Sequence[str]


class Inventor:
    """Draws names, entities and values from one seeded random source."""

    def __init__(self, words: Words, rng: random.Random) -> None:
        """Takes the word lists and the random source."""
        self._words = words
        self._rng = rng

    def name(self) -> str:
        """A made-up proper name of one or two syllables and an ending, such as `Skarmere`."""
        pick = self._rng.choice
        syllables = "".join(
            pick(_ONSETS) + pick(_VOWELS) + pick(_CODAS) for _ in range(pick((1, 1, 2)))
        )
        return (syllables + pick((*_ENDINGS, "", ""))).capitalize()

    def person(self) -> str:
        """A first and a last name, sometimes with a title."""
        first = self._rng.choice(_FIRST_NAMES) if self._rng.random() < 0.6 else self.name()
        title = f"{self._rng.choice(_TITLES)} " if self._rng.random() < 0.1 else ""
        return f"{title}{first} {self.name()}"

    def word(self) -> str:
        """A dictionary word; common ones are likelier."""
        size = len(self._words.vocabulary)
        return self._words.vocabulary[int(size * self._rng.random() ** 1.6)]

    def noun(self) -> str:
        """A concrete noun from the list written for this purpose."""
        return self._rng.choice(self._words.nouns)

    def entity(self) -> str:
        """A noun phrase to ask about: `the Skarmere lighthouse`, `Lake Orun`, `Brale Sync`."""
        name, noun = self.name(), self.noun()
        form = self._rng.randrange(12)
        if form < 3:
            return f"the {name} {noun}"
        if form == 3:
            return name
        if form == 4:
            return f"{name} {noun.capitalize()}"
        if form == 5:
            return f"the {noun} of {name}"
        if form == 6:
            return f"the {self.word()} {noun}"
        if form == 7:
            return f"the {noun} {self._rng.choice(('in', 'at', 'on', 'near', 'for'))} {name}"
        if form == 8:
            return f"the {self.noun()} of the {name} {noun}"
        if form == 9:
            return f"{name}'s {noun}"
        if form == 10:
            return f"the {self.word()} {self.word()} of {name}"
        return self.person()

    def value(self, kind: str) -> str:
        """A value of one of the kinds that question families name, such as `length`."""
        rng = self._rng
        if kind in _UNITS:
            units = _UNITS[kind]
            unit = rng.choice(units.split(", ") if "," in units else units.split())
            return f"{self._number()} {unit}"
        if kind == "year":
            return str(rng.randint(1200, 2040))
        if kind == "date":
            return f"{rng.randint(1, 28)} {rng.choice(_MONTHS)}"
        if kind == "time":
            return f"{rng.randint(1, 12)}:{rng.choice(('00', '15', '30', '45'))}"
        if kind == "money":
            return f"{self._number()} {rng.choice(('euros', 'dollars', 'pounds', 'crowns'))}"
        if kind == "percent":
            return f"{rng.randint(1, 99)} per cent"
        if kind == "count":
            return f"{self._number()} {self.noun()}s" if rng.random() < 0.3 else self._number()
        if kind == "person":
            return self.person()
        if kind == "organisation":
            return f"the {self.name()} {rng.choice(('Guild', 'Institute', 'Company', 'Board'))}"
        if kind == "place":
            return rng.choice((self.name(), f"the {self.noun()} of {self.name()}"))
        if kind == "material":
            return rng.choice(_MATERIALS)
        if kind == "colour":
            return rng.choice(_COLOURS)
        if kind == "name":
            return self.name()
        if kind == "code":
            return self._code()
        if kind in ("reason", "action"):
            return f"{self.word()} the {self.word()} {self.noun()}"
        return f"the {self.word()} {self.noun()}"

    def _number(self) -> str:
        top = self._rng.choice((12, 60, 400, 9000))
        return str(self._rng.randint(2, top))

    def _code(self) -> str:
        rng = self._rng
        return rng.choice(_CODE_FORMS).format(
            a=rng.choice("ABCDEFGHKLMNPRSTVWXZ"), a2=rng.choice("ABCDEFGHKLMNPRSTVWXZ"),
            n=rng.randint(1, 9999), w=self.word(), w2=self.word(),
            x=rng.choice(("toml", "json", "cfg", "txt", "log")),
        )  # fmt: skip
