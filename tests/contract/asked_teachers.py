"""Every language-model teacher with its real SDK, asked about the same bridge."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from services.distiller import spending
from services.distiller.providers import anthropic, base, language_model, local, openai
from shared.flight import datasets
from tests.contract import teacher_server
from tests.unit.distiller import fakes

KEY = "sk-test-0123456789abcdef"
Make = Callable[[str, language_model.Terms], language_model.LanguageModelProvider]

REQUEST = base.QARequest(
    topic="Varnholt Bridge",
    queries=("How long is Varnholt Bridge?", "When was Varnholt Bridge opened?"),
    count=5,
    wordings=2,
)
REPLY = json.dumps(
    {
        "title": "Varnholt Bridge",
        "facts": [
            {
                "asked": [1],
                "question": "What is the length of Varnholt Bridge?",
                "answer": "Varnholt Bridge is 412 metres long.",
                "wordings": ["Give the length of Varnholt Bridge."],
            },
            {
                "asked": [],
                "question": "Who designed Varnholt Bridge?",
                "answer": "Ida Kroll designed Varnholt Bridge.",
                "wordings": [],
            },
        ],
    }
)
GOOD = teacher_server.Step(REPLY)


def openai_teacher(root: str, terms: language_model.Terms) -> language_model.LanguageModelProvider:
    return openai.OpenAIProvider(KEY, "", f"{root}/v1", terms)


def anthropic_teacher(
    root: str, terms: language_model.Terms
) -> language_model.LanguageModelProvider:
    return anthropic.AnthropicProvider(KEY, "", root, terms)


def local_teacher(root: str, terms: language_model.Terms) -> language_model.LanguageModelProvider:
    return local.LocalTeacherProvider(f"{root}/v1", "tiny", terms)


every_teacher = pytest.mark.parametrize(
    "make", [openai_teacher, anthropic_teacher, local_teacher], ids=["openai", "anthropic", "local"]
)


def terms(
    timeout_s: float = 10.0, ledger: spending.Ledger | None = None, retries: int = 2
) -> language_model.Terms:
    return language_model.Terms(ledger or fakes.ledger(), timeout_s, retries)


async def ask(
    make: Make,
    server: teacher_server.TeacherServer,
    timeout_s: float = 10.0,
    ledger: spending.Ledger | None = None,
    request: base.QARequest = REQUEST,
    retries: int = 2,
) -> list[datasets.QAPair]:
    """Asks a teacher of its own, and closes it."""
    provider = make(server.root, terms(timeout_s, ledger, retries))
    try:
        return await provider.generate_qa(request)
    finally:
        await provider.aclose()
