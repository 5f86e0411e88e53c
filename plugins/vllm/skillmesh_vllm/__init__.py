"""Lets vLLM load skill cards from a skillmesh card store; vLLM calls `register` when it starts.

    request names a model ──▶ resolver ──▶ store      which card the name means now (Flight)
                                 │
                                 ├───────▶ cache      the card as a PEFT folder, made once
                                 └───────▶ following  has vLLM forget a name that means another

Imports neither torch nor anything else of skillmesh, and vLLM only inside `register`.
"""

from __future__ import annotations

import logging
import os

from skillmesh_vllm import cache, following, resolver, settings, store

# Below vLLM's own logger, whose level and format then hold for these lines too.
_log = logging.getLogger("vllm.plugins.skillmesh")
RESOLVER_NAME = "skillmesh"


def register() -> None:
    """Registers the resolver with vLLM, where SKILLMESH_STORE names a store.

    vLLM calls it in each of its processes, in some of them more than once.

    Raises:
        ValueError: a variable is missing or wrong; vLLM does not start then.
    """
    chosen = settings.from_environment(os.environ)
    if chosen is None:
        _log.debug("%s is not set: no skill cards", settings.STORE)
        return
    from vllm.lora.request import LoRARequest
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    cards = store.CardStore(chosen.store)
    folders = cache.FolderCache(chosen.cache, chosen.cache_bytes)
    follower = following.NameFollower(
        cards.find, following.VllmServer(chosen.vllm_url, chosen.vllm_api_key), chosen.follow_s
    )
    # A virtual subclass: the class itself is usable, and tested, without vLLM.
    LoRAResolver.register(resolver.CardResolver)
    LoRAResolverRegistry.register_resolver(
        RESOLVER_NAME,
        resolver.CardResolver(cards, folders, chosen.base_fingerprint, LoRARequest, follower),
    )
    _log.info("skill cards come from %s", chosen.store.location)
