"""Whether a question that no card fits is worth a learning task.

Two signals: no card fits, which the router found, and the base model was unsure of its own answer.
Small talk is told by its words, since a small base model says "I do not know." to a joke as well.
Pure; see docs/adr/0014.
"""

from __future__ import annotations

from services.factory import dissonance
from shared import answer_signals, learning_settings

INSIST = 'to have it learned all the same: make teach topic="…"'


def reason_against(
    event: dissonance.CognitiveDissonance,
    small_talk: float,
    limits: learning_settings.Judgement,
) -> str:
    """Why nothing is learned from a question; nothing where it is.

    Args:
        event: with the signals of the base model's answer, where they came.
        small_talk: cosine of the question to the nearest known piece of small talk.
        limits: of the signals.
    """
    if not limits.enabled:
        return ""
    if reason := against_small_talk(small_talk, limits):
        return reason
    signals = event.signals
    if signals is None or is_unsure(signals, limits):
        return ""
    return f"nothing to learn: the base model seems sure of its answer; {INSIST}"


def against_small_talk(small_talk: float, limits: learning_settings.Judgement) -> str:
    """Why nothing is learned from what may be small talk; nothing where it is.

    Args:
        small_talk: see `reason_against`.
        limits: of it.
    """
    if not limits.enabled or small_talk < limits.small_talk:
        return ""
    return f"nothing to learn: this looks like small talk; {INSIST}"


def is_unsure(signals: answer_signals.AnswerSignals, limits: learning_settings.Judgement) -> bool:
    """Whether the base model was unsure of its answer; of none it never is sure."""
    return (
        signals.admits_ignorance
        or signals.tokens == 0
        or signals.mean_logprob < limits.unsure_logprob
        or signals.mean_entropy > limits.unsure_entropy
        or (
            signals.semantic_entropy is not None
            and signals.semantic_entropy > limits.unsure_semantic_entropy
        )
    )
