"""`get_cloud_provider`: builds the teachers that config.yaml names."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Literal

from services.distiller import spending
from services.distiller.providers import base, by_document, failover, language_model, recorded
from shared import errors
from shared import settings as config

OPENAI_KEY, ANTHROPIC_KEY = "OPENAI_API_KEY", "ANTHROPIC_API_KEY"
_READERS = frozenset({"documents", "recorded"})
"""Teachers that make sense of a request for a document."""

_Kind = Literal["openai", "anthropic", "local", "documents", "recorded"]


def get_cloud_provider(
    evolution: config.Evolution,
    make_documents: Callable[[], base.CloudProvider],
    environ: Mapping[str, str],
    ledger: spending.Ledger,
    clock: Callable[[], float] = time.monotonic,
    on_failure: Callable[[str, errors.SkillmeshError], None] = lambda *_: None,
) -> base.CloudProvider:
    """The configured teacher with its fallbacks.

    Args:
        evolution: section `evolution` of the settings.
        make_documents: builds the teacher that reads the knowledge folder.
        environ: holds the keys.
        ledger: keeps what they cost within the budget.
        clock: seconds, monotonic.
        on_failure: is told the name of a teacher that failed, and why.

    Raises:
        errors.ConfigError: a key, an endpoint or a file is missing; the message names it.
    """
    # One reader of the folder serves the chain and the requests that name a document.
    make_documents = functools.cache(make_documents)
    builder = _Builder(make_documents, environ, evolution, ledger)
    kind: _Kind
    if evolution.provider_type == "auto":
        kind = "openai" if environ.get(OPENAI_KEY, "").strip() else "documents"
    else:
        kind = evolution.provider_type
    first = config.Teacher(
        provider_type=kind,
        model=evolution.model,
        endpoint=evolution.endpoint,
        timeout_s=evolution.timeout_s,
    )
    chain = [builder.build(first, "evolution")]
    for at, teacher in enumerate(evolution.fallbacks):
        chain.append(builder.build(teacher, f"evolution.fallbacks[{at}]"))
    whole = failover.Failover(chain, clock, evolution.breaker, on_failure)
    return whole if kind in _READERS else by_document.ByDocument(make_documents(), whole)


class _Builder:
    """Builds one teacher of the chain; `place` names its section of config.yaml in errors."""

    def __init__(
        self,
        make_documents: Callable[[], base.CloudProvider],
        environ: Mapping[str, str],
        evolution: config.Evolution,
        ledger: spending.Ledger,
    ) -> None:
        self._make_documents = make_documents
        self._environ = environ
        self._evolution = evolution
        self._ledger = ledger

    def build(self, teacher: config.Teacher, place: str) -> base.CloudProvider:
        # The SDKs take seconds to import and 70 MB: whoever teaches from documents alone is
        # spared them.
        match teacher.provider_type:
            case "openai":
                from services.distiller.providers import openai

                key = self._key(OPENAI_KEY, place)
                self._check_rate(teacher.model or openai.DEFAULT_MODEL, place)
                return openai.OpenAIProvider(
                    key, teacher.model, teacher.endpoint, self._terms(teacher)
                )
            case "anthropic":
                from services.distiller.providers import anthropic

                key = self._key(ANTHROPIC_KEY, place)
                self._check_rate(teacher.model or anthropic.DEFAULT_MODEL, place)
                return anthropic.AnthropicProvider(
                    key, teacher.model, teacher.endpoint, self._terms(teacher)
                )
            case "local":
                from services.distiller.providers import local

                if not teacher.endpoint:
                    raise errors.ConfigError(
                        f"{place}.endpoint: provider_type local needs the base URL of its "
                        "server, such as http://127.0.0.1:11434/v1"
                    )
                return local.LocalTeacherProvider(
                    teacher.endpoint, teacher.model, self._terms(teacher)
                )
            case "documents":
                return self._make_documents()
            case "recorded":
                if self._evolution.recordings is None:
                    raise errors.ConfigError(
                        f"evolution.recordings: provider_type recorded in {place} needs the path "
                        "of a JSONL file of recorded answers"
                    )
                return recorded.RecordedProvider(self._evolution.recordings)

    def _terms(self, teacher: config.Teacher) -> language_model.Terms:
        return language_model.Terms(
            ledger=self._ledger,
            timeout_s=teacher.timeout_s,
            retries=self._evolution.retries,
            max_output_tokens=self._evolution.max_output_tokens,
        )

    def _check_rate(self, model: str, place: str) -> None:
        budget = self._evolution.budget
        if (budget.task_dollars or budget.day_dollars) and model not in self._evolution.rates:
            raise errors.ConfigError(
                f"evolution.rates.{model}: {place} names this model and evolution.budget limits "
                "dollars; add what a million of its tokens cost, as {input: …, output: …}"
            )

    def _key(self, variable: str, place: str) -> str:
        key = self._environ.get(variable, "").strip()
        if not key:
            raise errors.ConfigError(
                f"{place}.provider_type: {variable} is not set in the environment; set it or "
                "choose another provider_type"
            )
        if not (key.isascii() and key.isprintable()):
            # No header can hold it: the HTTP library would quote it in its error.
            raise errors.ConfigError(
                f"{place}.provider_type: {variable} holds characters that no key has, such as a "
                "line break; copy the key again"
            )
        return key
