"""The lean functions against what autograd makes of the plain formulas."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers

from services.trainer import network
from services.trainer.lean import head, linear, norm, products
from services.trainer.lean import network as lean
from shared import errors
from shared.lora import linear as adapters
from shared.models import quantization
from tests import tiny_model
from tests.unit.trainer import trainings

ALL_SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SMALL: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ways = pytest.mark.parametrize("widen", [False, True])
in_pieces = pytest.mark.usefixtures("small_pieces")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pieces of every matrix, and several parts of every batch."""
    monkeypatch.setattr(products, "_PIECE_FLOATS", 64)
    monkeypatch.setattr(head, "_LOGITS_BYTES", 512)


def random(*shape: int, grad: bool = False, seed: int = 0) -> torch.Tensor:
    found = torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
    return found.requires_grad_(grad)


def layer(inner: int, outer: int, widen: bool, bias: bool = False, rank: int = 3) -> linear.Linear:
    base = torch.nn.Linear(inner, outer, bias=bias)
    base.weight.data, weights = random(outer, inner), [random(inner, rank), random(rank, outer)]
    if bias:
        base.bias.data = random(outer)
    base.requires_grad_(False)
    parameters = [torch.nn.Parameter(one) for one in weights]
    return linear.Linear(
        base, adapters.Adapter(*parameters, 0.7), products.Products(widen), linear.Switch()
    )


def plain(one: linear.Linear, x: torch.Tensor) -> torch.Tensor:
    adapter = one._adapter
    assert adapter is not None
    low = x @ adapter.lora_a
    return F.linear(x, one.base.weight, one.base.bias) + low @ adapter.lora_b * adapter.scale


def same_gradients(
    found: Callable[[], torch.Tensor],
    expected: Callable[[], torch.Tensor],
    leaves: list[torch.Tensor],
) -> None:
    """Both have the same value and the same gradients to the leaves."""
    one, other = found(), expected()
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    weights = random(*one.shape, seed=5)
    got = torch.autograd.grad((one * weights).sum(), leaves)
    wanted = torch.autograd.grad((other * weights).sum(), leaves)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


@in_pieces
@ways
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_has_the_gradients_of_the_formula(widen: bool, bias: bool) -> None:
    one, x = layer(10, 14, widen, bias), random(2, 5, 10, grad=True)
    same_gradients(lambda: one(x), lambda: plain(one, x), [x, *_matrices(one)])


@in_pieces
@ways
def test_a_gated_mlp_has_the_gradients_of_the_formula(widen: bool) -> None:
    gate, up, down = layer(10, 14, widen), layer(10, 14, widen), layer(14, 10, widen)
    mlp, x = linear.GatedMLP(gate, up, down), random(2, 5, 10, grad=True)

    def expected() -> torch.Tensor:
        return plain(down, F.silu(plain(gate, x)) * plain(up, x))

    leaves = [x, *(m for one in (gate, up, down) for m in _matrices(one))]
    same_gradients(lambda: mlp(x), expected, leaves)
    mlp.only_N = torch.tensor([1, 6, 7])
    counts = torch.zeros(10).index_fill(0, mlp.only_N, 1.0).view(2, 5, 1)
    same_gradients(lambda: mlp(x), lambda: expected() * counts, leaves)


def test_the_bare_layer_is_left_when_the_adapters_are_switched_off() -> None:
    one, x = layer(10, 14, widen=False), random(5, 10, grad=True)
    one._switch.on = False
    same_gradients(lambda: one(x), lambda: F.linear(x, one.base.weight), [x])


def test_a_norm_has_the_gradients_of_the_formula() -> None:
    weight, x = random(10), random(2, 5, 10, grad=True)
    one = norm.RMSNorm(weight, 1e-5)
    same_gradients(lambda: one(x), lambda: F.rms_norm(x, (10,), weight, 1e-5), [x])


@in_pieces
@ways
@pytest.mark.parametrize("bias", [False, True])
def test_losses_have_the_gradients_of_those_over_all_logits(widen: bool, bias: bool) -> None:
    projection = torch.nn.Linear(10, 37, bias=bias).requires_grad_(False)
    one = head.Head(projection, products.Products(widen))
    states, base = random(9, 10, grad=True), random(9, 10, seed=1)
    labels = torch.tensor([0, 36, 5, 6, 7, 8, 20, 36, 1])
    assert len(list(one.parts(states))) > 1
    whole = network.WholeModel(None, [], contextlib.nullcontext)
    same_gradients(
        lambda: one.cross_entropy(states, labels),
        lambda: whole.cross_entropy(projection(states), labels),
        [states],
    )
    same_gradients(
        lambda: one.divergence(states, base),
        lambda: whole.divergence(projection(states), projection(base)),
        [states],
    )
    assert one.likeliest(states).tolist() == projection(states).argmax(-1).tolist()


