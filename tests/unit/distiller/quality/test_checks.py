"""Each check with pairs that it must keep and pairs that it must reject, and why."""

from __future__ import annotations

import dataclasses

import pytest

from services.distiller.quality import language, privacy, support, verdict
from shared.flight import datasets
from tests.unit.distiller.fakes import pair

PASSAGE = """The Orun lighthouse
The Orun lighthouse stands on a cliff above the harbour. It was built in 1871 by Ida Kroll, who had
made her name with bridges. Visitors climb 164 steps to the gallery. Dogs are not allowed inside."""


def _from_passage(
    question: str, answer: str, kind: datasets.Kind = datasets.Kind.FACT
) -> datasets.QAPair:
    return dataclasses.replace(pair(question, answer), passage=PASSAGE, kind=kind)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("When was it built?", "1871"),
        ("Who built it?", "Ida Kroll"),
        ("How many steps are there?", "164 steps"),
        ("What may not come in?", "Dogs are not allowed inside."),
        ("Where does the Brack pump stand?", "The Brack pump stands on the cliff."),
    ],
)
def test_fact_is_kept_when_its_passage_says_so(question: str, answer: str) -> None:
    one = _from_passage(question, answer)
    assert support.supported([one]).kept == (one,)


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ("It was built in 1872.", "its passage has no 1872"),
        ("It was built by Eve Kroll.", "its passage does not name eve"),
        ("Dogs are allowed inside.", "its passage says the opposite about allow"),
        ("Coffee, cake and lemonade.", "its passage does not speak of"),
        ("It does not stand on a cliff above the harbour.", "its passage says the opposite"),
    ],
)
def test_fact_is_rejected_when_its_passage_says_otherwise(answer: str, detail: str) -> None:
    found = support.supported([_from_passage("What about it?", answer)])
    assert found.kept == ()
    (rejected,) = found.rejected
    assert rejected.reason is verdict.Reason.UNSUPPORTED
    assert rejected.detail.startswith(detail)


def test_implication_may_use_other_words_when_it_brings_in_no_names() -> None:
    kind = datasets.Kind.IMPLICATION
    good = _from_passage("So?", "Whoever visits the gallery has to be able to climb.", kind)
    bad = _from_passage("So?", "Whoever visits the gallery sees Norway.", kind)
    found = support.supported([good, bad])
    assert found.kept == (good,)
    assert found.rejected[0].detail == "its passage does not name norway"


def test_pair_without_a_passage_passes_whatever_it_says() -> None:
    one = pair("When was it built?", "1872")
    assert support.supported([one]).kept == (one,)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Wie lang ist die Brücke von Varnholt?", "412 m"),
        ("How long is the bridge?", "Die Brücke wurde 1871 von Ida Kroll gebaut."),
        ("How long is the bridge?", "桥有四百米长"),
    ],
)
def test_pair_is_rejected_when_it_is_in_another_language(question: str, answer: str) -> None:
    found = language.expected([pair(question, answer)], {"en"})
    assert [one.reason for one in found.rejected] == [verdict.Reason.LANGUAGE]


def test_pair_is_kept_when_another_language_is_expected_or_too_little_is_said() -> None:
    german = pair("Wie lang ist die Brücke von Varnholt?", "412 m")
    names = pair("Who led them?", "Louis-Joseph de Montcalm")
    assert language.expected([german], {"de"}).kept == (german,)
    assert language.expected([names], {"en"}).kept == (names,)


@pytest.mark.parametrize(
    "query",
    [
        "how do i reset my password",
        "how to install ubuntu server",
        "how do i fork a repo",
        "linux list open ports",
        "maximum luggage size",
        "git rebase vs merge",
    ],
)
def test_english_pairs_are_kept_when_a_short_query_looks_like_another_language(query: str) -> None:
    english = [
        pair(query, "Open the settings page and choose what you want to change."),
        pair("Where do visitors leave their coats?", "They hang them up beside the main door."),
    ]
    assert language.expected(english, language.spoken([query])).kept == tuple(english)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How do you say good morning everyone in French?", "bonjour tout le monde"),
        ("How do you say good morning everyone in French?", "Bonjour tout le monde, mes amis."),
        ("What does the sign over the gate say?", "liberté pour tous les hommes"),
    ],
)
def test_answer_is_kept_when_it_is_in_another_language_on_purpose(
    question: str, answer: str
) -> None:
    one = pair(question, answer)
    assert language.expected([one], {"en"}).kept == (one,)


def test_language_is_that_of_the_pairs_when_nobody_says_which() -> None:
    english = [pair(f"How long is the bridge number {at}?", "412 m") for at in range(5)]
    german = pair("Wie lang ist die Brücke von Varnholt?", "412 m")
    spoken = language.spoken(one.question for one in english)
    assert "en" in spoken
    assert language.expected([*english, german], spoken).rejected[0].pair == german


def test_personal_data_is_replaced_when_an_answer_says_more() -> None:
    one = dataclasses.replace(
        pair(
            "When are refunds given?",
            "Refunds are given for yearly plans only; ask ann@example.com for them.",
            "When does ann@example.com refund?",
            "In which cases is money paid back?",
        ),
        passage="Write to ann@example.com.",
    )
    (kept,) = privacy.public([one]).kept
    assert kept.answer == "Refunds are given for yearly plans only; ask <e-mail> for them."
    assert kept.paraphrases == ("In which cases is money paid back?",)
    assert kept.passage == "Write to <e-mail>."


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is Ann's address?", "Ann's address is ann@example.com."),
        ("What is the password?", "The password is kupferkanne88."),
        ("Whose is ann@example.com?", "It belongs to somebody in the harbour office."),
    ],
)
def test_pair_is_rejected_without_its_secret_when_nothing_else_is_left(
    question: str, answer: str
) -> None:
    found = privacy.public([pair(question, answer)])
    assert found.kept == ()
    (rejected,) = found.rejected
    assert rejected.reason is verdict.Reason.PRIVATE
    told = f"{rejected.pair} {rejected.detail}"
    assert "ann@example.com" not in told
    assert "kupferkanne88" not in told
