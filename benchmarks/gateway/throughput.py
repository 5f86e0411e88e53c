"""`python -m benchmarks.gateway throughput`: many streams at once, beside `transformers serve`.

The gateway with its node, the engine alone in this process, and `transformers serve` as it starts
and with its continuous batching answer the same questions from the same checkpoint in float32, one
thread a model, the likeliest tokens. The checkpoint is the embedded base without a vector for the
end token, so that every answer goes on to the limit: what ends after five tokens would measure
prompts alone. Rounds go through all of them in turn, and a server that is not asked is paused: a
ratio is the median of each round's own.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import http.client
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import torch

from benchmarks import results
from benchmarks.gateway import processes, streams
from services.gateway.cluster import programs
from services.inference import engine as engines
from shared import settings as config
from shared import terminal
from shared.models import base as bases

CONCURRENT = (1, 16, 64)
_EACH = {1: 8, 16: 3, 64: 2}
"""Answers one after another on each stream of a round."""
ROUNDS = 3
_TOKENS, _LIMIT_S = 48, 600.0
_STARTED = ("router", "inference", "gateway")
GATEWAY, ENGINE = "gateway", "engine"
PEERS = {"serve": (), "serve_batching": ("--continuous-batching",)}
"""Options of `transformers serve`."""
_QUESTIONS = (
    "Tell me about the history of the city of Paris, please.",
    "Explain how a bicycle works and what it is good for.",
    "Why is the sky blue, and what colours has it in the evening?",
    "List the planets of the solar system from the sun outwards.",
    "Write a short story about a dog that finds a key.",
    "What should somebody pack for a week in the mountains?",
    "How does a bee find its way home?",
    "Describe the work of a baker from morning to noon.",
)
Ask = Callable[[str], Awaitable[streams.Heard]]


@dataclasses.dataclass(frozen=True)
class Round:
    """What one way did in one round."""

    seconds: float
    heard: tuple[tuple[str, streams.Heard], ...]
    """Question and answer."""

    def figures(self, tokens: Mapping[str, int]) -> dict[str, float]:
        """By row's name.

        Args:
            tokens: of the answer to each question.
        """
        totals = sorted(one.total_s * 1000 for _, one in self.heard)
        firsts = sorted(one.first_s * 1000 for _, one in self.heard)
        return {
            "tokens_per_s": sum(tokens[question] for question, _ in self.heard) / self.seconds,
            "requests_per_s": len(self.heard) / self.seconds,
            "latency_p50_ms": statistics.median(totals),
            "latency_p99_ms": percentile(totals, 0.99),
            "first_token_p50_ms": statistics.median(firsts),
            "first_token_p99_ms": percentile(firsts, 0.99),
        }


Rounds = Mapping[tuple[str, int], Sequence[Round]]
"""By way and number of streams."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of values in ascending order."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(rounds: int = ROUNDS) -> list[results.Row]:
    """Takes some minutes.

    Args:
        rounds: through all ways.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        checkpoint = folder / "checkpoint"
        _endless(checkpoint)
        alone = processes.alone(folder, _TOKENS)
        model = alone.model.model_copy(update={"base": str(checkpoint)})
        settings = alone.model_copy(update={"model": model})
        stack.enter_context(processes.services(settings, _STARTED, folder))
        peers = {
            name: stack.enter_context(_transformers(checkpoint, folder / f"{name}.log", options))
            for name, options in PEERS.items()
        }
        found, right = asyncio.run(_measured(settings, peers, rounds))
    batch = settings.inference.batch_rows
    load = os.getloadavg()[0]
    return rows(found, right, f"median of {rounds} rounds, batch_rows {batch}, load {load:.0f}")


def rows(found: Rounds, alone: Mapping[str, tuple[str, int]], note: str) -> list[results.Row]:
    """The figures: each of the gateway beside the faster peer, those of the others alone.

    Args:
        found: what was measured.
        alone: the right answer to each question, and how many tokens it has.
        note: behind every row.
    """
    tokens = {question: count for question, (_, count) in alone.items()}
    made = []
    for count in CONCURRENT:
        figures = {
            way: [one.figures(tokens) for one in found[way, count]]
            for way in (GATEWAY, ENGINE, *PEERS)
        }
        best = max(PEERS, key=lambda way: _median(figures[way], "tokens_per_s"))
        for name in figures[GATEWAY][0]:
            made.append(_beside(name, count, figures[GATEWAY], figures[best], best, note))
            made += [
                results.Row(
                    _named(way, name, count), _median(figures[way], name), _unit(name), note=note
                )
                for way in (ENGINE, *PEERS)
            ]
    for way in (GATEWAY, *PEERS):
        heard = [pair for count in CONCURRENT for one in found[way, count] for pair in one.heard]
        same = sum(answer.text.strip() == alone[question][0].strip() for question, answer in heard)
        least = 1.0 if way == GATEWAY else None
        told = f"{len(heard)} answers beside the engine's, asked alone"
        made.append(
            results.Row(f"{way}_same_answers", same / len(heard), "share", least=least, note=told)
        )
    return made


def _beside(
    name: str,
    count: int,
    ours: Sequence[Mapping[str, float]],
    theirs: Sequence[Mapping[str, float]],
    peer: str,
    note: str,
) -> results.Row:
    more_is_better = name.endswith("_per_s")
    ratios = [
        a[name] / b[name] if more_is_better else b[name] / a[name]
        for a, b in zip(ours, theirs, strict=True)
    ]
    return results.Row(
        _named(GATEWAY, name, count),
        _median(ours, name),
        _unit(name),
        peer=" ".join(("transformers serve", *PEERS[peer])),
        peer_value=_median(theirs, name),
        ratio=statistics.median(ratios),
        least_ratio=1.0 if (name, count) == ("tokens_per_s", 64) else None,
        note=note,
    )


def _median(figures: Sequence[Mapping[str, float]], name: str) -> float:
    return statistics.median(one[name] for one in figures)


def _named(way: str, name: str, count: int) -> str:
    """Of a row: `tokens_per_s_64`, `engine_latency_16_p50_ms`."""
    what, _, percentile_of = name.partition("_p")
    named = f"{name}_{count}" if not name.endswith("_ms") else f"{what}_{count}_p{percentile_of}"
    return named if way == GATEWAY else f"{way}_{named}"


def _unit(name: str) -> str:
    return "ms" if name.endswith("_ms") else f"{name.partition('_')[0]}/s"


def _endless(folder: pathlib.Path) -> None:
    """Saves the checkpoint that is measured."""
    base = bases.load(bases.EMBEDDED)
    with torch.no_grad():
        # Tied to the last layer: the end's logit is always 0, and another is always larger.
        base.model.get_input_embeddings().weight[base.tokenizer.eos_token_id] = 0.0
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _transformers(
    checkpoint: pathlib.Path, log: pathlib.Path, options: Sequence[str]
) -> Iterator[tuple[str, processes.Process]]:
    """Such a server: its address, and its process."""
    address = programs.on_free_ports(config.Settings()).gateway.address
    host, _, port = address.rpartition(":")
    command = pathlib.Path(sys.executable).with_name("transformers")
    process = processes.Process(
        (
            *(str(command), "serve", str(checkpoint), "--host", host, "--port", port),
            *("--device", "cpu", "--dtype", "float32", *options),
        ),
        log,
        # Its list of models is read from a hub's cache, which is to be empty.
        {"HF_HUB_OFFLINE": "1", "HF_HOME": str(log.with_suffix(".cache"))},
    )
    try:
        process.until(lambda: _is_healthy(host, int(port)))
        yield address, process
    finally:
        process.end()


def _is_healthy(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


async def _measured(
    settings: config.Settings,
    peers: Mapping[str, tuple[str, processes.Process]],
    rounds: int,
) -> tuple[Rounds, dict[str, tuple[str, int]]]:
    engine = engines.ArrowEngine(bases.load(settings.model.base), settings.inference)
    engine.start()
    ways: dict[str, Ask] = {
        GATEWAY: _asking(settings.gateway.address, "base"),
        ENGINE: _asking_engine(engine),
    }
    for name, (address, _) in peers.items():
        ways[name] = _asking(address, settings.model.base)
    found: dict[tuple[str, int], list[Round]] = collections.defaultdict(list)
    try:
        alone = {}
        for question in _QUESTIONS:
            final = await engine.generate(question, max_new_tokens=_TOKENS)
            alone[question] = (final.answer, final.new_tokens)
            if final.new_tokens != _TOKENS:
                raise RuntimeError(f"{question!r} is answered in {final.new_tokens} tokens")
        for name, ask in ways.items():
            await ask(_QUESTIONS[0])  # A server loads what it needs with its first answer.
            if name in peers:
                peers[name][1].pause()
        for number in range(rounds):
            for count in CONCURRENT:
                # Forwards and backwards, so that nobody always comes after the same one.
                for name in list(ways)[:: 1 if number % 2 else -1]:
                    if name in peers:
                        peers[name][1].go_on()
                    one = await _round(ways[name], count)
                    if name in peers:
                        peers[name][1].pause()
                    terminal.NOTES.print(f"gateway: {name}, {count} streams, {one.seconds:.1f} s")
                    found[name, count].append(one)
    finally:
        await engine.stop()
    return found, alone


async def _round(ask: Ask, count: int) -> Round:
    async def one(stream: int) -> list[tuple[str, streams.Heard]]:
        heard = []
        for number in range(_EACH[count]):
            question = _QUESTIONS[(stream + number) % len(_QUESTIONS)]
            heard.append((question, await ask(question)))
        return heard

    began_s = time.perf_counter()
    heard = await asyncio.gather(*map(one, range(count)))
    return Round(time.perf_counter() - began_s, tuple(pair for some in heard for pair in some))


def _asking(address: str, model: str) -> Ask:
    return lambda question: streams.hear(address, streams.body(model, question, _TOKENS), _LIMIT_S)


def _asking_engine(engine: engines.ArrowEngine) -> Ask:
    async def ask(question: str) -> streams.Heard:
        began_s, first_s, text = time.perf_counter(), 0.0, []
        async with contextlib.aclosing(engine.stream(question, max_new_tokens=_TOKENS)) as pieces:
            async for piece in pieces:
                if piece.text:
                    first_s = first_s or time.perf_counter() - began_s
                    text.append(piece.text)
        total_s = time.perf_counter() - began_s
        return streams.Heard("".join(text), first_s or total_s, total_s)

    return ask
