"""Settings of the gateway: the HTTP endpoint and the console in front of a cluster."""

from __future__ import annotations

from typing import Annotated

import pydantic

from shared import sections

NodeAddress = Annotated[
    str, pydantic.Field(pattern=r"^([^:/\s]+:\d{1,5}|https?://[^/\s]+(/[^\s?#]*)?/v1/?)$")
]
"""`host:port` of an inference node, or `http(s)://…/v1` of a server that speaks OpenAI's."""


class Limits(sections.Section):
    """What one key may ask of the gateway; without keys, everybody together."""

    requests_per_minute: Annotated[float, pydantic.Field(ge=0)] = 0
    """On average, and as many at once; 0: any number."""
    tokens_per_minute: Annotated[float, pydantic.Field(ge=0)] = 0
    """Of prompts and answers; 0: any number."""
    concurrent: sections.Count = 256
    """Requests under way; more are refused."""
    body_mib: sections.Positive = 4.0
    """Larger requests are refused."""


class Breaker(sections.Section):
    """A node that fails is left alone for a while."""

    failures: sections.Count = 3
    """In a row, until nobody asks it,"""
    pause_s: sections.Positive = 2.0
    """for so long, doubled by every failure after it,"""
    longest_pause_s: sections.Positive = 30.0
    """up to this."""


class Gateway(sections.Section):
    """What people and their tools talk to."""

    enabled: bool = True
    """Whether it runs in a local cluster."""
    address: sections.Address = "127.0.0.1:7400"
    """Where it listens, over HTTP."""
    nodes: tuple[NodeAddress, ...] = ()
    """Inference nodes as `host:port`, besides those that the card store knows of; none:
    `inference.address`. `http://host:port/v1` is a server that speaks OpenAI's protocol, such as
    vLLM with the plugin of this project; VLLM_API_KEY of the environment is its key."""
    nodes_every_s: sections.Positive = 1.0
    """So often nodes are asked how they are."""
    deadline_s: sections.Positive = 300.0
    """Longest time for one answer."""
    retries: Annotated[int, pydantic.Field(ge=0)] = 2
    """Further nodes that are asked where one fails before the first word."""
    drain_s: sections.Positive = 30.0
    """At its end, requests under way have so long; new ones are refused."""
    breaker: Breaker = Breaker()
    """When a node is left alone."""
    limits: Limits = Limits()
    """What one key may ask."""
    console: bool = True
    """Whether it serves the pages."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages elsewhere that may call it."""
