from __future__ import annotations

import dataclasses

import pytest

from services.distiller.codebase.lessons import checks, parsing, source, verdicts
from shared.flight import samples
from tests.unit.distiller.codebase import code_bases

EVERY = code_bases.definitions()
OF = dataclasses.replace(
    EVERY["Halves.of"], tests=("def test_half() -> None:\n    assert Halves().of(3) == 1",)
)
REAL = source.dedented(OF.text)
EXPLAIN, WRITE, COMPLETE = samples.Kind.EXPLAIN, samples.Kind.WRITE, samples.Kind.COMPLETE
REFACTOR, TEST, FIX = samples.Kind.REFACTOR, samples.Kind.TEST, samples.Kind.FIX


def reason(**changed: object) -> verdicts.Reason | None:
    """Why a sample of `Halves.of` is rejected."""
    definitions = {(one.path, one.symbol): one for one in (*EVERY.values(), OF)}
    check = checks.Checks(
        definitions, lambda text, path: text.replace("hunter2", "…"), parsing.parses
    )
    wrong = check.wrong(code_bases.sample(OF, **changed))
    return wrong[0] if wrong else None


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": WRITE, "output": REAL},
        {"kind": WRITE, "output": REAL.replace("half = ", "half  =  ")},
        {"kind": EXPLAIN, "input": REAL, "output": "The half of a number, rounded down."},
        {"kind": FIX, "input": REAL.replace("//", "/"), "output": REAL},
        {"kind": REFACTOR, "input": REAL.replace("//", "/"), "output": REAL},
        {"kind": TEST, "input": REAL, "output": OF.tests[0]},
        {
            "kind": COMPLETE,
            "instruction": "",
            "input": OF.text.partition("half = ")[0],
            "output": "half = number // 2",
        },
    ],
    ids=["write", "layout", "explain", "fix", "refactor", "test", "complete"],
)
def test_a_sample_is_kept_when_nothing_is_wrong_with_it(changed: dict[str, object]) -> None:
    assert reason(**changed) is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"output": " \n"}, verdicts.Reason.EMPTY),
        ({"instruction": "", "input": ""}, verdicts.Reason.EMPTY),
        ({"instruction": "", "output": REAL}, verdicts.Reason.EMPTY),
        ({"input": "x" * 12_001, "output": REAL}, verdicts.Reason.LENGTH),
        ({"output": "x" * 6_001}, verdicts.Reason.LENGTH),
        ({"input": REAL, "output": REAL}, verdicts.Reason.SAME),
        ({"input": "password = hunter2", "output": REAL}, verdicts.Reason.SECRET),
        ({"instruction": "Use hunter2.", "output": REAL}, verdicts.Reason.SECRET),
        ({"output": REAL.replace("return half", "return (half")}, verdicts.Reason.SYNTAX),
        ({"output": REAL.replace("return half", "return number")}, verdicts.Reason.ABSENT),
        ({"symbol": "Halves.gone", "output": REAL}, verdicts.Reason.ABSENT),
        ({"kind": EXPLAIN, "input": REAL, "output": "Half it"}, verdicts.Reason.PROSE),
        ({"kind": EXPLAIN, "input": "x", "output": REAL}, verdicts.Reason.PROSE),
        ({"kind": EXPLAIN, "output": "half_of = number // two"}, verdicts.Reason.PROSE),
        ({"kind": TEST, "output": "def test_it():\n    assert 1"}, verdicts.Reason.OFF),
        ({"kind": TEST, "output": "def test_it():\n    Halves().of(3)"}, verdicts.Reason.OFF),
        ({"kind": TEST, "output": "assert of(3) == 1"}, verdicts.Reason.OFF),
        (
            {"kind": TEST, "output": "def test_it():\n    assert of(3) == 1"},
            verdicts.Reason.ABSENT,
        ),
        ({"kind": FIX, "input": REAL + "\n# so", "output": REAL}, verdicts.Reason.SAME),
        ({"kind": FIX, "input": "def of(:", "output": REAL}, verdicts.Reason.SYNTAX),
        (
            {"kind": COMPLETE, "instruction": "", "input": OF.signature, "output": "\n  x = 1"},
            verdicts.Reason.ABSENT,
        ),
        (
            {
                "kind": COMPLETE,
                "instruction": "",
                "input": OF.text.partition("half = ")[0],
                "output": "half = number // ",
            },
            verdicts.Reason.SYNTAX,
        ),
    ],
)
def test_a_sample_is_rejected_when_something_is_wrong(
    changed: dict[str, object], expected: verdicts.Reason
) -> None:
    assert reason(**changed) == expected


def test_a_teachers_test_need_not_be_in_the_repository() -> None:
    made = "def test_it():\n    assert Halves().of(3) == 1  # as it should"
    assert reason(kind=TEST, output=made, teacher="local:tiny") is None


def test_what_is_rejected_for_a_secret_is_written_down_without_it() -> None:
    secret = verdicts.Rejected(
        code_bases.sample(OF, input="hunter2"), verdicts.Reason.SECRET, "its input"
    )
    other = verdicts.Rejected(
        code_bases.sample(OF, input="number"), verdicts.Reason.ABSENT, "not there"
    )
    lines = verdicts.to_jsonl([secret, other]).decode().splitlines()
    assert "hunter2" not in lines[0]
    assert "Halves.of" in lines[0]
    assert '"input": "number"' in lines[1]
    assert verdicts.counts([other, secret, other]) == {"secret": 1, "absent": 2}


@pytest.mark.parametrize(
    ("language", "good", "bad"),
    [
        ("python", "def f():\n    pass", "def f(:"),
        ("javascript", "function f() { return 1; }", "function f( { return 1; }"),
        ("java", "int f() { return 1; }", "int f( { return 1; }"),
        ("go", "func f() int { return 1 }", "func f( int { return 1 }"),
        ("rust", "fn f() -> i32 { 1 }", "fn f( -> i32 { 1 }"),
    ],
)
def test_text_parses_when_it_is_of_the_language(language: str, good: str, bad: str) -> None:
    assert parsing.parses(good, language)
    assert not parsing.parses(bad, language)
    assert not parsing.parses(good, "cobol")
