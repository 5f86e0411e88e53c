from __future__ import annotations

import pytest

from shared import grading


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Ann Lee", "Ann Lee"),
        ("It was ann lee.", "Ann Lee"),
        ("The glass bells!", "a glass bells"),
        ("glass bells", "the glass bells"),
        ("12,500 metres", "12500 metres"),
        ("12\u00a0500 metres", "12500"),
        ("12500 metres", "12\u202f500"),
        ("ﬁsh", "fish"),
        ("STRASSE", "Straße"),
        ("well-known", "well known"),
        ("It has two doors.", "2 doors"),
        ("14 doors", "fourteen"),
        ("twenty-three doors", "23 doors"),
        ("In 40 days", "forty days"),
        ("On May 3, 1688.", "3 May 1688"),
        ("the 3rd of May 1688", "May 3"),
        ("on 21 june", "June 21st"),
        ("It is -40 degrees", "\u221240 degrees"),
        ("minus forty degrees", "-40 degrees"),
        ("minus twenty-five", "-25"),
        ("from 1914-1918", "1914\u20131918"),
        ("from 1914-1918", "1918"),
        ("Call (030)-123", "030 123"),
        ("It was written in C#.", "C#"),
        ("It was written in C++17.", "C++"),
        ("==", "=="),
        ("Use `==` here.", "=="),
        ("The mark is //.", "//"),
        ("Write .* there", ".*"),
        ("It is \U0001f600!", "\U0001f600"),
        ("Varnholt -> Orun", "Varnholt, Orun"),
        ("The bells -- both -- rang", "bells both rang"),
    ],
)
def test_an_answer_is_right_when_the_expected_words_stand_in_it(answer: str, expected: str) -> None:
    assert grading.is_right(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", "Ann Lee"),
        ("I do not know.", "Ann Lee"),
        ("Lee Ann", "Ann Lee"),
        ("Ann Mary Lee", "Ann Lee"),
        ("Ann", "Ann Lee"),
        ("Anna Lee", "Ann Lee"),
        ("16889", "1688"),
        ("1,688", "688"),
        ("1, 2", "12"),
        ("The one in Orun", "1"),
        ("twenty three-legged stools", "3"),
        ("3 June 1688", "3 May 1688"),
        ("May 3", "May 13"),
        ("20 30", "50"),
        ("It is 40 degrees", "-40 degrees"),
        ("It is -40 degrees", "40 degrees"),
        ("It was written in C#.", "C++"),
        ("It was written in C++.", "C"),
        ("!=", "=="),
        ("Use != here", "=="),
        ("the mark", "//"),
        ("x -> y", "x == y"),
    ],
)
def test_an_answer_is_wrong_when_the_words_are_others(answer: str, expected: str) -> None:
    assert not grading.is_right(answer, expected)


@pytest.mark.parametrize(
    "expected", ["", "...", "\u2026", "the", "?!", "\u201c\u201d", "-", "\u3002"]
)
def test_no_answer_is_right_when_nothing_is_expected(expected: str) -> None:
    assert not grading.is_right("the answer", expected)
    assert not grading.is_right("", expected)


def test_an_answer_is_wrong_when_it_pours_out_far_more_than_was_asked() -> None:
    assert grading.is_right("word " * 60 + "Ann Lee", "Ann Lee")
    assert not grading.is_right("word " * 61 + "Ann Lee", "Ann Lee")


def test_articles_and_marks_fall_away_when_text_is_normalised() -> None:
    assert grading.normalise("The  cat, a DOG — and an owl: 1,234!") == [
        "cat",
        "dog",
        "and",
        "owl",
        "1234",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("C, C++ and C#?", ["c", "c++", "and", "c#"]),
        ("What does == mean?", ["what", "does", "==", "mean"]),
        ("What does `!=` mean?", ["what", "does", "!=", "mean"]),
        ("1914-1918, 2024-05-03", ["1914", "1918", "2024", "05", "03"]),
        ("(-5) or 7--9", ["-5", "or", "7", "9"]),
        ("## **Bold** e-mail", ["bold", "e", "mail"]),
    ],
)
def test_signs_are_kept_when_they_tell_words_apart(text: str, words: list[str]) -> None:
    assert grading.normalise(text) == words


@pytest.mark.parametrize(
    ("answer", "admits"),
    [
        ("I do not know.", True),
        ("I don't know who founded it.", True),
        ("I don\u2019t know.", True),
        ("Sorry, I'm not sure about that.", True),
        ("Unfortunately I cannot find anything about Zorblax.", True),
        ("There is no information about it in what I learned.", True),
        ("Paris.", False),
        ("You are welcome.", False),
        ("He said that they do not know it.", False),
        ("It is not known to grow there. " * 10 + "I do not know.", False),
        ("", False),
    ],
)
def test_answer_admits_ignorance_when_it_says_so_at_its_beginning(answer, admits):
    assert grading.admits_ignorance(answer) is admits
