"""What the embedded base is good for: `python -m benchmarks.base_model [--base PATH]`.

What it knows, whether it says so when it does not, and how well its hidden state tells the
questions of a document apart, beside the sentence embedder that taught it.
"""

from __future__ import annotations

import argparse
import pathlib

import torch

from services.gateway.command_line import questions
from shared import grading
from shared.models import base as bases
from shared.models import embedder as embedding
from shared.models import greedy
from shared.models.embedded.recipe import conversations

_FOLDERS = ("documents", "held_out")


def main() -> None:
    """Prints one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default=bases.EMBEDDED)
    base = bases.load(parser.parse_args().base)
    facts = conversations.known_facts()
    first = [(fact.questions[0], fact.answer) for fact in facts]
    kept_out = [(wording, fact.answer) for fact in facts for wording in fact.held_out]
    print(f"known facts right, first wording:       {_right(base, first):.1%} of {len(first)}")
    print(
        f"known facts right, wordings kept out:   {_right(base, kept_out):.1%} of {len(kept_out)}"
    )
    exams = [
        questions.read_facts(path)
        for folder in _FOLDERS
        for path in sorted((pathlib.Path(__file__).parent / folder).glob("*.json"))
    ]
    asked = [fact.ask for exam in exams for fact in exam]
    unknown = greedy.answers(base, asked).count(conversations.UNKNOWN_ANSWER)
    print(f"'I do not know.' about documents:       {unknown / len(asked):.1%} of {len(asked)}")
    embedder = embedding.Embedder()
    found, taught = 0, 0
    for exam in exams:
        texts = [fact.ask for fact in exam] + [fact.unseen for fact in exam]
        found += _nearest_right(_hidden(base, texts))
        taught += _nearest_right(torch.from_numpy(embedder.embed(texts)))
    print(f"unseen wording nearest to its question: {found / len(asked):.1%} of {len(asked)}")
    print(f"  by the sentence embedder:             {taught / len(asked):.1%}")


def _right(base: bases.BaseModel, asked: list[tuple[str, str]]) -> float:
    given = greedy.answers(base, [question for question, _ in asked])
    right = [
        grading.is_right(answer, wanted) for answer, (_, wanted) in zip(given, asked, strict=True)
    ]
    return sum(right) / len(right)


@torch.no_grad()
def _hidden(base: bases.BaseModel, texts: list[str]) -> torch.Tensor:
    """What enters the last layer at the end of each question, shape (texts, hidden)."""
    rows = [torch.tensor([base.prompt_ids(text)]) for text in texts]
    states = [base.model(ids, output_hidden_states=True).hidden_states[-2] for ids in rows]
    return torch.stack([state[0, -1] for state in states])


def _nearest_right(vectors_2N_D: torch.Tensor) -> int:
    """Of N questions and their N other wordings, how many of these are nearest to their own."""
    asked_N_D, unseen_N_D = vectors_2N_D.chunk(2)
    mean_D = asked_N_D.mean(0)
    asked_N_D = torch.nn.functional.normalize(asked_N_D - mean_D, dim=-1)
    unseen_N_D = torch.nn.functional.normalize(unseen_N_D - mean_D, dim=-1)
    nearest_N = (unseen_N_D @ asked_N_D.T).argmax(dim=1)
    return int((nearest_N == torch.arange(len(nearest_N))).sum())


if __name__ == "__main__":
    main()
