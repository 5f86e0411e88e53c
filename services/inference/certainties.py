"""How sure a model is of the answer that it generates, read off the scores of its tokens.

The length-normalised log-probability and the mean entropy of the next-token distribution, as in
Malinin and Gales, Uncertainty Estimation in Autoregressive Structured Prediction, 2021. Both are of
the model's own distribution, whatever temperature the tokens were chosen with; where a schema says
which may come next, over these. Knows no text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch


@dataclasses.dataclass(eq=False)
class Certainty:
    """Sums over the tokens of one answer, the one that ends it included."""

    tokens: int = 0
    logprob: float = 0.0
    entropy: float = 0.0
    """In nats."""

    @property
    def mean_logprob(self) -> float:
        """Of a token; 0 is certain."""
        return self.logprob / self.tokens if self.tokens else 0.0

    @property
    def mean_entropy(self) -> float:
        """Of the choice of a token, in nats; 0 is certain."""
        return self.entropy / self.tokens if self.tokens else 0.0


def add(
    certainties: Sequence[Certainty | None], logits_B_V: torch.Tensor, tokens: Sequence[int]
) -> None:
    """Adds the latest token of several answers.

    Args:
        certainties: one a row; None is passed over.
        logits_B_V: what the tokens were chosen from, (rows, vocabulary).
        tokens: the chosen ones.
    """
    logprobs_B_V = logits_B_V.float().log_softmax(-1)
    entropies_B = -(logprobs_B_V.exp() * logprobs_B_V).nansum(-1)
    chosen_B = logprobs_B_V.gather(-1, torch.tensor(tokens, device=logits_B_V.device)[:, None])[
        :, 0
    ]
    found = zip(certainties, chosen_B.tolist(), entropies_B.tolist(), strict=True)
    for certainty, logprob, entropy in found:
        if certainty is not None:
            certainty.tokens += 1
            certainty.logprob += logprob
            certainty.entropy += entropy
