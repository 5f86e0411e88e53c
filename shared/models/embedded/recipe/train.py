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
import copy
import dataclasses
import json
import pathlib
import time

import torch
import torch.nn.functional as F
import transformers

from shared.models import embedder as embedding
from shared.models import files
from shared.models.embedded.recipe import corpus as corpora
from shared.models.embedded.recipe import muon
from shared.models.embedded.recipe import recipe as recipes

_SAVE_EVERY_STEPS = 200
_TELL_EVERY_STEPS = 50


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
    distance = (1 - (guess_B_D * batch["vectors"]).sum(-1)).mean()
    logits = guess_B_D @ guess_B_D.T / temperature
    itself = torch.eye(len(logits), dtype=torch.bool)
    same = (batch["meaning"][:, None] == batch["meaning"][None, :]) & ~itself
    logs = logits.masked_fill(itself, -1e9).log_softmax(-1)
    has_pair = same.any(-1)
    contrast = -(logs * same).sum(-1)[has_pair] / same.sum(-1)[has_pair]
    return distance, contrast.mean() if len(contrast) else distance * 0


def build_model(
    recipe: recipes.Recipe,
    vocab: transformers.PreTrainedTokenizerFast,
    word_vectors_V_H: torch.Tensor,
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


class Training:
    """One training, which can be left at any step and taken up again."""

    def __init__(self, recipe: recipes.Recipe, work: pathlib.Path) -> None:
        """Makes the corpus and a fresh model, or goes on from what the work folder holds."""
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        started = time.perf_counter()
        self._recipe, self._state_path = recipe, work / "training.pt"
        self._corpus = corpora.Corpus(recipe, work)
        rows = sum(map(len, self._corpus.groups))
        print(f"corpus: {rows} conversations, {len(self._corpus.prose)} prose tokens, "
              f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
        self.model = build_model(recipe, self._corpus.tokenizer, self._corpus.word_vectors)
        self._head = MeaningHead(recipe.hidden)
        named = list(self.model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in named if p.ndim != 2 or "embed" in name]
        adamw = torch.optim.AdamW(
            [*others, *self._head.parameters()], lr=recipe.adamw_rate, weight_decay=0.0
        )
        self._optimisers = [muon.Muon(matrices, lr=recipe.muon_rate), adamw]
        self._rates = [group["lr"] for one in self._optimisers for group in one.param_groups]
        self.step, self.tokens, self.seconds = 0, 0, time.perf_counter() - started
        self._batches = corpora.batches(self._corpus, recipe)
        if self._state_path.is_file():
            self._resume()

    def run(self, output: pathlib.Path) -> None:
        """Trains to the end; the checkpoint folder is written anew now and then."""
        while self.step < self._recipe.steps:
            started = time.perf_counter()
            told = self._train_step()
            self.step += 1
            self.seconds += time.perf_counter() - started
            last = self.step == self._recipe.steps
            if last or self.step % _TELL_EVERY_STEPS == 0:
                print(f"step {self.step} of {self._recipe.steps}, {told}, {self.tokens} tokens, "
                      f"{self.seconds:.0f} s", flush=True)  # fmt: skip
            if last or self.step % _SAVE_EVERY_STEPS == 0:
                self._keep()
                save(self, self._corpus.tokenizer, self._recipe, output)
        self._state_path.unlink(missing_ok=True)

    def _train_step(self) -> str:
        recipe, batch = self._recipe, next(self._batches)
        out = self.model.model(batch["ids"], output_hidden_states=True)
        counts_B_T = batch["answers"][:, 1:]
        logits_N_V = self.model.lm_head(out.last_hidden_state[:, :-1][counts_B_T])
        language = F.cross_entropy(logits_N_V, batch["ids"][:, 1:][counts_B_T])
        at = torch.arange(len(batch["ids"]))
        guess_B_D = self._head(out.hidden_states[-2][at, batch["start"]])
        distance, contrast = meaning_losses(guess_B_D, batch, recipe.contrast_temperature)
        prose_ids = self._prose()
        prose_logits = self.model(prose_ids[:, :-1]).logits
        prose = F.cross_entropy(prose_logits.flatten(0, 1), prose_ids[:, 1:].flatten())
        loss = (
            language + recipe.prose_weight * prose
            + recipe.meaning_weight * distance + recipe.contrast_weight * contrast
        )  # fmt: skip
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [*self.model.parameters(), *self._head.parameters()]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        share = recipes.learning_rate_share(self.step, recipe)
        groups = (group for optimiser in self._optimisers for group in optimiser.param_groups)
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * share
        for optimiser in self._optimisers:
            optimiser.step()
        self.tokens += batch["ids"].numel() + prose_ids.numel()
        return (f"answers {language:.3f}, prose {prose:.3f}, meaning {distance:.3f}, "
                f"contrast {contrast:.3f}")  # fmt: skip

    def _prose(self) -> torch.Tensor:
        """Random stretches of prose, shape (rows, tokens)."""
        recipe, stream = self._recipe, self._corpus.prose
        starts = torch.randint(0, len(stream) - recipe.prose_tokens, (recipe.prose_rows,))
        return stream[starts[:, None] + torch.arange(recipe.prose_tokens)]

    def _keep(self) -> None:
        state = {
            "recipe": dataclasses.asdict(self._recipe),
            "model": self.model.state_dict(),
            "head": self._head.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "random": torch.get_rng_state(),
            "counts": [self.step, self.tokens, self.seconds],
        }
        draft = self._state_path.with_suffix(".draft")
        torch.save(state, draft)
        draft.replace(self._state_path)

    def _resume(self) -> None:
        state = torch.load(self._state_path, weights_only=True)
        if state["recipe"] != dataclasses.asdict(self._recipe):
            raise SystemExit(f"{self._state_path} is of another recipe: remove it to begin anew")
        self.model.load_state_dict(state["model"])
        self._head.load_state_dict(state["head"])
        for optimiser, kept in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.tokens, self.seconds = state["counts"]
        for _ in range(self.step):
            next(self._batches)
        torch.set_rng_state(state["random"])
        print(f"training: goes on at step {self.step}", flush=True)


def save(
    training: Training,
    vocab: transformers.PreTrainedTokenizerFast,
    recipe: recipes.Recipe,
    output: pathlib.Path,
) -> None:
    """Writes weights (float16), configuration, tokenizer and the recipe's figures."""
    output.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(training.model).half().save_pretrained(output)
    vocab.save_pretrained(output)
    # Without the line for each merge, which nearly doubles it.
    tokens = output / "tokenizer.json"
    content = json.loads(tokens.read_text(encoding="utf-8"))
    compact = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    tokens.write_text(compact + "\n", encoding="utf-8")
    facts = {
        **dataclasses.asdict(recipe),
        "steps": training.step,
        "seconds": round(training.seconds),
        "tokens": training.tokens,
        files.WEIGHTS_HASH: files.sha256(output / files.WEIGHTS),
    }
    (output / files.RECIPE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="resumable state")
    for field in dataclasses.fields(recipes.Recipe):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    arguments = vars(parser.parse_args())
    output, work = arguments.pop("output"), arguments.pop("work")
    work.mkdir(parents=True, exist_ok=True)
    Training(recipes.Recipe(**arguments), work).run(output)


if __name__ == "__main__":
    main()
