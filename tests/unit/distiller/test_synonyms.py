from __future__ import annotations

from services.distiller import synonyms


def test_words_are_replaced_when_the_lexicon_has_them():
    found = synonyms.variants("How much does a guest pay at Orun Hall?", "Orun Hall", 6)
    assert len(found) == len(set(found)) > 2
    assert all(text.endswith("at Orun Hall?") and text[:1].isupper() for text in found)
    assert "How much does a guest pay at Orun Hall?" not in found


def test_the_same_variants_come_when_the_question_is_the_same():
    question = "When does the museum open?"
    assert synonyms.variants(question, "", 4) == synonyms.variants(question, "", 4)


def test_the_thing_stays_when_its_words_have_synonyms():
    thing = "the guest house"
    found = synonyms.variants(f"Who owns {thing}?", thing, 6)
    assert found and all(thing in text for text in found)


def test_names_stay_when_they_are_words_of_the_lexicon():
    found = synonyms.variants("Who runs the Guest?", "", 6)
    assert all("the Guest" in text for text in found)


def test_nothing_is_made_when_no_word_is_known():
    assert synonyms.variants("Xyzzy plugh?", "", 3) == []


def test_every_line_of_the_lexicon_offers_something_else():
    for head, substitutes in synonyms.lexicon().items():
        assert head == head.lower().strip() and substitutes
        assert all(text.strip() == text != head for text in substitutes), head
