"""One method through all domains in turn, and what it answers after each."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch

from benchmarks import results
from benchmarks.hierarchy import world
from shared.hierarchy import learning, levels, stack, weights
from shared.lora import manager as managers
from shared.models import base as bases
from shared.models import replay


class Method(Protocol):
    """A way to learn domain after domain."""

    def tick(self, domain: world.Domain) -> None:
        """One round of the agents that meet the domain."""
        ...

    def leave(self, domain: world.Domain) -> None:
        """The domain will not be met again."""
        ...

    def stack(self, agent: int) -> stack.Stack:
        """What the agent answers with now."""
        ...


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Shares of right answers on one domain at one time; every token of an answer counts."""

    met: float
    """Of the agents that met it, in wordings that they were taught."""
    met_unseen: float
    """The same in wordings that nobody was taught."""
    others: float
    """Of the agents that never met it, in taught wordings; NaN where all met it."""
    others_unseen: float


@dataclasses.dataclass(frozen=True)
class Course:
    """A whole course: `table[i][j]` is how domain j stood after domain i, j up to i."""

    table: tuple[tuple[Accuracy, ...], ...]
    known: float
    """At the end, share of other questions that agents answer as the bare base does."""
    seconds: float
    """Processor time of the learning."""

    @property
    def final(self) -> tuple[Accuracy, ...]:
        """How every domain stands at the end."""
        return self.table[-1]

    @property
    def average(self) -> float:
        """Mean accuracy over all domains at the end (Lopez-Paz and Ranzato 2017)."""
        return statistics.fmean(one.met for one in self.final)

    @property
    def old(self) -> float:
        """Mean accuracy at the end over all domains but the last."""
        return statistics.fmean(one.met for one in self.final[:-1])

    @property
    def backward(self) -> float:
        """Backward transfer: mean change since each domain was learned; the last left out."""
        changes = [last.met - self.table[at][at].met for at, last in enumerate(self.final[:-1])]
        return statistics.fmean(changes)

    @property
    def others(self) -> float:
        """Mean accuracy at the end of the agents that never met a domain."""
        return statistics.fmean(one.others for one in self.final)

    @property
    def plasticity(self) -> float:
        """Mean accuracy on a domain just when it was learned."""
        return statistics.fmean(row[-1].met for row in self.table)

    @property
    def unseen(self) -> float:
        """Mean accuracy at the end in wordings that nobody was taught."""
        return statistics.fmean(one.met_unseen for one in self.final)


@dataclasses.dataclass(frozen=True)
class Answered:
    """One answer and what was active in it."""

    lesson: learning.Lesson
    is_right: bool
    logits: torch.Tensor
    """(tokens, vocabulary)."""
    inputs: dict[str, torch.Tensor]
    """Module path to what went into it at the answer's positions, (tokens, in_features)."""

    @property
    def pooled(self) -> dict[str, torch.Tensor]:
        """Module path to (in_features,); modules that read the same are there once."""
        return {
            path: x.mean(0)
            for path, x in self.inputs.items()
            if path.rpartition(".")[2] not in ("k_proj", "v_proj")
        }


