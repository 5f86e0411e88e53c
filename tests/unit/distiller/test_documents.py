"""The document teacher with the real embedder: what it quotes, and when it keeps silent."""

import pathlib

import pytest

from services.distiller.providers import base, documents
from services.distiller.quality import placement, support
from shared import errors, grading
from shared.models import embedder as embedders

ORUN = """# The Orun lighthouse

The Orun lighthouse stands on a cliff above the harbour. It was built in 1871 by Ida Kroll, who had
made her name with bridges. The tower is 38 metres tall. Its lamp burns rape oil to this day, since
the council never paid for electricity. Visitors climb 164 steps to the gallery.
"""
PUMP = """# Brack pump manual

The Brack pump holds 14 litres of oil. Change the filter every six months.
"""


@pytest.fixture(scope="module")
def embed():
    embedder = embedders.Embedder()

    async def embed_texts(texts):
        return embedder.embed(texts)

    return embed_texts


@pytest.fixture
def teacher(tmp_path: pathlib.Path, embed):
    (tmp_path / "orun.md").write_text(ORUN)
    (tmp_path / "pump.md").write_text(PUMP)
    return documents.DocumentProvider(tmp_path, embed)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who built the Orun lighthouse?", "Ida Kroll"),
        ("What is the height of the tower at Orun?", "38 metres"),
        ("How many steps lead to the gallery of the Orun lighthouse?", "164"),
        ("How much oil does the Brack pump take?", "14 litres"),
    ],
)
async def test_sentence_is_quoted_when_a_document_answers(teacher, question: str, answer: str):
    pairs = await teacher.generate_qa(base.QARequest("", (question,)))
    assert grading.is_right(pairs[0].answer, answer)


async def test_questions_are_told_apart_when_they_are_about_different_documents(teacher):
    located = await teacher.locate(
        ["Who built the Orun lighthouse?", "How much oil does the Brack pump take?", "Why sleep?"]
    )
    assert [one.topic_key for one in located] == ["orun.md", "pump.md", ""]


async def test_nothing_but_the_question_is_embedded_when_documents_were_prepared(
    tmp_path: pathlib.Path, embed
):
    (tmp_path / "orun.md").write_text(ORUN)
    embedded: list[str] = []

    async def listening(texts):
        embedded.extend(texts)
        return await embed(texts)

    teacher = documents.DocumentProvider(tmp_path, listening)
    await teacher.prepare()
    embedded.clear()
    [found] = await teacher.locate(["Who built the Orun lighthouse?"])
    assert embedded == ["Who built the Orun lighthouse?"] and found.topic_key == "orun.md"


async def test_reason_is_given_when_no_document_speaks_of_it(teacher):
    with pytest.raises(errors.NotFoundError, match="make teach doc"):
        await teacher.generate_qa(base.QARequest("", ("What do penguins dream of?",)))


async def test_rest_of_the_document_is_taught_when_few_questions_were_asked(teacher):
    pairs = await teacher.generate_qa(base.QARequest("", ("Who built the Orun lighthouse?",)))
    assert any("164 steps" in pair.answer for pair in pairs)


async def test_title_is_the_heading_when_pairs_come_from_a_document(teacher):
    request = base.QARequest("", ("Who built the Orun lighthouse?",))
    pairs = await teacher.generate_qa(request)
    subject = await teacher.subject(request, pairs)
    assert subject.title == "The Orun lighthouse"
    assert subject.summary.startswith("The Orun lighthouse")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Which variety resists brown rot?", "Marigan's Pride"),
        ("Who led the last embassy to Karrow?", "Bishop Odo"),
    ],
    ids=["it only repeats the question", "it names nobody"],
)
async def test_the_next_sentence_is_quoted_too_when_one_only_leads_up_to_the_answer(
    tmp_path: pathlib.Path, embed, question: str, answer: str
):
    (tmp_path / "guide.md").write_text(
        "# Notes from Karrow\n\n"
        "Orchards here suffer in wet years. Plant a variety that resists brown rot. Marigan's "
        "Pride is the safest choice.\n\n"
        "The city held out all summer. A last embassy was sent to negotiate. Bishop Odo was pelted "
        "with herrings and turned back.\n"
    )
    teacher = documents.DocumentProvider(tmp_path, embed)
    pairs = await teacher.generate_qa(base.QARequest("", (question,)))
    assert grading.is_right(pairs[0].answer, answer)


async def test_passage_holds_title_and_every_quoted_sentence_when_a_document_answers(teacher):
    asked = ("Who built the Orun lighthouse?", "How many steps lead to the gallery at Orun?")
    pairs = await teacher.generate_qa(base.QARequest("", asked))
    for pair in pairs:
        title, *lines = pair.passage.split("\n")
        assert title == "The Orun lighthouse"
        quoted = [line for line in lines if line in pair.answer]
        assert " ".join(quoted) == pair.answer


async def test_quoted_answers_pass_all_checks_when_a_document_answers(teacher, embed):
    asked = ("Who built the Orun lighthouse?", "How many steps lead to the gallery at Orun?")
    pairs = await teacher.generate_qa(base.QARequest("", asked))
    assert support.supported(pairs).rejected == ()
    assert (await placement.placed(pairs, embed)).rejected == ()
