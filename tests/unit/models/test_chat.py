"""Conversations as the chat templates of base models say them."""

from __future__ import annotations

import copy
import dataclasses

import pytest

from shared import errors
from shared.models import base as bases
from shared.models import chat
from tests import tiny_model

SYSTEM, USER, ASSISTANT = chat.SYSTEM, chat.USER, chat.ASSISTANT
_ALTERNATING = (
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
)
_PASSING_OVER = "{% for m in messages if m['role'] != 'system' %}[{{ m['content'] }}]{% endfor %}"


@pytest.fixture(scope="module")
def embedded() -> bases.BaseModel:
    return bases.load(bases.EMBEDDED)


def turns(*said: str) -> list[chat.Message]:
    """`u:Hi` is a user's message."""
    roles = {"s": SYSTEM, "u": USER, "a": ASSISTANT}
    return [chat.Message(roles[one[0]], one[2:]) for one in said]


def with_template(template: str) -> bases.BaseModel:
    base = tiny_model.tiny_base(0)
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = template
    return dataclasses.replace(base, tokenizer=tokenizer)


def said(base: bases.BaseModel, *messages: str) -> str:
    text: str = base.tokenizer.decode(base.chat_ids(turns(*messages)))
    return text


@pytest.mark.parametrize("question", ["Who built it?", "", " a\n<|end|>b ", "日本 é"])
def test_one_question_is_said_as_the_template_says_it(
    embedded: bases.BaseModel, question: str
) -> None:
    message = [{"role": "user", "content": question}]
    expected = embedded.tokenizer.apply_chat_template(
        message, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert embedded.prompt_ids(question) == embedded.chat_ids(turns(f"u:{question}")) == expected


def test_embedded_base_reads_system_messages_in_front_of_the_first_question(
    embedded: bases.BaseModel,
) -> None:
    told = "s:Be short.", "s:Be kind.", "u:Hi", "a:Hello.", "u:Who?"
    expected = "u:Be short.\n\nBe kind.\n\nHi", "a:Hello.", "u:Who?"
    assert embedded.chat_ids(turns(*told)) == embedded.chat_ids(turns(*expected))
    assert (
        embedded.chat_ids(turns(*told)).count(embedded.tokenizer.convert_tokens_to_ids("<|user|>"))
        == 2
    )


def test_system_messages_have_a_turn_of_their_own_where_the_template_has_one() -> None:
    base = with_template("{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}")
    assert said(base, "s:A.", "s:B.", "u:Hi") == "[system]A.\n\nB.[user]Hi"
    assert said(base, "u:Hi") == "[user]Hi"


def test_system_messages_are_never_lost_when_the_template_passes_them_over() -> None:
    assert said(with_template(_PASSING_OVER), "s:A.", "u:Hi", "a:Yes", "u:So") == (
        "[A.\n\nHi][Yes][So]"
    )
    assert said(with_template(_ALTERNATING), "s:A.", "u:Hi") == "[user]A.\n\nHi"


def test_conversation_is_refused_with_the_templates_reason_when_it_does_not_fit() -> None:
    with pytest.raises(errors.InvalidInputError, match="roles must alternate"):
        with_template(_ALTERNATING).chat_ids(turns("u:Hi", "u:There"))


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([], "messages is empty"),
        ([chat.Message("tool", "x")], r"messages\[0\]\.role is 'tool'"),
        (turns("u:a", "a:b", "s:c", "u:d"), r"messages\[2\]\.role is system behind assistant"),
        (turns("u:a", "a:b"), r"messages\[1\]\.role is assistant"),
        (turns("s:a"), r"messages\[0\]\.role is system; the last"),
        (turns("s:a", "u: \n"), r"messages\[1\]\.content is empty"),
        (turns(*["u:a"] * 1_001), "1,001 entries"),
    ],
)
def test_conversation_is_refused_with_the_position_when_turns_are_wrong(messages, match) -> None:
    with pytest.raises(errors.InvalidInputError, match=match):
        chat.check(messages)


def test_conversation_is_taken_when_turns_are_right() -> None:
    chat.check(turns("s:a", "s:b", "u:c", "u:d", "a:", "u:e"))
