"""Trains the embedded base model: `make base-model`.

A Llama-shaped causal language model learns, from text that any Python installation carries and
from templated conversations, to answer what it knows, to say so when it does not, and to
represent questions by their meaning: beside the language-modelling loss, the hidden state at the
start of the answer is regressed on the sentence embedding of the question (all-MiniLM-L6-v2), and
wordings of the same question are pulled together (supervised contrastive loss, Khosla et al.
2020). Matrices are optimised by Muon (Jordan et al. 2024), the rest by AdamW.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import pathlib
import random
import re
import time
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
import transformers

from shared.models import embedder as embedding
from shared.models.embedded.recipe import conversations, families, invention, prose, tokenizer

SHARES = {"known": 0.32, "invented": 0.40, "unknown": 0.28}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out."""

    seed: int = 7
    steps: int = 2500
    tokens_a_step: int = 2400
    """Conversations' tokens a step, padding included."""
    prose_rows: int = 2
    prose_tokens: int = 96
    conversations: int = 60_000
    invented_facts: int = 800
    vocab_size: int = 8192
    hidden: int = 224
    layers: int = 4
    heads: int = 4
    intermediate: int = 512
    muon_rate: float = 0.02
    adamw_rate: float = 0.002
    warmup_steps: int = 15
    flat_share: float = 0.3
    meaning_weight: float = 2.0
    contrast_weight: float = 0.5
    contrast_temperature: float = 0.1
    threads: int = 2


@dataclasses.dataclass(frozen=True)
class Row:
    """One tokenised conversation."""

    ids: list[int]
    answer_start: int
    meaning: int
    """Index of its meaning; -1 where none applies."""
    vector: int
    """Row of its question's embedding; -1 where none applies."""


class Corpus:
    """Tokenised conversations, prose and the embeddings of the questions."""

    def __init__(self, recipe: Recipe) -> None:
        """Generates, embeds and tokenises everything; takes a few minutes."""
        rng = random.Random(recipe.seed)
        embedder = embedding.Embedder()
        words = invention.Words(
            vocabulary=[word for word in embedder.vocabulary() if len(word) > 2],
            nouns=families.nouns(),
        )
        writer = conversations.ConversationWriter(
            words, rng, families.load(), recipe.invented_facts
        )
        self.talks = list(writer.write(recipe.conversations, SHARES))
        paragraphs = prose.paragraphs()
        self.tokenizer = tokenizer.train(
            [*paragraphs, *_plain_wordings(), *_ranked(words.vocabulary)], recipe.vocab_size
        )
        self.word_vectors = word_vectors(self.tokenizer, embedder, recipe.hidden)
        asked = [index for index, talk in enumerate(self.talks) if talk.meaning]
        vectors = embedder.embed([self.talks[index].question for index in asked], 128)
        self.vectors = torch.from_numpy(vectors - vectors.mean(axis=0))
        self.vectors = F.normalize(self.vectors, dim=-1)
        vector_of = {index: row for row, index in enumerate(asked)}
        meanings = {m: i for i, m in enumerate(dict.fromkeys(t.meaning for t in self.talks))}
        questions = self._tokenise(
            [
                f"{tokenizer.USER}{t.question}{tokenizer.END}{tokenizer.ASSISTANT}"
                for t in self.talks
            ]
        )
        answers = self._tokenise([f"{t.answer}{tokenizer.END}" for t in self.talks])
        self.rows = [
            Row(
                ids=question + answer,
                answer_start=len(question),
                meaning=meanings[talk.meaning] if talk.meaning else -1,
                vector=vector_of.get(index, -1),
            )
            for index, (talk, question, answer) in enumerate(
                zip(self.talks, questions, answers, strict=True)
            )
        ]
        stream = list(itertools.chain.from_iterable(
            [*ids, self.tokenizer.eos_token_id] for ids in self._tokenise(paragraphs)
        ))  # fmt: skip
        self.prose = torch.tensor(stream, dtype=torch.long)

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False).input_ids
        return ids

    def groups(self) -> list[list[Row]]:
        """Runs of neighbouring rows, so that wordings of one question stay together."""
        size = 6
        return [self.rows[at : at + size] for at in range(0, len(self.rows) - size, size)]


