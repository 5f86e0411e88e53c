"""What a backend makes of the model: answers, and how right they are.

The loop knows batches and steps, a network knows the forward pass. `WholeModel` is the plain one:
the model's own forward pass with the logits of every token. It holds for any causal LM.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from services.trainer import data

Bare = Callable[[], contextlib.AbstractContextManager[None]]
"""While its context is open the bare base answers, without the adapters."""


class Network(Protocol):
    """A model with trainable adapters.

    What `answers` returns, a row an answer's token, is the network's own affair: logits or less.
    """

    @property
    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """All that is trained, float32, in a fixed order."""
        ...

    def bare(self) -> contextlib.AbstractContextManager[None]:
        """While this is open the bare base answers."""
        ...

    def states(self, batch: data.Batch) -> torch.Tensor:
        """What enters the part that is trained, (rows, tokens, hidden): noise is added to it."""
        ...

    def answers(self, batch: data.Batch, states_B_T_H: torch.Tensor) -> torch.Tensor:
        """What the model says where a label is, (N, features), rows one after the other."""
        ...

    def cross_entropy(self, answers_N: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
        """Summed over the tokens, float32."""
        ...

    def divergence(self, answers_N: torch.Tensor, base_N: torch.Tensor) -> torch.Tensor:
        """Kullback-Leibler from the base's answers to these, summed over the tokens, float32."""
        ...

    def likeliest(self, answers_N: torch.Tensor) -> torch.Tensor:
        """The token with the highest logit, (N,), int64."""
        ...


class WholeModel:
    """Logits of all tokens by the model's own forward pass."""

    def __init__(self, model: Any, parameters: Sequence[torch.nn.Parameter], bare: Bare) -> None:
        """Takes the model with its adapters.

        Args:
            model: the causal LM.
            parameters: what is trained.
            bare: switches the adapters off.
        """
        self._model = model
        self.parameters = parameters
        self.bare = bare

    def states(self, batch: data.Batch) -> torch.Tensor:
        """See `Network`: the token embeddings."""
        found: torch.Tensor = self._model.get_input_embeddings()(batch.input_ids)
        return found

    def answers(self, batch: data.Batch, states_B_T_H: torch.Tensor) -> torch.Tensor:
        """See `Network`: logits, (N, vocabulary), float32."""
        out = self._model(
            inputs_embeds=states_B_T_H, attention_mask=batch.attention_mask, use_cache=False
        )
        logits_N_V: torch.Tensor = out.logits[batch.counts].float()
        return logits_N_V

    def cross_entropy(self, answers_N: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
        """See `Network`."""
        return F.cross_entropy(answers_N, labels_N, reduction="sum")

    def divergence(self, answers_N: torch.Tensor, base_N: torch.Tensor) -> torch.Tensor:
        """See `Network`."""
        card_N_V, base_N_V = answers_N.log_softmax(-1), base_N.log_softmax(-1)
        return F.kl_div(card_N_V, base_N_V, log_target=True, reduction="sum")

    def likeliest(self, answers_N: torch.Tensor) -> torch.Tensor:
        """See `Network`."""
        return answers_N.argmax(-1)
