"""Settings of the inference nodes."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from shared import sections

MOST_CARDS = 4
"""That answer one question together."""


def _not_one(samples: int) -> int:
    if samples == 1:
        raise ValueError("one answer differs from no other; give 0 for none, or 2 and more")
    return samples


class Inference(sections.Section):
    """Serves the base model with its cards."""

    address: sections.Address = "127.0.0.1:7407"
    """Where it listens."""
    advertise: Annotated[str, pydantic.Field(pattern=r"^([^:\s]+:\d{1,5})?$")] = ""
    """`host:port` at which others reach it, as the card store tells it. Empty: where it listens;
    where that is everywhere, at this machine's first address that is not its own alone."""
    threads: sections.Count = 1
    """Threads of one generation."""
    max_new_tokens: sections.Count = 192
    """Longest answer, where a request does not say."""
    device: Annotated[str, pydantic.Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    """Where the model and its cards are: cpu, cuda or cuda:NUMBER."""
    batch_rows: sections.Count = 64
    """Answers that are generated together; more wait."""
    batch_tokens: sections.Count = 32_768
    """Another joins while so many tokens are enough for as many rows as the longest of them has,
    padding included: what the keys in memory, and the time of a step, are bounded by."""
    stream_interval_ms: Annotated[float, pydantic.Field(ge=0, le=1000)] = 40.0
    """Behind an answer's first token, those of so many milliseconds travel in one message, and of
    1.5 ms a stream where that is more: all that is sent takes time from the model. 0: each by
    itself, as long as the node keeps up."""
    card_memory_mib: sections.Positive = 1024
    """Memory for the weights of cards; those that were not used for long make room for others."""
    quantization: Literal["none", "int8", "nf4"] = "none"
    """How the base model's linear layers are kept here; training always uses them in full."""
    queue: sections.Count = 256
    """Requests waiting at most; more are refused with RESOURCE_EXHAUSTED."""
    query_rewriting: dict[str, sections.Share] = pydantic.Field(default={"embedded": 0.5})
    """By base model: a routed question at least this similar (cosine) to one that its card was
    trained on is answered as that one. Base models that are not listed see every question as it
    was asked."""
    max_cards: Annotated[int, pydantic.Field(ge=1, le=MOST_CARDS)] = 1
    """Cards that answer one question together, where several fit and a request does not say: they
    are merged on the fly, weighed by their probability."""
    least_share: sections.Share = 0.25
    """A card takes part from this share of the most probable one's probability on."""
    semantic_samples: Annotated[
        int, pydantic.Field(ge=0, le=16), pydantic.AfterValidator(_not_one)
    ] = 0
    """Answers that the bare base model gives once more, at temperature 1 and after the user has
    his, to a question that no card fits: how far their meanings differ tells whether it knows.
    0: none."""
