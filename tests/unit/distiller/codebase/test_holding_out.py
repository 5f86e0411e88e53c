from __future__ import annotations

import dataclasses

from services.distiller.codebase import chunks
from services.distiller.codebase.lessons import holding_out, verdicts
from shared.flight import samples
from tests.unit.distiller.codebase import code_bases

SHARE = 0.15
BODY = "    total = first(a) + second(b)\n    return total * third(c) - fourth(d)"


def definition(symbol: str, body: str) -> chunks.Chunk:
    text = f"def {symbol}(a, b, c, d):\n{body}"
    return code_bases.definitions(text, "a.py")[symbol]


def named(held_out: bool, count: int) -> list[str]:
    """Symbols that are held out, or that are not."""
    every = (f"f{at}" for at in range(1000))
    return [one for one in every if holding_out.is_held_out("a.py", one, SHARE) == held_out][:count]


def lesson(chunk: chunks.Chunk, **changed: object) -> samples.Sample:
    return code_bases.sample(chunk, **changed)


def leaked(made: list[samples.Sample], definitions: list[chunks.Chunk]) -> list[samples.Sample]:
    sifted = holding_out.clean(holding_out.marked(made, SHARE), definitions, SHARE)
    assert all(one.reason == verdicts.Reason.LEAKED for one in sifted.rejected)
    return [one.sample for one in sifted.rejected]


def test_the_share_is_kept_and_the_side_is_always_the_same() -> None:
    every = [holding_out.is_held_out("a.py", f"f{at}", SHARE) for at in range(4000)]
    assert abs(sum(every) / len(every) - SHARE) < 0.02
    assert every == [holding_out.is_held_out("a.py", f"f{at}", SHARE) for at in range(4000)]
    assert not any(holding_out.is_held_out("a.py", f"f{at}", 0.0) for at in range(100))
    assert all(holding_out.is_held_out("a.py", f"f{at}", 1.0) for at in range(100))


def test_all_samples_of_a_definition_are_on_its_side() -> None:
    chunk = definition(named(True, 1)[0], BODY)
    made = [lesson(chunk, kind=kind) for kind in samples.Kind]
    assert all(one.held_out for one in holding_out.marked(made, SHARE))


def test_a_training_sample_goes_when_it_holds_a_run_of_a_held_out_body() -> None:
    (secret,), (near, far) = named(True, 1), named(False, 2)
    held = definition(secret, BODY)
    copy = definition(near, BODY.replace("return total", "told = total"))
    other = definition(far, "    return [run(one) for one in a if one not in b and c or d]")
    made = [lesson(one) for one in (held, copy, other)]
    assert [one.symbol for one in leaked(made, [held, copy, other])] == [near]
    # Also where the copy is in the question, and where the held-out one became no sample.
    asked = lesson(other, input=f"x = 1\n{BODY}")
    assert [one.symbol for one in leaked([asked, made[2]], [held, other])] == [far]


def test_a_training_sample_stays_when_the_run_is_short_or_everybody_has_it() -> None:
    (secret,), some = named(True, 1), named(False, 5)
    held = definition(secret, BODY)
    short = definition(some[0], "    total = first(a) + second(b)\n    return a")
    assert leaked([lesson(short)], [held, short]) == []
    common = [definition(name, BODY) for name in some]
    assert leaked([lesson(common[0])], [held, *common]) == []
    assert leaked([lesson(common[0])], [held, *common[:2]]) == [lesson(common[0])]


def test_a_test_is_not_trained_on_when_a_held_out_definition_has_it_too() -> None:
    (secret,), (other,) = named(True, 1), named(False, 1)
    test = "def test_sums():\n    assert total(1, 2) + other(3, 4) == 10 and total(0, 0) == 0"
    held, trained = definition(secret, "    return a"), definition(other, "    return b")
    made = [lesson(one, kind=samples.Kind.TEST, output=test) for one in (held, trained)]
    assert [one.symbol for one in leaked(made, [held, trained])] == [other]


def test_a_class_counts_by_its_methods() -> None:
    (secret,), (other,) = named(True, 1), named(False, 1)
    text = f"class {secret}:\n    def f(self, a, b, c, d):\n{BODY.replace('    ', ' ' * 8)}"
    every = code_bases.definitions(text, "a.py")
    trained = definition(other, BODY)
    is_held = holding_out.is_held_out("a.py", f"{secret}.f", SHARE)
    assert bool(leaked([lesson(trained)], [*every.values(), trained])) == is_held
    whole = dataclasses.replace(every[secret], form=chunks.Form.FUNCTION)
    assert leaked([lesson(trained)], [whole, trained])


def test_a_training_sample_goes_when_it_holds_a_held_out_definition_of_a_short_body() -> None:
    (secret,), (far,) = named(True, 1), named(False, 1)
    held = definition(secret, "    return first(a) + second(b)")
    other = definition(far, "    return [run(one) for one in a if one not in b and c or d]")
    whole = lesson(
        other, kind=samples.Kind.WRITE, input="Write both.", output=f"{other.text}\n{held.text}"
    )
    assert [one.symbol for one in leaked([whole], [held, other])] == [far]
    # What says the same in its own place is how the code base writes.
    alike = lesson(other, input="x = 1\n    return first(a) + second(b)")
    assert leaked([alike], [held, other]) == []


def test_a_lonely_sign_of_a_string_hides_nothing_that_follows() -> None:
    (secret,), (far,) = named(True, 1), named(False, 1)
    held = definition(secret, BODY)
    other = definition(far, "    return [run(one) for one in a if one not in b and c or d]")
    told = f"# It parts at ` here.\n{held.text}\n# Nor at ` here.\n{other.text}"
    assert [one.symbol for one in leaked([lesson(other, output=told)], [held, other])] == [far]
