"""What people are shown of a cluster, as plain frozen values.

Knows nothing about protobuf; see `services.gateway.calls`.
"""

from services.gateway.domain.answers import Answer
from services.gateway.domain.cards import Card, CardRecord, Move, Residency, Store
from services.gateway.domain.layers import (
    Action,
    Channel,
    Layer,
    Measure,
    Member,
    SharedLayers,
)
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
from services.gateway.domain.routing import Bin, Router
from services.gateway.domain.tasks import (
    CANCELLED,
    COMPLETED,
    ENDED,
    FAILED,
    CodeBase,
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
    "Action",
    "Agent",
    "Answer",
    "Asked",
    "Bin",
    "Card",
    "CardRecord",
    "Channel",
    "CodeBase",
    "Continuation",
    "Conversation",
    "Hierarchy",
    "Layer",
    "Likely",
    "Measure",
    "Member",
    "Message",
    "Move",
    "NightlySkill",
    "Node",
    "Piece",
    "Residency",
    "Router",
    "Sampling",
    "SharedLayers",
    "StageTime",
    "Store",
    "Swap",
    "Task",
    "Teacher",
    "Teachers",
    "TokenLogprob",
]
