"""`LocalTeacherProvider` against a server of another project, with a real model behind it.

The embedded base can't write JSON, and this server takes a schema and ignores it: what is shown is
the wire, the counting and the repair.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from services.distiller import spending
from services.distiller.providers import base, language_model, local, prompts
from shared import errors
from shared.models import embedded
from tests.contract import model_server
from tests.unit.distiller import fakes

pytestmark = pytest.mark.skipif(
    bool(model_server.missing()),
    reason=f"transformers serve needs {model_server.missing()}: pip install transformers[serving]",
)
CHECKPOINT = pathlib.Path(embedded.__file__).with_name("checkpoint")
ANSWER_S = 300.0


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with model_server.serving(CHECKPOINT, tmp_path_factory.mktemp("server")) as found:
        yield found


def _teacher(
    endpoint: str, ledger: spending.Ledger, model: str = str(CHECKPOINT)
) -> local.LocalTeacherProvider:
    terms = language_model.Terms(ledger, ANSWER_S, retries=0)
    return local.LocalTeacherProvider(endpoint, model, terms)


async def test_completion_comes_back_when_a_real_server_is_asked(endpoint: str) -> None:
    teacher = _teacher(endpoint, fakes.ledger())
    told = await teacher._complete([prompts.Turn("user", "What is the capital of France?")])
    await teacher.aclose()
    assert told.text
    assert told.refusal is None
    assert told.tokens_in is not None and told.tokens_in > spending.tokens("France")
    assert told.tokens_out is not None and told.tokens_out > 0


async def test_answer_is_counted_and_repaired_once_when_the_model_writes_no_json(
    endpoint: str,
) -> None:
    ledger = fakes.ledger()
    teacher = _teacher(endpoint, ledger)
    request = base.QARequest(topic="", queries=("What is the capital of France?",), task_id="t1")
    with pytest.raises(errors.TeacherError, match="also after it was asked to repair it"):
        await teacher.generate_qa(request)
    await teacher.aclose()
    spent = ledger.of_task("t1")
    assert (spent.calls, spent.estimated_calls, spent.dollars) == (2, 0, 0.0)
    assert spent.tokens_in > 2 * 100
    assert spent.tokens_out > 0


async def test_error_is_typed_when_the_server_has_another_model(endpoint: str) -> None:
    ledger = fakes.ledger()
    teacher = _teacher(endpoint, ledger, "nobody/has-this-model")
    with pytest.raises(errors.TeacherError, match="nobody/has-this-model"):
        await teacher.generate_qa(base.QARequest(topic="", queries=("Who?",), task_id="t1"))
    await teacher.aclose()
    assert ledger.of_task("t1").calls == 0
