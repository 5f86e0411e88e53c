from __future__ import annotations

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from services.distiller.codebase import formats
from shared import errors
from shared.flight import samples
from tests.unit.distiller.codebase import code_bases

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
every_form = pytest.mark.parametrize("form", list(formats.Format))


@every_form
@hypothesis.given(instruction=TEXT, input_=TEXT, output=TEXT, held_out=st.booleans())
@hypothesis.example(instruction="a", input_="\n\nb", output="c\u2028d", held_out=True)
@hypothesis.example(instruction="", input_="\n\nb", output="", held_out=True)
def test_samples_are_the_same_when_they_were_written_and_read(
    form: formats.Format, instruction: str, input_: str, output: str, held_out: bool
) -> None:
    one = code_bases.sample(instruction=instruction, input=input_, output=output, held_out=held_out)
    data = formats.to_jsonl(form, [one, one])
    assert formats.from_jsonl(form, data) == [one, one]
    assert formats.to_jsonl(form, formats.from_jsonl(form, data)) == data


def test_rows_are_what_other_trainers_read() -> None:
    one = code_bases.sample(instruction="Write it.", input="def f():", output="def f(): ...")

    def row(form: formats.Format) -> dict[str, object]:
        return dict(json.loads(formats.to_jsonl(form, [one])))

    question = "Write it.\n\ndef f():"
    assert row(formats.Format.MESSAGES)["messages"] == [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "def f(): ..."},
    ]
    assert row(formats.Format.SHAREGPT)["conversations"] == [
        {"from": "human", "value": question},
        {"from": "gpt", "value": "def f(): ..."},
    ]
    alpaca = row(formats.Format.ALPACA)
    assert (alpaca["instruction"], alpaca["input"], alpaca["output"]) == (
        "Write it.", "def f():", "def f(): ...",
    )  # fmt: skip
    assert alpaca["kind"] == "write"


@every_form
@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:-5],
        lambda line: line.replace('"kind": "write"', '"kind": "wrote"'),
        lambda line: line.replace('"symbol"', '"sign"'),
        lambda line: line.replace('"symbol": "Halves.of"', '"symbol": 3'),
        lambda line: line.replace("messages", "talk").replace("conversations", "talk")
        .replace('"input"', '"talk"'),
        lambda line: line.replace('"user"', '"system"').replace('"human"', '"system"')
        .replace('"output": "', '"output": 1, "x": "'),
        lambda line: "[]",
    ],
    ids=["cut off", "kind", "no symbol", "number", "no text", "role", "list"],
)  # fmt: skip
def test_the_line_is_named_when_it_is_not_of_the_form(form: formats.Format, change) -> None:  # type: ignore[no-untyped-def]
    good = formats.to_jsonl(form, [code_bases.sample()]).decode()
    bad = change(good.rstrip("\n"))
    assert bad != good.rstrip("\n")
    with pytest.raises(errors.InvalidInputError, match=f"line 2 is not of the {form}"):
        formats.from_jsonl(form, f"{good}{bad}\n".encode())


def test_nothing_is_read_when_there_is_nothing() -> None:
    for form in formats.Format:
        assert formats.from_jsonl(form, b"") == list[samples.Sample]()