class Bench:
    """One model on which methods learn and are asked."""

    def __init__(self, base: bases.BaseModel) -> None:
        """Takes the loaded model."""
        self.base = base
        self.manager = managers.LoRAManager(base.model, base.fingerprint)
        self.paths = self.manager.target_paths(levels.DEFAULT_KINDS)
        self.shapes = {
            path: weights.Shape(module.in_features, module.out_features)
            for path in self.paths
            for module in [base.model.get_submodule(path)]
        }
        asked = replay.prepare(base, results.KEPT / "hierarchy")
        self.held = self._lessons(asked.trained)
        """Questions about anything else, which every method holds to the base's answers."""
        self.known = self._lessons([*asked.known, *asked.unrelated])
        """The like, which only measure."""

    def _lessons(self, asked: Iterable[replay.Answered]) -> tuple[learning.Lesson, ...]:
        base = self.base
        return tuple(
            learning.Lesson(
                tuple(base.prompt_ids(one.question)), tuple(base.answer_ids(one.answer))
            )
            for one in asked
        )

    def round(
        self,
        layers: stack.Stack,
        specs: levels.Specs,
        recipe: learning.Recipe,
        moments: learning.Moments | None = None,
    ) -> learning.Round:
        """A round of learning on this model."""
        pad: int = self.base.tokenizer.pad_token_id
        return learning.Round(self.base.model, self.manager, layers, specs, recipe, pad, moments)

    def share_right(self, layers: stack.Stack, lessons: Sequence[learning.Lesson]) -> float:
        """How many of the answers come out right, token for token."""
        right = self.are_right(layers, lessons)
        return sum(right) / len(right)

    def are_right(self, layers: stack.Stack, lessons: Sequence[learning.Lesson]) -> list[bool]:
        """Which of the answers come out right, token for token."""
        pad: int = self.base.tokenizer.pad_token_id
        with learning.answering_with(self.manager, layers):
            return learning.are_right(self.base.model, lessons, pad)

    def answered(
        self, layers: stack.Stack, lessons: Sequence[learning.Lesson]
    ) -> Iterator[Answered]:
        """Each answer as greedy generation would give it where it is right."""
        inputs: dict[str, torch.Tensor] = {}

        def keep(path: str) -> Callable[..., None]:
            def hook(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
                inputs[path] = given[0][0].detach()

            return hook

        with (
            learning.answering_with(self.manager, layers),
            torch.no_grad(),
            contextlib.ExitStack() as hooks,
        ):
            for path in self.paths:
                module = self.base.model.get_submodule(path)
                hooks.callback(module.register_forward_pre_hook(keep(path)).remove)
            for lesson in lessons:
                ids = torch.tensor([[*lesson.prompt, *lesson.answer][:-1]])
                logits_T_V = self.base.model(
                    input_ids=ids, use_cache=False, logits_to_keep=len(lesson.answer)
                ).logits[0]
                is_right = logits_T_V.argmax(-1).tolist() == list(lesson.answer)
                at_answer = {path: x[-len(lesson.answer) :] for path, x in inputs.items()}
                yield Answered(lesson, is_right, logits_T_V, at_answer)


def run(bench: Bench, method: Method, plan: world.Plan) -> Course:
    """Leads a method through the plan's domains."""
    found, spent = [], 0.0
    domains = world.domains(bench.base, plan)
    honest = [agent for agent in range(plan.agents) if agent not in plan.bad]
    for number, domain in enumerate(domains):
        started = time.process_time()
        for _ in range(plan.ticks):
            method.tick(domain)
        method.leave(domain)
        spent += time.process_time() - started
        asking = _Asking(bench, method, honest)
        found.append(tuple(asking.of(one) for one in domains[: number + 1]))
    stacks = {id(one): one for one in (method.stack(agent) for agent in honest)}.values()
    known = statistics.fmean(bench.share_right(one, bench.known) for one in stacks)
    return Course(tuple(found), known, spent)


class _Asking:
    """Answers of one moment; agents with the same stack are asked once."""

    def __init__(self, bench: Bench, method: Method, honest: Sequence[int]) -> None:
        self._bench = bench
        self._stacks = {agent: method.stack(agent) for agent in honest}
        self._known: dict[tuple[int, int], float] = {}

    def of(self, domain: world.Domain) -> Accuracy:
        met = [agent for agent in self._stacks if agent in domain.agents]
        others = [agent for agent in self._stacks if agent not in domain.agents]
        return Accuracy(
            self._mean(met, domain.asked),
            self._mean(met, domain.unseen),
            self._mean(others, domain.asked),
            self._mean(others, domain.unseen),
        )

    def _mean(self, agents: Iterable[int], lessons: tuple[learning.Lesson, ...]) -> float:
        shares = [self._share(self._stacks[agent], lessons) for agent in agents]
        return statistics.fmean(shares) if shares else float("nan")

    def _share(self, layers: stack.Stack, lessons: tuple[learning.Lesson, ...]) -> float:
        key = id(layers), id(lessons)
        if key not in self._known:
            self._known[key] = self._bench.share_right(layers, lessons)
        return self._known[key]


def from_json(text: str) -> Course:
    """A course as `one_course` prints it."""
    found = json.loads(text)
    table = tuple(tuple(Accuracy(**one) for one in row) for row in found["table"])
    return Course(table, found["known"], found["seconds"])
