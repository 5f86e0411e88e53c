import pytest

from services.distiller import grammar


@pytest.mark.parametrize(
    ("question", "thing"),
    [
        ("How tall is the Skarn Holm Lighthouse?", "the Skarn Holm Lighthouse"),
        ("Who approves trips at Hollin & Drake?", "Hollin & Drake"),
        ("What does the ash-tailed brindlefox mostly eat?", "the ash-tailed brindlefox"),
        ("What is love?", ""),
    ],
)
def test_thing_is_found_when_a_question_names_it(question: str, thing: str):
    found = grammar.things_asked_about(question)
    assert (found[0] if found else "") == thing


def test_part_is_offered_when_it_belongs_to_the_named_thing():
    found = grammar.things_asked_about("Who made the lens of the Orun light?")
    assert "the lens of the Orun light" in found


def test_clause_keeps_its_order_when_the_thing_is_known():
    found = grammar.wordings("When was the Orun Light built?", "the Orun Light")
    assert "Can you tell me when the Orun Light was built?" in found


def test_other_names_turn_the_noun_round_when_it_is_one():
    assert "the lighthouse at Skarn Holm" in grammar.other_names("the Skarn Holm Lighthouse")
    assert grammar.other_names("the Brennoc K7") == []
