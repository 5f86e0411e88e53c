from __future__ import annotations

import pathlib

import pytest

from services.distiller.codebase import history
from tests.unit.distiller.codebase import code_bases

OLD = "def half(n):\n    result = n / 2\n    log(n)\n    return int(result)\n"
NEW = "def half(n):\n    result = n // 2\n    log(n)\n    return result\n"
OTHER = "\n\ndef other(n):\n    return n + 1\n"


def pairs(root: pathlib.Path, commit: str, text: str, commits: int = 50) -> dict[str, history.Pair]:
    """By symbol."""
    now = code_bases.definitions(text, "a.py")
    found = history.pairs(root, commit, commits, list(now.values()))
    return {key.partition("\0")[2]: pair for key, pair in found.items()}


def test_a_pair_is_found_when_a_commit_changed_a_definition(tmp_path: pathlib.Path) -> None:
    made = code_bases.History(tmp_path)
    made.commit("Add halves", a__py=OLD + OTHER)
    changed = made.commit("Halve without floats", a__py=NEW + OTHER)
    head = made.commit("Add something else here", b__py="x = 1\n")
    found = pairs(tmp_path, head, NEW + OTHER)
    assert found == {"half": history.Pair(OLD.strip(), "Halve without floats", changed)}


def test_the_commit_counts_that_made_it_what_it_is_when_several_changed_it(
    tmp_path: pathlib.Path,
) -> None:
    made = code_bases.History(tmp_path)
    made.commit("Add halves", a__py=OLD)
    made.commit("Halve without floats", a__py=NEW)
    newest = NEW.replace("log(n)", "log('half', n)")
    head = made.commit("Log what is halved", a__py=newest)
    assert pairs(tmp_path, head, newest)["half"].before == NEW.strip()


def test_methods_are_found_when_they_stand_in_classes(tmp_path: pathlib.Path) -> None:
    made = code_bases.History(tmp_path)

    def within(text: str) -> str:
        return "class A:\n" + "".join(f"    {line}\n" for line in text.splitlines())

    made.commit("Add halves", a__py=within(OLD))
    head = made.commit("Halve without floats", a__py=within(NEW))
    assert pairs(tmp_path, head, within(NEW))["A.half"].before == OLD.strip()


def test_nothing_is_found_when_the_after_is_gone_or_too_long_ago(tmp_path: pathlib.Path) -> None:
    made = code_bases.History(tmp_path)
    made.commit("Add halves", a__py=OLD)
    head = made.commit("Halve without floats", a__py=NEW)
    assert pairs(tmp_path, head, OLD) == {}
    head = made.commit("Add something else here", b__py="x = 1\n")
    assert pairs(tmp_path, head, NEW, commits=1) == {}


@pytest.mark.parametrize(
    "after",
    [
        OLD.replace("    log(n)", "    log(\n        n\n    )  # of n"),
        OLD.replace("def half(n):\n", 'def half(n):\n    """The half of n."""\n'),
        OLD.replace("result", "half_of_it"),
        "def half(n):\n    with lock:\n        yield from numbers\n    raise StopIteration\n",
    ],
    ids=["layout and comments", "docstring", "another name", "another function"],
)
def test_a_change_says_nothing_when_the_code_stays_or_all_goes(after: str) -> None:
    assert not history.differs(OLD, after)
    assert history.differs(OLD, NEW)


def test_a_rename_counts_when_it_is_not_the_same_throughout() -> None:
    assert history.differs(
        "def f(a, b):\n    x()\n    g(a, b)", "def f(a, b):\n    x()\n    g(b, b)"
    )


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        ("fix(router): Cards are found by name (#123)", "Cards are found by name"),
        ("[JIRA-12] Tests run in parallel.", "Tests run in parallel"),
        ("Ask ann.lee@mail.de about cards", "Ask <e-mail> about cards"),
        ("Merge branch 'main' into other", ""),
        ("wip on the router again", ""),
        ("Update", ""),
        ("Long " * 60, ""),
    ],
)
def test_a_subject_is_told_without_tickets_and_only_when_it_says_something(
    subject: str, told: str
) -> None:
    assert history.told(subject) == told
