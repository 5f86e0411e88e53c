"""Settings of the hierarchy, for its service and for the nodes whose agents learn with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import pydantic

from shared import sections
from shared.hierarchy import levels

_Inertia = Annotated[float, pydantic.Field(ge=0, lt=1)]


class Layer(sections.Section):
    """One layer of the stack."""

    rank: sections.Count
    """Of A and B of each module."""
    inertia: _Inertia
    """The layer moves with the share 1 - inertia of what it was told."""


class Limits(sections.Section):
    """What agents may ask of the hierarchy."""

    agents: sections.Count = 1000
    """In all; further ones can't join."""
    agents_per_owner: sections.Count = 200
    """Of one token or tenant, so that none has all places, nor the majority in a large swarm."""
    submissions_per_tick: sections.Count = 4
    """Of one agent: so many wait for the next tick, more are refused until it was made."""
    submissions_per_minute: sections.Positive = 60.0
    """Of one agent, on average; as many at once as `submissions_per_tick`, twice."""
    submission_mib: sections.Positive = 256.0
    """Larger submissions are refused."""
    waiting_mib: sections.Positive = 2048.0
    """Submissions of all agents that wait for the next tick, together."""
    waiting: sections.Count = 4096
    """Submissions of all agents that wait, and circuits that were offered."""
    stale: sections.Count = 8
    """A submission may have been learned on a snapshot so many versions old."""
    circuits: sections.Count = 64
    """In one submission."""
    memory_mib: sections.Count = 16_384
    """Of the service's process: what would take more fails, rather than the machine."""


class Aggregation(sections.Section):
    """How the agents' changes of one tick become one change."""

    method: Literal["mean", "trimmed_mean", "median"] = "trimmed_mean"
    """`mean` trusts everybody; the others bound what a minority of bad agents can do."""
    trim: Annotated[float, pydantic.Field(ge=0, lt=0.5)] = 0.2
    """Share of the agents left out on either side, value by value."""
    clip: sections.Positive = 1.5
    """A change longer than so many times the median length of the tick's is cut down to it."""
    leave_out: bool = True
    """Agents whose changes point elsewhere than those of the others are left out."""


class Mechanisms(sections.Section):
    """What can be switched off, to see what it is good for."""

    vertical_resonance: bool = True
    """An agent's changes are amplified or damped by how context, agent and swarm agree."""
    horizontal_resonance: bool = True
    """So are those of agents that agree with one another, or do not."""
    inertia: bool = True
    """Slow layers move less."""
    homeostasis: bool = True
    """Layers are kept within their entropy budget."""
    screening: bool = True
    """Parameters that matter are shielded and decay slowly."""
    decay: bool = True
    """Parameters go back towards where they started."""
    migration: bool = True
    """Circuits that recur move up to slower layers."""
    correction: bool = True
    """Bad health has consequences: freezing, rolling back, another screening threshold."""


class Agents(sections.Section):
    """What an inference node does for its agents."""

    most: sections.Count = 256
    """Agents of one node."""
    memory_mib: sections.Positive = 1024.0
    """For their layers; those that were not used for long are kept on disk alone."""
    queue: sections.Count = 1000
    """Pairs of feedback of one agent that wait to be learned; more are refused."""
    rounds: sections.Count = 40
    """In which a pair of feedback may take part; once it is answered right it leaves, and what is
    still wrong then is given up."""
    waiting_mib: sections.Positive = 1024.0
    """Submissions that wait for a hierarchy that is away; then learning pauses."""
    trajectory_share: sections.Share = 1.0
    """Of the answers given with an agent's memory, those that are looked into and remembered."""
    live: bool = False
    """Experiment: layers may change while an answer is being generated. Answers are then not
    repeatable."""


class Hierarchy(sections.Section):
    """Memory in five layers, slow ones shared by all agents, fast ones of each agent alone."""

    enabled: bool = False
    """Whether the service runs in a local cluster, and nodes have agents."""
    address: sections.Address = "127.0.0.1:7408"
    """Where the control plane (gRPC) listens."""
    flight_address: sections.Address = "127.0.0.1:7409"
    """Where the data plane (Arrow Flight) listens."""
    tick_s: sections.Positive = 5.0
    """So often what was submitted is settled, where anything was or a circuit waits."""
    layers: dict[levels.Level, Layer] = pydantic.Field(default={})
    """Rank and inertia by level, where they differ from those of `shared.hierarchy.levels`. What
    ranks are, the first agent that joins settles: later changes need an empty state folder."""
    kinds: tuple[str, ...] = levels.DEFAULT_KINDS
    """Linear layers of the base model that are adapted, by the end of their names."""
    seed: int = 0
    """Starting values are drawn from it."""
    snapshots: sections.Count = 8
    """Versions that stay, to be fetched or rolled back to."""
    limits: Limits = Limits()
    """What agents may ask."""
    aggregation: Aggregation = Aggregation()
    """How their changes are put together."""
    mechanisms: Mechanisms = Mechanisms()
    """What is switched on."""
    agents: Agents = Agents()
    """What nodes do."""

    def specs(self) -> Mapping[levels.Level, levels.Spec]:
        """Rank and inertia of all five layers."""
        return {
            level: levels.Spec(self.layers[level].rank, self.layers[level].inertia)
            if level in self.layers
            else default
            for level, default in levels.DEFAULT_SPECS.items()
        }
