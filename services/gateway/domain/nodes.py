"""Inference nodes."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Swap:
    """How fast an inference node took in a card."""

    card: str
    fetch_ms: float
    swap_ms: float


@dataclasses.dataclass(frozen=True)
class Node:
    """One inference node, as it tells itself."""

    base_model: str
    served: tuple[str, ...]
    """Cards that requests may choose, `name@digest`; of two versions the newer one later."""
    resident: tuple[str, ...]
    """Those of them that are in memory."""
    revision: int
    store_connected: bool
    swaps: tuple[Swap, ...] = ()
    id: str = ""
    """Another one in every process."""
    pinned: tuple[str, ...] = ()
    """Resident cards that stay in memory."""
    running: int = 0
    """Answers that are being generated."""
    waiting: int = 0
    """Requests that wait for their turn."""
    most_rows: int = 0
    """Answers that are generated together at most; 0: it does not say."""
    queue: int = 0
    """Requests that may wait; more are refused."""
    held_bytes: int = 0
    """Memory of the resident cards."""
    base_fingerprint: str = ""
    max_new_tokens: int = 0
    """Of an answer whose request does not say."""
    context_tokens: int = 0
    """Prompt and answer together; 0: the model does not say."""
    fetches_cards: bool = False
    """Whether any card may be asked for: it fetches one that it does not serve yet."""


Status = Literal["ready", "open", "half-open", "gone"]
"""`open`: it is reached, but failed and is left alone for a while; `half-open`: one request finds
out whether it is back; `gone`: it does not answer, or says that it does not serve."""


@dataclasses.dataclass(frozen=True)
class NodeState(Node):
    """A node as the gateway sees it: what it told last, and how requests to it end."""

    address: str = ""
    """`host:port`, or the URL of a server that speaks OpenAI's protocol."""
    status: Status = "gone"
    reason: str = ""
    """Why it is not ready."""
    in_flight: int = 0
    """Requests of this gateway."""
    requests: tuple[tuple[str, int], ...] = ()
    """By outcome, since the gateway began: `ok`, `cancelled`, or the class of the error."""
    retries: int = 0
    """Requests that went on to another node, or here again, after this one had failed."""
