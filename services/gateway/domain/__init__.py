"""What people are shown of a cluster, as plain frozen values.

Knows nothing about protobuf; see `services.gateway.calls`.
"""

from services.gateway.domain.answers import Answer, Whole
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
from services.gateway.domain.nodes import Node, NodeState, Status, Swap
from services.gateway.domain.requests import (
    Asked,
    Continuation,
    Conversation,
    Message,
    Piece,
    Sampling,
)
from services.gateway.domain.routes import Bin, Route, Router, feature
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
    gaps,
)
from services.gateway.domain.tokens import Likely, TokenLogprob

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
    "CardFeedback",
    "CardRecord",
    "Channel",
    "CodeBase",
    "Continuation",
    "Conversation",
    "FeedbackTaken",
    "Hierarchy",
    "Layer",
    "Likely",
    "Measure",
    "Member",
    "Message",
    "Move",
    "NightlySkill",
    "Node",
    "NodeState",
    "Piece",
    "Residency",
    "Route",
    "Router",
    "Sampling",
    "SharedLayers",
    "StageTime",
    "Status",
    "Store",
    "Swap",
    "Task",
    "Teacher",
    "Teachers",
    "TokenLogprob",
    "Whole",
    "feature",
    "gaps",
]