def batches(corpus: Corpus, recipe: Recipe) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of rows of similar length, each of about `tokens_a_step` tokens."""
    rng = random.Random(recipe.seed + 1)
    groups = corpus.groups()
    while True:
        rng.shuffle(groups)
        for at in range(0, len(groups), 512):
            pool = sorted(groups[at : at + 512], key=lambda group: max(len(r.ids) for r in group))
            ready, batch, width = [], list[Row](), 0
            for group in pool:
                width = max(width, *(len(row.ids) for row in group))
                batch.extend(group)
                if len(batch) * width >= recipe.tokens_a_step:
                    ready.append(batch)
                    batch, width = [], 0
            rng.shuffle(ready)
            yield from (_collate(rows, corpus) for rows in ready)


def _collate(batch: list[Row], corpus: Corpus) -> dict[str, torch.Tensor]:
    width = max(len(row.ids) for row in batch)
    ids_B_T = torch.full((len(batch), width), corpus.tokenizer.pad_token_id)
    weights_B_T = torch.zeros(len(batch), width)
    for index, row in enumerate(batch):
        ids_B_T[index, : len(row.ids)] = torch.tensor(row.ids)
        weights_B_T[index, row.answer_start : len(row.ids)] = 1.0
    vector_rows = torch.tensor([row.vector for row in batch])
    return {
        "ids": ids_B_T,
        "weights": weights_B_T,
        "start": torch.tensor([row.answer_start - 1 for row in batch]),
        "meaning": torch.tensor([row.meaning for row in batch]),
        "vectors": corpus.vectors[vector_rows.clamp(min=0)],
        "has_vector": vector_rows >= 0,
    }


def _plain_wordings() -> list[str]:
    """Families and known facts as they are: invented names would only spoil the vocabulary."""
    found = [w for family in families.load() for w in (*family.questions, *family.statements)]
    facts = conversations.known_facts()
    found += [text for fact in facts for text in (*fact.questions, fact.answer)]
    return [re.sub(r"\{\w\}", "it", wording) for wording in found] * 2


def _ranked(vocabulary: Sequence[str]) -> list[str]:
    """Common English words, each as often as its rank suggests (Zipf's law)."""
    return [
        " ".join([word] * max(2, 12_000 // (rank + 400)))
        for rank, word in enumerate(vocabulary[:9000])
    ]


def word_vectors(
    vocab: transformers.PreTrainedTokenizerFast, embedder: embedding.Embedder, hidden: int
) -> torch.Tensor:
    """Starting values of the token embeddings, shape (vocabulary, hidden), float32.

    A token starts where the sentence embedder puts it when it reads it alone, reduced by principal
    components, as in Model2Vec (Tulkens and van Dongen 2024): a mean of these already tells what a
    sentence is about.
    """
    tokens = vocab.convert_ids_to_tokens(list(range(len(vocab))))
    readable = [t.replace("▁", "") for t in tokens]
    rows = [i for i, text in enumerate(readable) if text.isalpha()]
    vectors = torch.from_numpy(embedder.embed([readable[i] for i in rows], 256))
    vectors = vectors - vectors.mean(0)
    _, _, components = torch.pca_lowrank(vectors, q=hidden, niter=4)
    reduced = F.normalize(vectors @ components, dim=-1)
    started = F.normalize(torch.randn(len(tokens), hidden), dim=-1)
    started[rows] = reduced
    return started


class MeaningHead(torch.nn.Module):
    """Reads the question's meaning off the hidden state; thrown away after training."""

    def __init__(self, hidden: int) -> None:
        """Maps (rows, hidden) to (rows, 384)."""
        super().__init__()
        self.project = torch.nn.Linear(hidden, embedding.DIMENSION)

    def forward(self, hidden_B_H: torch.Tensor) -> torch.Tensor:
        """Unit vectors, shape (rows, 384)."""
        return F.normalize(self.project(hidden_B_H), dim=-1)


def meaning_losses(
    guess_B_D: torch.Tensor, batch: dict[str, torch.Tensor], temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance to the question's embedding, and the contrast between meanings in the batch."""
    keep = batch["has_vector"]
    if not keep.any():
        return guess_B_D.sum() * 0, guess_B_D.sum() * 0
    guess_N_D, meaning_N = guess_B_D[keep], batch["meaning"][keep]
    distance = (1 - (guess_N_D * batch["vectors"][keep]).sum(-1)).mean()
    logits = guess_N_D @ guess_N_D.T / temperature
    itself = torch.eye(len(logits), dtype=torch.bool)
    same = (meaning_N[:, None] == meaning_N[None, :]) & ~itself
    logs = logits.masked_fill(itself, -1e9).log_softmax(-1)
    has_pair = same.any(-1)
    contrast = -(logs * same).sum(-1)[has_pair] / same.sum(-1)[has_pair]
    return distance, contrast.mean() if len(contrast) else distance * 0


def learning_rate_share(step: int, recipe: Recipe) -> float:
    """Warm-up, then flat, then linear to zero."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    flat_until = recipe.steps * recipe.flat_share
    return min(1.0, (recipe.steps - step) / (recipe.steps - flat_until))


def build_model(
    recipe: Recipe, vocab: transformers.PreTrainedTokenizerFast, word_vectors_V_H: torch.Tensor
) -> transformers.LlamaForCausalLM:
    """A freshly initialised Llama of the recipe's shape."""
    config = transformers.LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=vocab.pad_token_id,
        bos_token_id=None,
        eos_token_id=vocab.eos_token_id,
        initializer_range=0.03,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(word_vectors_V_H * 0.6)
    return model


def train(recipe: Recipe, output: pathlib.Path) -> None:
    """Trains by the recipe and writes the checkpoint folder."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    started = time.perf_counter()
    corpus = Corpus(recipe)
    print(f"corpus: {len(corpus.rows)} conversations, {len(corpus.prose)} prose tokens, "
          f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
    model = build_model(recipe, corpus.tokenizer, corpus.word_vectors)
    head = MeaningHead(recipe.hidden)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimisers = [
        torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.01),
        torch.optim.AdamW([*others, *head.parameters()], lr=recipe.adamw_rate, weight_decay=0.0),
    ]
    rates = [group["lr"] for opt in optimisers for group in opt.param_groups]
    stream = batches(corpus, recipe)
    tokens_seen = 0
    for step in range(recipe.steps):
        batch = next(stream)
        out = model.model(batch["ids"], output_hidden_states=True)
        weights = batch["weights"][:, 1:]
        counts = weights > 0
        logits_N_V = model.lm_head(out.last_hidden_state[:, :-1][counts])
        losses_N = F.cross_entropy(logits_N_V, batch["ids"][:, 1:][counts], reduction="none")
        weights = weights[counts]
        language = (losses_N * weights).sum() / weights.sum()
        at = torch.arange(len(batch["ids"]))
        guess = head(out.hidden_states[-2][at, batch["start"]])
        distance, contrast = meaning_losses(guess, batch, recipe.contrast_temperature)
        starts = torch.randint(0, len(corpus.prose) - recipe.prose_tokens, (recipe.prose_rows,))
        prose_ids = corpus.prose[starts[:, None] + torch.arange(recipe.prose_tokens)]
        prose_logits = model(prose_ids[:, :-1]).logits
        prose_loss = F.cross_entropy(prose_logits.flatten(0, 1), prose_ids[:, 1:].flatten())
        loss = (
            language + 0.3 * prose_loss
            + recipe.meaning_weight * distance + recipe.contrast_weight * contrast
        )  # fmt: skip
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 1.0)
        share = learning_rate_share(step, recipe)
        groups = (group for opt in optimisers for group in opt.param_groups)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * share
        for optimiser in optimisers:
            optimiser.step()
        tokens_seen += batch["ids"].numel() + prose_ids.numel()
        if step % 50 == 0 or step == recipe.steps - 1:
            answer = losses_N[weights == 1].mean()
            print(f"step {step} answers {answer:.3f} prose {prose_loss:.3f} "
                  f"meaning {distance:.3f} contrast {contrast:.3f} tokens {tokens_seen} "
                  f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
    save(model, corpus.tokenizer, recipe, output, time.perf_counter() - started, tokens_seen)


def save(
    model: transformers.LlamaForCausalLM,
    vocab: transformers.PreTrainedTokenizerFast,
    recipe: Recipe,
    output: pathlib.Path,
    seconds: float,
    tokens: int,
) -> None:
    """Writes weights (float16), configuration, tokenizer and the recipe's figures."""
    output.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(output)
    vocab.save_pretrained(output)
    facts = {**dataclasses.asdict(recipe), "seconds": round(seconds), "tokens": tokens}
    (output / "recipe.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    for field in dataclasses.fields(Recipe):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    arguments = vars(parser.parse_args())
    output = arguments.pop("output")
    train(Recipe(**arguments), output)


if __name__ == "__main__":
    main()
