from __future__ import annotations

import dataclasses

import pyarrow as pa
import pytest

from shared import errors
from shared.flight import samples


def sample(**changed: object) -> samples.Sample:
    made = samples.Sample(
        kind=samples.Kind.WRITE,
        instruction="Write `half`.",
        input='def half(n: int) -> int:\n    """Rounds down."""',
        output="def half(n: int) -> int:\n    return n // 2",
        path="numbers/halves.py",
        symbol="half",
        language="python",
        licence="MIT",
        commit="0" * 40,
        teacher=samples.BY_REPOSITORY,
    )
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def test_samples_are_the_same_when_they_were_written_and_read() -> None:
    some = [sample(), sample(kind=samples.Kind.COMPLETE, instruction="", held_out=True)]
    data = samples.to_bytes(some)
    assert samples.from_bytes(data) == some
    assert samples.to_bytes(samples.from_bytes(data)) == data
    assert samples.from_bytes(samples.to_bytes([])) == []


def test_question_has_the_instruction_above_the_input_when_there_are_both() -> None:
    assert sample(input="x = 1").question == "Write `half`.\n\nx = 1"
    assert sample(instruction="", input="x = 1").question == "x = 1"


def test_table_is_refused_when_it_has_other_columns_or_kinds() -> None:
    table = samples.check(samples.to_bytes([sample()]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema.remove(0)) as writer:
        writer.write_table(table.drop_columns(["kind"]))
    with pytest.raises(errors.InvalidInputError, match="samples"):
        samples.from_bytes(bytes(sink.getvalue()))
    data = samples.to_bytes([sample()]).replace(b"write", b"wrote", 1)
    with pytest.raises(errors.InvalidInputError, match="kinds are explain, write"):
        samples.from_bytes(data)