@in_pieces
def test_no_divergence_is_left_when_both_say_the_same() -> None:
    one = head.Head(torch.nn.Linear(10, 37).requires_grad_(False), products.Products(widen=False))
    states = random(9, 10, grad=True)
    loss = one.divergence(states, states.detach())
    (grad,) = torch.autograd.grad(loss, states)
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-5) and grad.abs().max() < 1e-5


def test_less_is_kept_for_the_backward_pass_than_by_plain_layers() -> None:
    work = trainings.work(kinds=ALL_SEVEN)
    first = work.fresh()
    ids = torch.arange(60).view(2, 30)

    def kept(recompute: bool) -> int:
        with lean.installed(work.base.model, first, recompute) as net, _saved() as sizes:
            net.upper(work.base.model.get_input_embeddings()(ids))
            return sum(sizes.values())

    model = work.base.model
    model.requires_grad_(True)  # What is trained is kept for as much as A and B would be.
    with _saved() as sizes:
        model.base_model(inputs_embeds=model.get_input_embeddings()(ids), use_cache=False)
    assert kept(recompute=True) < 0.5 * kept(recompute=False) < 0.3 * sum(sizes.values())


@contextlib.contextmanager
def _saved() -> Iterator[dict[int, int]]:
    """Bytes of what is kept for a backward pass, by where it lies; weights do not count."""
    sizes: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def pack(one: torch.Tensor) -> torch.Tensor:
        if not isinstance(one, torch.nn.Parameter):
            sizes[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
            alive.append(one)
        return one

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
        yield sizes


def test_a_layer_that_cannot_be_trained_through_is_named() -> None:
    class Odd(torch.Tensor):
        pass

    one = torch.nn.Linear(4, 4)
    one._parameters["weight"] = torch.zeros(4, 4).as_subclass(Odd)  # type: ignore[assignment]
    with pytest.raises(errors.ConfigError, match=r"trainer\.quantization"):
        products.weight_of(one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("act", "exchanged"), [("silu", 2), ("gelu", 0), ("relu", 0)])
def test_an_mlp_is_exchanged_when_it_computes_the_same_alone(
    act: str, exchanged: int, dtype: torch.dtype
) -> None:
    model = untrained(transformers.LlamaConfig(hidden_act=act, **SMALL)).to(dtype)
    with lean.installed(model, {}):
        assert sum(isinstance(one, linear.GatedMLP) for one in model.modules()) == exchanged


@pytest.mark.parametrize(
    ("second", "cut"), [("full_attention", False), ("sliding_attention", True)]
)
def test_a_model_is_not_cut_when_its_layers_see_different_tokens(second: str, cut: bool) -> None:
    config = transformers.Qwen2Config(
        layer_types=["sliding_attention", second],
        use_sliding_window=True,
        sliding_window=12,
        **SMALL,
    )
    refused = pytest.raises(errors.ConfigError, match="several kinds")
    with (
        contextlib.nullcontext() if cut else refused,
        lean.installed(untrained(config), {}, from_layer=1),
    ):
        pass


def untrained(config: Any) -> Any:
    """A frozen model with weights as small as before a training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
    return model.float().eval().requires_grad_(False)


def test_losses_fall_as_without_when_the_base_is_in_four_bits() -> None:
    pytest.importorskip("bitsandbytes", reason="pip install '.[quantized]'")
    base = tiny_model.tiny_base()
    base.model.to(torch.bfloat16)
    quantization.quantize(base.model, "nf4")
    packed = {
        path: module.weight.data.clone()
        for path, module in base.model.named_modules()
        if type(module).__name__ == "Linear4bit"
    }
    assert packed
    steps: dict[str, Any] = {"max_steps": 60, "least_steps": 60, "batch_rows": 3}
    with trainings.opened(base=base, kinds=ALL_SEVEN, **steps) as training:
        losses = [progress.loss for progress in training.loop.run()]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    for path, weight in packed.items():
        assert torch.equal(base.model.get_submodule(path).weight.data, weight)


def _matrices(one: linear.Linear) -> list[torch.Tensor]:
    adapter = one._adapter
    assert adapter is not None
    return [adapter.lora_a, adapter.lora_b]
