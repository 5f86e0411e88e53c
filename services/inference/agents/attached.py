"""All wiring of a node's agents: their file, their memories in the engine, the hierarchy's line."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import torch

from services.inference import engine as engines
from services.inference.agents import agents, hierarchy_client, learner, ledger, roster, rounds
from services.inference.agents import backend as backends
from shared import errors
from shared import settings as config
from shared.cards import manifest as manifests
from shared.hierarchy import agent, layer_settings, learning, weights, wire
from shared.models import base as bases
from shared.security import protection as protections

_MIB = 2**20
_MOST_LESSONS = 512
"""Pairs that an agent keeps to rehearse."""
_SEEN_KIND = "q_proj"
"""Of the layers whose inputs trajectories are known by, where the base has them."""


@contextlib.asynccontextmanager
async def attached(
    engine: engines.ArrowEngine,
    base: bases.BaseModel,
    settings: config.Settings,
    node_id: str,
    recipe: learning.Recipe | None = None,
    learning_settings: learner.LearnerSettings | None = None,
    silence_s: float = hierarchy_client.SILENCE_S,
) -> AsyncIterator[agents.Agents]:
    """The agents of a node, from their start to their end.

    A hierarchy that is away is joined when it comes; what was learned before answers meanwhile.

    Args:
        engine: answers; no card is in its model yet.
        base: the engine's model.
        settings: of the hierarchy and its agents, the state folder.
        node_id: names the node.
        recipe: how a round learns; by default as configured for the base model.
        learning_settings: how many rounds there are.
        silence_s: how long the hierarchy may be silent before the line counts as dead.

    Raises:
        errors.ConfigError: the base model has no layers of `hierarchy.kinds`, or the state folder
            can't be used.
    """
    section = settings.hierarchy
    frame = wire.Frame(shapes_of(base, section.kinds), section.specs(), section.limits.circuits)
    folder = settings.state_path("inference", "agents")
    most = section.agents
    kept = ledger.Ledger(folder / "agents.sqlite", most.most, most.queue, _MOST_LESSONS)
    backend = backends.LoRABackend(
        engine,
        manifests.BaseModelReference(
            id=base.id, revision=base.revision, fingerprint=base.fingerprint
        ),
        backends.BackendSettings(
            dtype=str(base.model.dtype).removeprefix("torch."),
            live=most.live,
            trajectory_share=most.trajectory_share,
            inputs=_seen(frame),
        ),
    )
    known = roster.Roster(
        kept,
        frame,
        agent_settings(section),
        section.seed,
        int(most.memory_mib * _MIB),
        backend.forget,
    )
    configured = learning.Recipe(**settings.model.recipe().round.model_dump())
    learned = rounds.Rounds(engine, base, frame.specs, recipe or configured, folder)
    own = agents.Agents(
        kept,
        known,
        backend,
        learned,
        learning_settings or learner.LearnerSettings(rounds=most.rounds),
    )
    client = hierarchy_client.HierarchyClient(
        section.address,
        node_id,
        base.fingerprint,
        frame,
        folder,
        own,
        int(most.waiting_mib * _MIB),
        protections.Protection.configured(settings),
        silence_s,
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(own.stop)
        own.start(client)
        stack.push_async_callback(client.stop)
        client.start()
        yield own


def agent_settings(section: config.Hierarchy) -> agent.AgentSettings:
    """Which mechanisms work in the agents' own layers: those that work in the shared ones."""
    use = section.mechanisms
    return agent.AgentSettings(
        layer=layer_settings.LayerSettings(
            use_inertia=use.inertia,
            use_screening=use.screening,
            use_decay=use.decay,
            use_budget=use.homeostasis,
        ),
        use_homeostasis=use.homeostasis,
        use_detection=use.migration,
        use_migration=use.migration,
    )


def shapes_of(base: bases.BaseModel, kinds: tuple[str, ...]) -> dict[str, weights.Shape]:
    """The linear layers of a bare base model that the hierarchy adapts.

    Raises:
        errors.ConfigError: there are none.
    """
    found = {
        path: weights.Shape(module.in_features, module.out_features)
        for path, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and path.rpartition(".")[2] in kinds
    }
    if not found:
        raise errors.ConfigError(
            f"hierarchy.kinds: base model {base.id} has no layers of the kinds {list(kinds)}"
        )
    return found


def _seen(frame: wire.Frame) -> tuple[str, ...]:
    paths = [path for path in frame.shapes if path.rpartition(".")[2] == _SEEN_KIND]
    return tuple(paths or frame.shapes)
