"""The own loop's network: a transformers model whose layers are exchanged while a training lasts.

Logits are computed where answers are predicted, nowhere else. Right-padded rows need no mask: what
is padded comes after all that is read. Frozen lower layers are computed once for each row and kept.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils import checkpoint as recomputing

from services.trainer import data, network
from services.trainer.lean import head as heads
from services.trainer.lean import linear as lean
from services.trainer.lean import norm, products
from shared import errors
from shared.lora import linear

_KEPT_STATES_BYTES = 256 * 1024 * 1024
"""Of rows at the entry of the trained part."""
_CHANGES_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale")
"""Fields of a configuration under which logits are more than the output layer's product."""
_PROBED_ROWS, _PROBED_TOKENS = 2, 8


class Lean(network.WholeModel):
    """See `network.Network`: its answers are last hidden states; logits where it must be."""

    def __init__(
        self,
        model: Any,
        adapters: Mapping[str, linear.Adapter],
        how: products.Products,
        switch: lean.Switch,
        from_layer: int,
    ) -> None:
        """Takes the model with its layers already exchanged, see `installed`."""
        matrices = [m for one in adapters.values() for m in (one.lora_a, one.lora_b)]
        parameters = [one for one in matrices if isinstance(one, torch.nn.Parameter)]
        super().__init__(model, parameters, lambda: _off(switch))
        self._inner = model.base_model
        out = model.get_output_embeddings()
        plain = type(out) is torch.nn.Linear and not any(
            getattr(model.config, name, None) for name in _CHANGES_LOGITS
        )
        self._head = heads.Head(out, how) if plain else None
        self._from_layer = from_layer
        self._kept: dict[tuple[int, ...], torch.Tensor] = {}
        self._room_bytes = _KEPT_STATES_BYTES
        self.last_mlp: lean.GatedMLP | None = None
        """Of the last layer, where it needs to see the answers' tokens alone."""

    def states(self, batch: data.Batch) -> torch.Tensor:
        """See `Network`: what enters the first adapted layer."""
        if not self._from_layer:
            return super().states(batch)
        lengths = batch.attention_mask.sum(1).tolist()
        rows = [
            tuple(ids[:length])
            for ids, length in zip(batch.input_ids.tolist(), lengths, strict=True)
        ]
        missing = [at for at, row in enumerate(rows) if row not in self._kept]
        found: dict[tuple[int, ...], torch.Tensor] = {}
        if missing:
            states_M_T_H = self.lower(batch.input_ids[missing])
            found = {
                rows[at]: one[: lengths[at]] for at, one in zip(missing, states_M_T_H, strict=True)
            }
            for row, one in found.items():
                if self._room_bytes >= one.nbytes:
                    self._room_bytes -= one.nbytes
                    self._kept[row] = one.clone()
        parts = [self._kept[row] if row in self._kept else found[row] for row in rows]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)

    @torch.no_grad()
    def lower(self, ids_B_T: torch.Tensor) -> torch.Tensor:
        """Hidden states behind the frozen lower layers."""
        embeds = self._model.get_input_embeddings()(ids_B_T)
        with self._stack(slice(0, self._from_layer), norm=torch.nn.Identity()):
            states: torch.Tensor = self._through(embeds)
        return states

    def answers(self, batch: data.Batch, states_B_T_H: torch.Tensor) -> torch.Tensor:
        """See `Network`: last hidden states, (N, hidden)."""
        if self._head is None:
            with self._stack(slice(self._from_layer, None)):
                out = self._model(inputs_embeds=states_B_T_H, use_cache=False)
            logits_N_V: torch.Tensor = out.logits[batch.counts].float()
            return logits_N_V
        places_N = batch.counts.flatten().nonzero()[:, 0]
        if self.last_mlp is not None:
            self.last_mlp.only_N = places_N
        return self.upper(states_B_T_H).flatten(0, 1)[places_N]

    def upper(self, states_B_T_H: torch.Tensor) -> torch.Tensor:
        """Last hidden states of what enters the trained part."""
        with self._stack(slice(self._from_layer, None)):
            return self._through(states_B_T_H)

    def cross_entropy(self, answers_N: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
        """See `Network`."""
        if self._head is None:
            return super().cross_entropy(answers_N, labels_N)
        return self._head.cross_entropy(answers_N, labels_N)

    def divergence(self, answers_N: torch.Tensor, base_N: torch.Tensor) -> torch.Tensor:
        """See `Network`."""
        if self._head is None:
            return super().divergence(answers_N, base_N)
        return self._head.divergence(answers_N, base_N)

    def likeliest(self, answers_N: torch.Tensor) -> torch.Tensor:
        """See `Network`."""
        if self._head is None:
            return super().likeliest(answers_N)
        return self._head.likeliest(answers_N)

    def _through(self, embeds_B_T_H: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._inner(
            inputs_embeds=embeds_B_T_H, use_cache=False
        ).last_hidden_state
        return out

    @contextlib.contextmanager
    def _stack(self, which: slice, norm: torch.nn.Module | None = None) -> Iterator[None]:
        """Some of the decoder's layers as if they were all."""
        if not self._from_layer:
            yield
            return
        inner = self._inner
        before = inner.layers, inner.norm
        inner.layers, inner.norm = inner.layers[which], norm or inner.norm
        try:
            yield
        finally:
            inner.layers, inner.norm = before


@contextlib.contextmanager
def installed(
    model: Any,
    adapters: Mapping[str, linear.Adapter],
    gradient_checkpointing: bool = False,
    from_layer: int = 0,
) -> Iterator[Lean]:
    """A model with its layers exchanged; the very modules it had are back afterwards.

    Args:
        model: a frozen transformers causal LM in evaluation mode.
        adapters: what is trained, by path of the layer.
        gradient_checkpointing: keep the inputs of decoder layers alone, compute the rest twice.
        from_layer: decoder layers below have no adapters; their outputs are kept.

    Raises:
        errors.ConfigError: a quantised layer can't be trained through, or the model can't be cut
            at that layer.
    """
    how = products.Products.best_for(model.get_input_embeddings().weight)
    switch = lean.Switch()
    exchanged: list[tuple[torch.nn.Module, str, torch.nn.Module]] = []

    def put(path: str, module: torch.nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        place = model.get_submodule(parent)
        exchanged.append((place, name, place._modules[name]))
        place._modules[name] = module

    layers = list(getattr(model.base_model, "layers", ()))
    _check_cut(model, adapters, layers, from_layer)
    head = model.get_output_embeddings()
    try:
        for path, module in list(model.named_modules()):
            if isinstance(module, torch.nn.Linear) and (module is not head or path in adapters):
                products.weight_of(module)
                put(path, lean.Linear(module, adapters.get(path), how, switch))
            elif (instead := _norm_like(module)) is not None:
                put(path, instead)
        for path, module in list(model.named_modules()):
            if (mlp := _mlp_like(module)) is not None:
                put(path, mlp)
        net = Lean(model, adapters, how, switch, from_layer)
        if layers and isinstance(mlp := getattr(layers[-1], "mlp", None), lean.GatedMLP):
            net.last_mlp = mlp
        if from_layer:
            _check_halves(model, net)
        if gradient_checkpointing:
            for layer in layers:
                layer.forward = functools.partial(_twice, layer.forward)
        yield net
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)
        for place, name, module in reversed(exchanged):
            place._modules[name] = module


@contextlib.contextmanager
def _off(switch: lean.Switch) -> Iterator[None]:
    switch.on = False
    try:
        yield
    finally:
        switch.on = True


def _twice(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """A forward pass that is computed again for the backward pass."""
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return recomputing.checkpoint(
        functools.partial(forward, **named), *arguments, use_reentrant=False
    )


def _norm_like(module: torch.nn.Module) -> norm.RMSNorm | None:
    """The lean form of a norm, where it computes the same: some models' add one to the weight."""
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not type(module).__name__.endswith("RMSNorm") or weight is None or epsilon is None:
        return None
    lean_norm = norm.RMSNorm(weight, epsilon)
    return lean_norm if _alike(module, lean_norm, weight.shape[-1], weight) else None


def _mlp_like(module: torch.nn.Module) -> lean.GatedMLP | None:
    """The lean form of a gated MLP whose layers are lean, where it computes the same."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if isinstance(module, lean.GatedMLP) or not all(isinstance(p, lean.Linear) for p in parts):
        return None
    gate, up, down = parts
    mlp = lean.GatedMLP(gate, up, down)  # type: ignore[arg-type]
    hidden: int = gate.in_features  # type: ignore[union-attr]
    weight = next(module.parameters())
    return mlp if _alike(module, mlp, hidden, weight) else None


@torch.no_grad()
def _alike(one: torch.nn.Module, other: torch.nn.Module, width: int, like: torch.Tensor) -> bool:
    """Whether two modules make the same of random input, of usual size and of large."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_PROBED_TOKENS, width, generator=generator)
    # Weights in 4 bits are bytes: only those of a norm tell the dtype that is computed in.
    x = x.to(like.device, like.dtype if like.is_floating_point() else torch.bfloat16)
    for size in (1, 8):
        expected = one(size * x).float()
        # The outputs of an untrained or a narrow layer are so small that any would be near them.
        near = 1e-2 * float(expected.std())
        if not torch.allclose(other(size * x).float(), expected, rtol=1e-2, atol=near):
            return False
    return True


def _check_cut(
    model: Any, adapters: Mapping[str, linear.Adapter], layers: list[Any], from_layer: int
) -> None:
    if not from_layer:
        return
    if not 0 < from_layer < len(layers) or not hasattr(model.base_model, "norm"):
        raise errors.ConfigError(
            f"trainable_from_layer {from_layer}: the base model has {len(layers)} decoder layers "
            "that can be cut; give a number below, or 0"
        )
    kinds = list(getattr(model.config, "layer_types", None) or ())
    if kinds[from_layer:] != kinds[: len(kinds) - from_layer]:
        # transformers gives each layer the attention mask of its place, which a cut changes.
        raise errors.ConfigError(
            f"trainable_from_layer {from_layer}: this base model's layers are of several kinds "
            f"({', '.join(sorted(set(kinds)))}), so that it can't be cut there; set it to 0"
        )
    frozen = {id(module) for layer in layers[:from_layer] for module in layer.modules()}
    wrong = [path for path in adapters if id(model.get_submodule(path)) in frozen]
    if wrong:
        raise errors.InternalError(f"adapters below layer {from_layer}: {wrong[:3]}")


@torch.no_grad()
def _check_halves(model: Any, net: Lean) -> None:
    """That the lower and the upper layers one after the other are the model."""
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(_PROBED_ROWS * _PROBED_TOKENS, device=device).view(_PROBED_ROWS, -1)
    whole = model.base_model(ids, use_cache=False).last_hidden_state
    if not torch.allclose(net.upper(net.lower(ids)).float(), whole.float(), rtol=1e-2, atol=1e-2):
        raise errors.ConfigError(
            "trainable_from_layer: this base model computes more between its layers than can be "
            "cut; set it to 0"
        )
