"""What people are shown of a cluster, as plain frozen values.

Knows nothing about protobuf; see `services.gateway.calls`.
"""

from services.gateway.domain.answers import Answer
from services.gateway.domain.cards import Card, Store
from services.gateway.domain.memory import Agent, Hierarchy
from services.gateway.domain.nodes import Node, Swap
from services.gateway.domain.requests import (
    Asked,
    Continuation,
    Conversation,
    Likely,
    Message,
    Piece,
    Sampling,
    TokenLogprob,
)
from services.gateway.domain.tasks import (
    CANCELLED,
    COMPLETED,
    ENDED,
    FAILED,
    CardFeedback,
    CodeBase,
    FeedbackTaken,
    NightlySkill,
    StageTime,
    Task,
    Teacher,
    Teachers,
)

__all__ = [
    "CANCELLED",
    "COMPLETED",
    "ENDED",
    "FAILED",
    "Agent",
    "Answer",
    "Asked",
    "Card",
    "CardFeedback",
    "CodeBase",
    "Continuation",
    "Conversation",
    "FeedbackTaken",
    "Hierarchy",
    "Likely",
    "Message",
    "NightlySkill",
    "Node",
    "Piece",
    "Sampling",
    "StageTime",
    "Store",
    "Swap",
    "Task",
    "Teacher",
    "Teachers",
    "TokenLogprob",
]
