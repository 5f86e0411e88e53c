"""`Trajectory`, what an agent saw and said once, and the cache of them that an agent's node keeps.

A trajectory holds what rehearsal replays (tokens, and the logits of the answer: Dark Experience
Replay, Buzzega et al. 2020) and what patterns are found in (activations). Knows nothing about
hooks: activations come pooled.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from shared import errors
from shared.hierarchy import signatures, states

_HALF_MAX = torch.finfo(torch.float16).max
_OBJECT_BYTES = 1024
"""About what Python holds beside the values of one trajectory."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """One generation."""

    prompt: torch.Tensor
    """(P,), int32: token ids."""
    answer: torch.Tensor
    """(T,), int32: token ids."""
    top_ids: torch.Tensor
    """(T, K), int32: the likeliest tokens at each position of the answer, likeliest first."""
    top_logits: torch.Tensor
    """(T, K), float16: their logits."""
    log_sums: torch.Tensor
    """(T,), float32: log-sum-exp over the whole vocabulary."""
    activations: Mapping[str, torch.Tensor]
    """Path to what was active there, (features,), float16; empty once they were dropped."""
    signature: torch.Tensor
    """(S,), float16, of unit length; (0,) once the activations were dropped."""

    @functools.cached_property
    def key(self) -> str:
        """Names prompt and answer: the same two have the same key."""
        digest = hashlib.blake2b(len(self.prompt).to_bytes(8, "little"), digest_size=16)
        digest.update(self.prompt.numpy().tobytes())
        digest.update(self.answer.numpy().tobytes())
        return digest.hexdigest()

    @property
    def log_probabilities(self) -> torch.Tensor:
        """Of the likeliest tokens, (T, K), float32: what rehearsal holds the model to."""
        return self.top_logits.float() - self.log_sums[:, None]

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        fixed = (self.prompt, self.answer, self.top_ids, self.top_logits, self.log_sums)
        held = (*fixed, self.signature, *self.activations.values())
        return _OBJECT_BYTES + sum(tensor.nbytes for tensor in held)

    def without_activations(self) -> Trajectory:
        """What rehearsal needs, and nothing else."""
        return dataclasses.replace(self, activations={}, signature=self.signature[:0].clone())


def trajectory(
    prompt: Sequence[int],
    answer: Sequence[int],
    logits: torch.Tensor,
    activations: Mapping[str, torch.Tensor],
    top_k: int = 32,
    background: Mapping[str, torch.Tensor] | None = None,
) -> Trajectory:
    """A trajectory from what a generation gave.

    Args:
        prompt: token ids.
        answer: the T token ids that were generated.
        logits: (T, vocabulary), those from which the answer's tokens were taken.
        activations: path to (features,), pooled over positions: the inputs of the adapted modules,
            or the activity of rank channels.
        top_k: how many logits of a position are kept.
        background: as in `signatures.sketch`.

    Raises:
        errors.InvalidInputError: not as many positions of logits as tokens, or an activation that
            is not finite.
    """
    if logits.dim() != 2 or len(logits) != len(answer):
        raise errors.InvalidInputError(
            f"a trajectory of {len(answer)} tokens: logits have shape {tuple(logits.shape)}; give "
            "one row for each token of the answer"
        )
    values = logits.detach().float().cpu()
    top = values.topk(min(top_k, values.shape[1]), dim=1)
    return Trajectory(
        prompt=torch.tensor(prompt, dtype=torch.int32),
        answer=torch.tensor(answer, dtype=torch.int32),
        top_ids=top.indices.int(),
        top_logits=top.values.clamp(-_HALF_MAX, _HALF_MAX).half(),
        log_sums=values.logsumexp(dim=1),
        activations={
            path: value.detach().float().cpu().clamp(-_HALF_MAX, _HALF_MAX).half()
            for path, value in activations.items()
        },
        signature=signatures.sketch(activations, background=background).half(),
    )


@dataclasses.dataclass(frozen=True)
class CacheSettings:
    """Bounds of a cache."""

    entries: int = 1024
    """Trajectories with activations, at most."""
    remainders: int = 4096
    """Consolidated trajectories without activations, at most."""
    size_bytes: int = 64 * 2**20
    """All together; remainders take at most half of it, and what is larger is not kept."""
    window: int = 100
    """Trajectories over which hit rates are taken."""
    same: float = 0.9
    """Cosine of signatures from which on another trajectory is a hit."""
    half_life: float = 200.0
    """Trajectories after which a hit counts half, when one has to go."""


@dataclasses.dataclass
class _Entry:
    held: Trajectory
    worth: float
    """log2 of the hits, each halved with age, plus the time of the last one in half-lives."""
    hits: int = 0
    consolidated: bool = False


class TrajectoryCache:
    """An agent's trajectories, bounded in number and in bytes; for one thread at a time.

    What goes first when it is full: the activations of what was consolidated, whose remainder
    stays for rehearsal; then what was hit least often and longest ago (combined recency and
    frequency, LRFU: Lee et al. 2001). Of the remainders those with the smallest keys stay, and keys
    are hashes: a uniform sample of all that was ever consolidated, as reservoir sampling would
    keep, but without a random state (bottom-k sampling: Cohen and Kaplan 2007).
    """

    def __init__(self, settings: CacheSettings | None = None) -> None:
        """Empty."""
        self._settings = settings or CacheSettings()
        self._clear()

    def _clear(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._remainders: dict[str, Trajectory] = {}
        self._recent: collections.deque[tuple[bool, torch.Tensor]] = collections.deque(
            maxlen=self._settings.window
        )
        """Whether each was a hit, and its signature."""
        self._clock = 0
        self._entry_bytes = 0
        self._remainder_bytes = 0

    def __len__(self) -> int:
        """Trajectories held, with or without activations."""
        return len(self._entries) + len(self._remainders)

    def __contains__(self, key: str) -> bool:
        return key in self._entries or key in self._remainders

    @property
    def size_bytes(self) -> int:
        """What all take in memory."""
        return self._entry_bytes + self._remainder_bytes

    @property
    def kept_signatures(self) -> Mapping[str, torch.Tensor]:
        """Key to signature of those that have their activations."""
        return {key: entry.held.signature for key, entry in self._entries.items()}

    def add(self, seen: Trajectory) -> bool:
        """Counts a trajectory, and keeps it unless the same prompt and answer are kept.

        The logits of the first time stay: they are what the model is held to.

        Returns:
            Whether it was a hit: the same prompt and answer, or a signature like a kept one's.

        Raises:
            errors.InvalidInputError: its activations were dropped.
        """
        if seen.signature.shape != (signatures.SIZE,):
            raise errors.InvalidInputError(
                f"trajectory {seen.key} has no signature: only what was just generated is added"
            )
        self._clock += 1
        known = self._entries.get(seen.key)
        hit = known is not None or seen.key in self._remainders
        if not hit and (near := self.similar(seen.signature, self._settings.same)):
            known, hit = self._entries[near[0][0]], True
        if known is not None:
            known.hits += 1
            known.worth = self._worth(known.worth)
        self._recent.append((hit, seen.signature.clone()))
        if seen.key not in self and seen.size_bytes <= self._settings.size_bytes // 2:
            self._entries[seen.key] = _Entry(seen, self._clock / self._settings.half_life)
            self._entry_bytes += seen.size_bytes
            self._make_room()
        return hit

    def get(self, key: str) -> Trajectory | None:
        """The trajectory of this key, whether or not it has its activations; no hit is counted."""
        entry = self._entries.get(key)
        return entry.held if entry else self._remainders.get(key)

    def hits(self, key: str) -> int:
        """How often a trajectory that has its activations was hit; 0 where it is not held."""
        entry = self._entries.get(key)
        return entry.hits if entry else 0

    def similar(self, signature: torch.Tensor, least: float) -> list[tuple[str, float]]:
        """Keys and cosines of those with activations that are at least so like, likest first."""
        if not self._entries:
            return []
        keys = list(self._entries)
        held = torch.stack([self._entries[key].held.signature for key in keys]).float()
        cosines = held @ signature.float()
        found = [(keys[at], float(cosines[at])) for at in torch.where(cosines >= least)[0].tolist()]
        return sorted(found, key=lambda pair: -pair[1])

    def hit_rate(self, signature: torch.Tensor | None = None, least: float = 0.0) -> float:
        """Share of the window's trajectories that were hits, 0 to 1.

        Args:
            signature: (S,), of unit length: only hits that are like this one count, still as a
                share of all trajectories.
            least: how like, a cosine.
        """
        return self.hits_like(signature, least) / len(self._recent) if self._recent else 0.0

    def hits_like(self, signature: torch.Tensor | None = None, least: float = 0.0) -> int:
        """Hits in the window, as for `hit_rate`."""
        found = [row for hit, row in self._recent if hit]
        if signature is None or not found:
            return len(found)
        return int((torch.stack(found).float() @ signature.float() >= least).sum())

    def consolidate(self, keys: Sequence[str]) -> int:
        """Marks trajectories as learned by a slower layer; their activations go first.

        Returns:
            How many were newly marked.
        """
        entries = [self._entries[key] for key in dict.fromkeys(keys) if key in self._entries]
        new = [entry for entry in entries if not entry.consolidated]
        for entry in new:
            entry.consolidated = True
        return len(new)

    def forget(self, prompts: Iterable[Sequence[int]]) -> int:
        """Drops what was said to prompts, where it is right no more; returns how many there were.

        Args:
            prompts: token ids.
        """
        wanted = {tuple(prompt) for prompt in prompts}
        gone = [k for k, one in self._entries.items() if tuple(one.held.prompt.tolist()) in wanted]
        for key in gone:
            self._entry_bytes -= self._entries.pop(key).held.size_bytes
        left = [k for k, one in self._remainders.items() if tuple(one.prompt.tolist()) in wanted]
        for key in left:
            self._remainder_bytes -= self._remainders.pop(key).size_bytes
        return len(gone) + len(left)

    def rehearsal(self, count: int, generator: torch.Generator) -> list[Trajectory]:
        """A uniform draw without repeats from all that is held, with or without activations.

        Args:
            count: how many; fewer where fewer are held.
            generator: equal states draw equal trajectories from equal caches.
        """
        held = [entry.held for entry in self._entries.values()] + list(self._remainders.values())
        return [held[at] for at in torch.randperm(len(held), generator=generator)[:count].tolist()]

    def state(self) -> states.State:
        """All of it, for `restore`."""
        entries = [entry.held for entry in self._entries.values()]
        held = [*entries, *self._remainders.values()]
        own = [tuple((path, len(value)) for path, value in one.activations.items()) for one in held]
        layouts = list(dict.fromkeys(own))
        record = {
            "clock": self._clock,
            "entries": [[e.worth, e.hits, e.consolidated] for e in self._entries.values()],
            "layouts": layouts,
            "layout": [layouts.index(layout) for layout in own],
            "recent": [hit for hit, _ in self._recent],
        }
        fields = ("prompt", "answer", "top_ids", "top_logits", "log_sums", "signature")
        groups = {name: [getattr(one, name) for one in held] for name in fields}
        groups["activations"] = [
            torch.cat([torch.empty(0, dtype=torch.float16), *one.activations.values()])
            for one in held
        ]
        groups["recent"] = [signature for _, signature in self._recent]
        return states.pack(record, groups)

    def restore(self, state: states.State) -> None:
        """Takes over a state, in place of what is held; where bounds are tighter now, it shrinks.

        Raises:
            errors.IntegrityError: the state does not fit together.
        """
        record, groups = states.unpack(state)
        self._clear()
        recent, activations = groups.pop("recent"), groups.pop("activations")
        for at, (number, flat) in enumerate(zip(record["layout"], activations, strict=True)):
            layout = record["layouts"][number]
            parts = flat.split([size for _, size in layout]) if layout else ()
            fields = {name: values[at] for name, values in groups.items()}
            held = {path: part for (path, _), part in zip(layout, parts, strict=True)}
            one = Trajectory(**fields, activations=held)
            if at < len(record["entries"]):
                self._entries[one.key] = _Entry(one, *record["entries"][at])
                self._entry_bytes += one.size_bytes
            else:
                self._remainders[one.key] = one
                self._remainder_bytes += one.size_bytes
        self._clock = record["clock"]
        self._recent.extend(zip(record["recent"], recent, strict=True))
        self._make_room()
        self._trim_remainders()

    def _worth(self, worth: float) -> float:
        """With one more hit now: log2(2^worth + 2^now), by which the oldest never overflows."""
        now = self._clock / self._settings.half_life
        low, high = sorted((worth, now))
        return high + math.log2(1 + 2 ** (low - high))

    def _make_room(self) -> None:
        settings = self._settings
        while len(self._entries) > settings.entries or self.size_bytes > settings.size_bytes:
            key = min(self._entries, key=self._first_to_go)
            entry = self._entries.pop(key)
            self._entry_bytes -= entry.held.size_bytes
            if entry.consolidated:
                self._remainders[key] = entry.held.without_activations()
                self._remainder_bytes += self._remainders[key].size_bytes
            self._trim_remainders()

    def _trim_remainders(self) -> None:
        most, most_bytes = self._settings.remainders, self._settings.size_bytes // 2
        while len(self._remainders) > most or self._remainder_bytes > most_bytes:
            key = max(self._remainders)
            self._remainder_bytes -= self._remainders.pop(key).size_bytes

    def _first_to_go(self, key: str) -> tuple[bool, float, str]:
        entry = self._entries[key]
        return not entry.consolidated, entry.worth, key
