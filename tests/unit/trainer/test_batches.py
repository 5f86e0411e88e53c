from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Sequence

from services.trainer import batches, data


def example(question: str) -> data.Example:
    return data.Example(question, "a", (1,), (2,))


FACTS = [[example("A1")], [example(f"B{number}") for number in range(9)]]
MIXED = example("mixed")


def mix(rng: random.Random, wordings: Sequence[data.Example]) -> data.Example:
    return MIXED


def drawn(count: int, seed: int = 1, mixed_share: float = 0.0) -> list[data.Example]:
    stream = batches.by_fact(FACTS, 5, seed, mixed_share, mix)
    return list(itertools.chain.from_iterable(itertools.islice(stream, count)))


def test_facts_are_equally_frequent_when_one_has_more_wordings() -> None:
    found = collections.Counter(one.question[0] for one in drawn(36))
    assert found == {"A": 90, "B": 90}
    of_b = collections.Counter(one.question for one in drawn(36) if one.question[0] == "B")
    assert set(of_b.values()) == {10}


def test_batches_are_the_same_when_the_seed_is() -> None:
    assert drawn(6) == drawn(6) != drawn(6, seed=2)


def test_some_questions_are_mixed_when_a_share_is_asked_for() -> None:
    count = drawn(400, mixed_share=0.25).count(MIXED)
    assert 400 <= count <= 600
    assert drawn(4, mixed_share=1.0) == [MIXED] * 20


def test_every_item_comes_once_in_an_epoch_when_items_are_cycled() -> None:
    items = [example(str(number)) for number in range(6)]
    epochs = list(itertools.islice(batches.cycle(items, 3, 5), 4))
    for first, second in (epochs[:2], epochs[2:]):
        assert sorted(one.question for one in first + second) == list("012345")
    assert list(batches.cycle([], 3, 5)) == list(batches.cycle(items, 0, 5)) == []


def test_mixed_question_has_only_words_of_its_sources() -> None:
    rng = random.Random(4)
    questions = ["How tall is Orun?", "What height has Orun?"]
    made = {batches.mixed_question(rng, questions, "It is 38 metres high.") for _ in range(50)}
    known = set("How tall is Orun? What height has Orun It is 38 metres high".split()) | {"Orun"}
    assert len(made) > 10
    for text in made:
        assert text.endswith("?") and {word.rstrip("?") for word in text.split()} <= {
            word.rstrip("?") for word in known
        }
