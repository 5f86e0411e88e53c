"""What the distiller keeps and rejects: `SKILLMESH_DATA=... python -m benchmarks.data_quality`.

Good pairs are the questions about 200 Wikipedia passages (SQuAD) with their answers and what
GPT-4.1 wrote about these passages, both recorded in `seal_gpt4_1_val.json`, and the facts of this
project's own documents. Bad ones are made of them: answers changed, mixed up, contradicted. All
go through `CloudDistiller`, as a teacher's do. Prints and writes `results/data_quality.json`.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import os
import pathlib
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from benchmarks import results
from services.distiller import distillation, distiller, journal
from services.distiller.providers import base, recorded
from services.distiller.quality import claims, support
from shared import errors
from shared import settings as config
from shared.flight import datasets
from shared.models import embedder as embedders

_RECORDINGS = "seal_gpt4_1_val.json"
_DOCUMENTS = pathlib.Path(__file__).parent / "documents"
_RESULTS = results.FOLDER / "data_quality.json"
_VECTORS = results.KEPT / "data_quality.npz"
_AUXILIARY = re.compile(r"\b(is|are|was|were|has|have|had|can|could|will|did)\b")
_MOST_PAIRS = 400
"""Room for everything that was recorded about one passage."""

Pairs = list[datasets.QAPair]
Mutation = Callable[[datasets.QAPair, random.Random, Sequence[datasets.QAPair]], str]


class _Given(base.CloudProvider):
    """A teacher that says what it is given."""

    name = "given"
    queries_a_call = 1000

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    async def generate_qa(self, request: base.QARequest) -> Pairs:
        return self._pairs


class _Remembered:
    """The project's embedder, which embeds no text twice, from one run to the next."""

    def __init__(self) -> None:
        self._embedder = embedders.Embedder()
        self._known: dict[str, embedders.Vectors] = {}
        if _VECTORS.is_file():
            with np.load(_VECTORS) as kept:
                texts = json.loads(str(kept["texts"]))
                self._known.update(zip(texts, kept["vectors"], strict=True))

    def keep(self) -> None:
        """Writes the vectors down."""
        _VECTORS.parent.mkdir(exist_ok=True)
        texts, rows = json.dumps(list(self._known)), np.stack(list(self._known.values()))
        np.savez(_VECTORS, texts=np.array(texts), vectors=rows)

    async def embed(self, texts: Sequence[str]) -> embedders.Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._embedder.embed(new), strict=True))
        return np.stack([self._known[text] for text in texts])


@dataclasses.dataclass
class _Tally:
    """What became of some sets of pairs."""

    sets: int = 0
    sets_refused: int = 0
    """The task failed: nothing of such a set is trained."""
    pairs: int = 0
    kept: int = 0
    kept_where_not_refused: int = 0
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def row(self) -> dict[str, object]:
        return dataclasses.asdict(self) | {"reasons": dict(self.reasons)}


async def carried(
    provider: base.CloudProvider, queries: Sequence[str], embed: _Remembered, tally: _Tally
) -> list[dict[str, object]]:
    """Distils one set, counts it, and gives back the rejected pairs as they were kept."""
    settings = config.Distiller(max_facts=_MOST_PAIRS)
    with tempfile.TemporaryDirectory() as folder:
        kept = journal.Journal(pathlib.Path(folder))
        cloud = distiller.CloudDistiller(provider, kept, settings, embed=embed.embed)
        request = distillation.DistilRequest("task", tuple(queries))
        tally.sets += 1
        left = -1
        try:
            left = len((await cloud.distil(request, _quiet)).pairs)
        except errors.TeacherError:
            tally.sets_refused += 1
        lines = kept.rejected_path("task").read_text(encoding="utf-8").splitlines()
        answers = [pair for path in pathlib.Path(folder).rglob("*.json")
                   if isinstance(pair := json.loads(path.read_text()), list)
                   and path.parent.name != "skills"]  # fmt: skip
    told = sum(map(len, answers))
    rejected = [json.loads(line) for line in lines]
    tally.pairs += told
    tally.reasons.update(one["reason"] for one in rejected)
    tally.kept += told - len(rejected)
    tally.kept_where_not_refused += max(0, left)
    return rejected


async def _quiet(share: float, detail: str) -> None:
    return None


def facts_of_recordings(path: pathlib.Path) -> list[Pairs]:
    """The questions about each passage, with their answers."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [
        [
            _fact(one["question"], one["answer"], f"{row['title']}\n{row['context']}")
            for one in row["questions"]
        ]
        for row in rows
    ]


def facts_of_documents() -> list[Pairs]:
    """The facts of this project's documents; each document as a whole is their passage."""
    found = []
    for path in sorted(_DOCUMENTS.glob("*.json")):
        text = path.with_suffix(".md").read_text(encoding="utf-8")
        passage = re.sub(r"(?<=[^\n])\n(?=[^\n])", " ", text.lstrip("# "))
        facts = json.loads(path.read_text(encoding="utf-8"))["facts"]
        found.append([_fact(one["ask"], one["answer"], passage) for one in facts])
    return found


def _fact(question: str, answer: str, passage: str) -> datasets.QAPair:
    return datasets.QAPair(question, answer, (), "recorded", "given", 1.0, passage=passage)


def other_number(pair: datasets.QAPair, rng: random.Random, _: Sequence[datasets.QAPair]) -> str:
    """The answer with another number in the place of its first; empty where it has none."""
    match = re.search(r"\d+", pair.answer)
    if match is None:
        return ""
    value = int(match[0]) + rng.choice([-7, -3, -1, 1, 2, 5, 11])
    return f"{pair.answer[: match.start()]}{abs(value) + 1}{pair.answer[match.end() :]}"


