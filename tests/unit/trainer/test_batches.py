from __future__ import annotations

import collections
import itertools

from services.trainer import batches, data


def example(question: str, answer_ids: tuple[int, ...] = (2, 3, 5)) -> data.Example:
    return data.Example(question, "a", (1,), answer_ids)


FACTS = [[example("A1", (2, 4, 5))], [example(f"B{number}") for number in range(9)]]
STRANGER = data.Example("stranger", "no", (7, 8), (9,))


def drawn(count: int, seed: int = 1, continued_share: float = 0.0) -> list[data.Example]:
    stream = batches.by_fact(FACTS, [STRANGER], 5, seed, continued_share)
    return list(itertools.chain.from_iterable(itertools.islice(stream, count)))


def test_facts_are_equally_frequent_when_one_has_more_wordings() -> None:
    found = collections.Counter(one.question[0] for one in drawn(36))
    assert found == {"A": 90, "B": 90}
    of_b = collections.Counter(one.question for one in drawn(36) if one.question[0] == "B")
    assert set(of_b.values()) == {10}


def test_batches_are_the_same_when_the_seed_is() -> None:
    assert drawn(6) == drawn(6) != drawn(6, seed=2)


def test_some_answers_stand_behind_a_stranger_when_a_share_is_asked_for() -> None:
    made = [one for one in drawn(400, continued_share=0.25) if one.question == "stranger"]
    assert 400 <= len(made) <= 600
    for one in made:
        assert one.prompt_ids == STRANGER.prompt_ids
        assert one.answer_ids in ((2, 4, 5), (2, 3, 5)) and one.given == 2


def test_every_item_comes_once_in_an_epoch_when_items_are_cycled() -> None:
    items = [example(str(number)) for number in range(6)]
    epochs = list(itertools.islice(batches.cycle(items, 3, 5), 4))
    for first, second in (epochs[:2], epochs[2:]):
        assert sorted(one.question for one in first + second) == list("012345")
    assert list(batches.cycle([], 3, 5)) == list(batches.cycle(items, 0, 5)) == []


def test_answers_are_told_apart_by_their_first_tokens() -> None:
    answers = [(1, 2, 3), (1, 2, 4), (5, 6), (1, 7, 8, 9), (5, 6, 7), (1, 2, 3)]
    assert batches.distinguishing(answers) == [3, 3, 2, 2, 3, 3]
    assert batches.distinguishing([(4, 4)]) == [1]


def test_answers_are_compared_with_their_neighbours_alone_when_there_are_many() -> None:
    class Counted(int):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return int(self) == other

        __hash__ = int.__hash__

    answers = [(Counted(number), Counted(0)) for number in range(400)]
    assert batches.distinguishing(answers) == [1] * 400
    # All pairs are 80,000.
    assert Counted.compared < 20_000
