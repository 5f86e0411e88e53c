import pytest

from services.distiller.documents import reading
from shared import errors

TEXT = """# Orun

Orun is a town. It was founded in 1871 by Dr. Ida Kroll.

## Transport

| Line | Colour |
|---|---|
| 1 | red |

To ring the bell, run:

```
bell ring
```

- The ferry costs 3 crowns.
"""


def texts(document: reading.Document) -> list[str]:
    return [passage.text for passage in document.passages]


def test_sentences_are_split_when_a_paragraph_has_several():
    found = texts(reading.parse("orun.md", TEXT))
    assert found[:2] == ["Orun is a town.", "It was founded in 1871 by Dr. Ida Kroll."]


def test_row_names_its_columns_when_a_table_is_read():
    assert "Line: 1, Colour: red" in texts(reading.parse("orun.md", TEXT))


def test_command_stays_with_its_sentence_when_a_colon_leads_to_it():
    assert "To ring the bell, run: bell ring" in texts(reading.parse("orun.md", TEXT))


def test_headings_are_kept_when_a_passage_stands_below_them():
    ferry = reading.parse("orun.md", TEXT).passages[-1]
    assert (ferry.text, ferry.headings) == ("The ferry costs 3 crowns.", ("Orun", "Transport"))


@pytest.mark.parametrize("text", ["", "\n\n", "# Only a title\n"])
def test_document_is_refused_when_it_says_nothing(text: str):
    with pytest.raises(errors.InvalidInputError, match=r"empty\.md"):
        reading.parse("empty.md", text)


def test_folder_is_named_when_it_is_missing(tmp_path):
    with pytest.raises(errors.ConfigError, match=r"distiller\.knowledge_dir"):
        reading.read_folder(tmp_path / "nowhere")
