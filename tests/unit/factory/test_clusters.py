from __future__ import annotations

import itertools

from services.factory import clusters, feedback, tasks
from tests import fake_router_peers
from tests.unit.factory import fakes

ZORBLAX = ("What does Zorblax trade?", "What does Zorblax eat?", "What does Zorblax drink?")
TARNOCK = ("Where lies old Tarnock mill?", "Who runs old Tarnock mill?")


def gaps(*queries: str, domain: str = "trade") -> list[tasks.TrainingTask]:
    return [fakes.task(f"t{at}", query, domain=domain) for at, query in enumerate(queries)]


def joined(found: list[tasks.TrainingTask], same_skill: float = 0.5) -> list[set[str]]:
    vectors_N_D = fake_router_peers.HashingEmbedder().embed([gap.trigger_query for gap in found])
    return [set(skill.tasks) for skill in clusters.skills(found, vectors_N_D, same_skill)]


def test_gaps_are_one_skill_when_they_are_about_the_same() -> None:
    assert joined(gaps(*ZORBLAX, *TARNOCK)) == [{"t0", "t1", "t2"}, {"t3", "t4"}]


def test_gaps_stay_apart_when_their_domains_differ() -> None:
    one, other = fakes.task("a", ZORBLAX[0], domain="x"), fakes.task("b", ZORBLAX[0], domain="y")
    assert joined([one, other]) == [{"a"}, {"b"}]


def test_gaps_stay_apart_when_nobody_can_compare_them() -> None:
    assert len(clusters.skills(gaps(*ZORBLAX), None, 0.1)) == 3


def test_what_was_taught_stays_alone_when_a_question_is_about_the_same() -> None:
    asked, taught = fakes.task("a", ZORBLAX[0]), fakes.task("b", ZORBLAX[0], topic=ZORBLAX[0])
    assert joined([asked, taught]) == [{"a"}, {"b"}]


def test_what_was_corrected_stays_alone_when_other_questions_are_about_the_same() -> None:
    told = tuple(feedback.Correction(query, "red salt", card="a@b") for query in ZORBLAX[:2])
    found = [fakes.task(f"t{at}", one.question, corrections=(one,)) for at, one in enumerate(told)]
    assert joined([*found, fakes.task("t2", ZORBLAX[2])]) == [{"t0"}, {"t1"}, {"t2"}]


def test_most_wanted_gap_leads_when_several_are_joined() -> None:
    found = [fakes.task("a", ZORBLAX[0]), fakes.task("b", ZORBLAX[1], demand=5)]
    vectors_N_D = fake_router_peers.HashingEmbedder().embed(list(ZORBLAX[:2]))
    [skill] = clusters.skills(found, vectors_N_D, 0.5)
    assert skill.tasks == ("b", "a")


def test_another_skill_begins_when_one_has_all_questions_that_a_task_takes() -> None:
    many = tuple(f"What does Zorblax trade on day {day}?" for day in range(tasks.MOST_QUERIES - 1))
    full = fakes.task("a", ZORBLAX[0], other_queries=many, demand=9)
    assert joined([full, fakes.task("b", ZORBLAX[1])]) == [{"a"}, {"b"}]


def test_each_teacher_and_base_is_come_to_once_when_skills_are_shared_out() -> None:
    rotation = clusters.Rotation(("p", "q", "r"), ("small", "large"))
    skills = [clusters.Skill((f"t{at}",), f"d{at // 4}") for at in range(13)]
    for turn in range(4):
        plan = rotation.shared_out(skills, turn)
        assert [skill.tasks for skill in plan] == [skill.tasks for skill in skills]
        for loaded in ([s.teacher for s in plan], [(s.teacher, s.base) for s in plan]):
            changes = sum(a != b for a, b in itertools.pairwise(loaded))
            assert changes == len(set(loaded)) - 1
        assert {skill.teacher for skill in plan} == {"p", "q", "r"}
    starts = [rotation.shared_out(skills[:1], turn)[0].teacher for turn in range(4)]
    assert starts == ["p", "q", "r", "p"]