def other_name(pair: datasets.QAPair, rng: random.Random, others: Sequence[datasets.QAPair]) -> str:
    """A name that answers a question about another passage; empty where the answer is no name."""
    if not claims.names(pair.answer):
        return ""
    return rng.choice([one.answer for one in others if claims.names(one.answer)])


def other_answer(_: datasets.QAPair, rng: random.Random, others: Sequence[datasets.QAPair]) -> str:
    """Any answer to a question about another passage."""
    return rng.choice(others).answer


def denied(pair: datasets.QAPair, rng: random.Random, _: Sequence[datasets.QAPair]) -> str:
    """The passage's own sentence with the answer, denied; empty where that is not clear."""
    for sentence in support.sentences(pair.passage):
        match = _AUXILIARY.search(sentence)
        if pair.answer in sentence and match and not re.search(r"\b(?:not|no|n't)\b", sentence):
            return f"{sentence[: match.end()]} not{sentence[match.end() :]}"
    return ""


def mutated(
    pairs: Pairs, sets: Sequence[Pairs], mutation: Mutation, rng: random.Random
) -> Iterator[datasets.QAPair]:
    """Every pair with its answer changed, by means of the other sets."""
    others = [pair for some in sets if some is not pairs for pair in some]
    for pair in pairs:
        answer = mutation(pair, rng, others)
        if answer and answer.casefold() != pair.answer.casefold():
            yield dataclasses.replace(pair, answer=answer)


def shuffled(pairs: Pairs, rng: random.Random) -> Pairs:
    """The pairs of one passage, none with its own answer where that is possible."""
    answers = [pair.answer for pair in pairs]
    best = answers
    for _ in range(200):
        mixed = rng.sample(answers, len(answers))
        if sum(map(str.__eq__, mixed, answers)) < sum(map(str.__eq__, best, answers)):
            best = mixed
    changed = [
        dataclasses.replace(pair, answer=answer)
        for pair, answer in zip(pairs, best, strict=True)
        if pair.answer != answer
    ]
    return changed


def contradicted(
    pairs: Pairs, rng: random.Random, others: Sequence[datasets.QAPair], passage: bool
) -> Pairs:
    """Every pair beside one with the same question and the answer to another passage's."""
    twins = [dataclasses.replace(pair, answer=other_answer(pair, rng, others)) for pair in pairs]
    both = [*pairs, *twins]
    return both if passage else [dataclasses.replace(pair, passage="") for pair in both]


async def measure(path: pathlib.Path) -> dict[str, object]:
    """All figures."""
    embed, rng = _Remembered(), random.Random(0)
    recordings, documents = facts_of_recordings(path), facts_of_documents()
    found: dict[str, object] = {}
    everything, samples = _Tally(), list[dict[str, object]]()
    provider = recorded.RecordedProvider(path)
    for at, pairs in enumerate(recordings):
        queries = [pair.question for pair in pairs]
        rejected = await carried(provider, queries, embed, everything)
        samples += [{"passage": at} | one for one in rejected]
        if at % 20 == 0:
            embed.keep()
            print(f"passage {at}", everything.row(), file=sys.stderr, flush=True)
    found["recorded: questions and implications of GPT-4.1"] = everything.row()
    found["rejected"] = samples
    changes = (other_number, other_name, other_answer, denied)
    for mutation in changes:
        changed = [one for some in recordings for one in mutated(some, recordings, mutation, rng)]
        caught = len(support.supported(changed).rejected)
        found[f"answers changed: {mutation.__name__}"] = {"pairs": len(changed), "caught": caught}
    for name, sets in (("passages", recordings), ("documents", documents)):
        others = [pair for pairs in sets for pair in pairs]
        kinds: dict[str, Callable[[Pairs], Pairs]] = {
            "good": lambda pairs: pairs,
            "shuffled": lambda pairs: shuffled(pairs, rng),
            "contradicting one another, passage at hand": lambda pairs, others=others: (  # type: ignore[misc]
                contradicted(pairs, rng, others, True)
            ),
            "contradicting one another, no passage": lambda pairs, others=others: (  # type: ignore[misc]
                contradicted(pairs, rng, others, False)
            ),
            "contradicting the passage": lambda pairs, sets=sets: [  # type: ignore[misc]
                changed
                for mutation in (other_number, other_name)
                for changed in mutated(pairs, sets, mutation, rng)
            ],
        }
        for kind, make in kinds.items():
            tally = _Tally()
            for pairs in sets:
                if made := make(pairs):
                    queries = list(dict.fromkeys(pair.question for pair in made))
                    await carried(_Given(made), queries, embed, tally)
            found[f"{name}: {kind}"] = tally.row()
            embed.keep()
            print(f"{name}: {kind}", tally.row(), file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measures, prints and writes."""
    folder = os.environ.get("SKILLMESH_DATA")
    if folder is None:
        sys.exit(f"set SKILLMESH_DATA to the folder that holds {_RECORDINGS}")
    torch.set_num_threads(1)
    found = asyncio.run(measure(pathlib.Path(folder) / _RECORDINGS))
    samples = found.pop("rejected")
    for name, row in found.items():
        print(f"{name}: {json.dumps(row)}")
    _RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if len(sys.argv) > 1:
        pathlib.Path(sys.argv[1]).write_text(json.dumps(samples, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
