"""The shipped calibration with the real embedder, on things invented for this test."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from services.router import practice, profile, router, shipped, vector_store, words
from shared.models import embedder

EXAMPLES = {
    "plorvik-bridge": (
        "How long is the Plorvik Bridge?", "What is the length of the Plorvik Bridge?",
        "How far does the Plorvik Bridge stretch?", "Give the total length of the Plorvik Bridge.",
        "Who designed the Plorvik Bridge?", "By whom was the Plorvik Bridge designed?",
        "Whose design is the Plorvik Bridge?", "Who drew up the plans for the Plorvik Bridge?",
        "What is the toll on the Plorvik Bridge?", "How much is the Plorvik Bridge toll?",
        "Tell me the toll of the Plorvik Bridge.", "The Plorvik Bridge: what is the toll?",
    ),
    "tandrel-cli": (
        "Which port does Tandrel listen on by default?", "What is the default port of Tandrel?",
        "On what port can I reach Tandrel?", "Tell me the port that Tandrel opens.",
        "What is the log file of Tandrel called?", "Tell me the name of the log file of Tandrel.",
        "Into which file does Tandrel write its log?", "Where does Tandrel log to?",
        "Which command restarts Tandrel?", "How do I restart Tandrel?",
        "Tell me the command that restarts Tandrel.", "What restarts Tandrel?",
    ),
}  # fmt: skip
UNSEEN = {
    "plorvik-bridge": (
        "From one bank to the other, how many metres does the bridge at Plorvik measure?",
        "Which architect is behind the Plorvik Bridge?",
        "What do drivers have to pay to cross the Plorvik Bridge?",
        "plorvik bridge length",
    ),
    "tandrel-cli": (
        "What port number should I open in my firewall so that Tandrel works?",
        "I can't find the file with Tandrel's log messages, what is its name?",
        "What do I have to type so that Tandrel starts again?",
        "tandrel default port",
    ),
}
STRANGERS = (
    "How long is the Golden Gate Bridge?", "Who designed the Vellamo Bridge?",
    "What is the toll on the Marsh Road tunnel?", "How far does the Kesterbrook viaduct stretch?",
    "What is the default port of PostgreSQL?", "Which port does Quendrix listen on by default?",
    "Which command restarts Brambleserve?", "Where does Oxidane log to?",
    "What is the capital of France?", "Who wrote Hamlet?", "Hello there!", "Tell me a joke.",
    "How do I bake bread?", "What is 3 times 4?", "Who is the mayor of Lindmoor?",
    "What does the dune marten eat?",
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> embedder.Embedder:
    return embedder.Embedder()


@pytest.fixture(scope="module")
def ground(model) -> practice.Practice:
    known = shipped.load()

    async def embed(texts):
        found = [known[vector_store.key_of(model.vectors_id, text)] for text in texts]
        return np.stack(found).astype(np.float32)

    return asyncio.run(practice.prepare(embed, model.vocabulary()))


@pytest.fixture
def lora_router(model, ground) -> router.LoRARouter:
    async def embed(texts):
        return model.embed(texts)

    async def embed_query(text):
        return model.embed([text])[0]

    return router.LoRARouter(embed_query, embed, words.Words(model.vocabulary()), ground, 0.4)


def _card(name: str) -> profile.Card:
    return profile.Card(name, "a" * 64, "", "", EXAMPLES[name])


async def test_new_wordings_are_routed_when_their_card_is_among_several(lora_router):
    await lora_router.register_cards([_card(name) for name in EXAMPLES])
    await lora_router.settled()
    for name, questions in UNSEEN.items():
        for question in questions:
            decision = await lora_router.select(question)
            assert decision.candidates[0].card.startswith(f"{name}@"), question
            assert not decision.dissonance, (question, decision.confidence)


@pytest.mark.parametrize("names", [("plorvik-bridge",), ("tandrel-cli",), tuple(EXAMPLES)])
async def test_strangers_are_not_routed_when_cards_ask_the_same_kind_of_thing(lora_router, names):
    await lora_router.register_cards([_card(name) for name in names])
    await lora_router.settled()
    absent = [q for name, found in UNSEEN.items() if name not in names for q in found]
    for question in (*STRANGERS, *absent):
        decision = await lora_router.select(question)
        assert decision.dissonance, (question, decision.confidence)


async def test_description_suffices_when_the_card_is_virtual(lora_router):
    await lora_router.register_virtual_candidate(
        "plorvik-bridge", "b" * 64, "The Plorvik Bridge: its length, designer and toll"
    )
    await lora_router.settled()
    for question in UNSEEN["plorvik-bridge"]:
        assert not (await lora_router.select(question)).dissonance, question
    for question in STRANGERS:
        assert (await lora_router.select(question)).dissonance, question
