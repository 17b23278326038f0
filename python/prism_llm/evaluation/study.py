"""What unstructured zeros change, and what they do not: one model dense, masked, and with CSR linears.

The study of Edu-Sparsify-LLMs (TaharHERRI): global magnitude pruning of chosen linears; masked linears keep their dense
tensors, CSR linears store what is left. Deviations, defects of the original: bytes count every index and every buffer
(it counts parameters only, so its CSR matrices weigh nothing); perplexity and speed are measured too; exactly
int(sparsity * weights) weights are pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prism_kernels.nn import CsrLinear, PackedLinear
from prism_kernels.swap import select_linears, swap_linears

from .decode_speed import decode_speed
from .quality import top1_tokens
from .windows import EvaluationText

#: Parts of names, by which linears are put together.
_GROUPS = {"attention": ("attn", "attention"), "mlp": ("mlp", "fc", "feed_forward", "experts")}


@dataclass(frozen=True)
class Variant:
    """One of the three.

    Attributes:
        name: "dense", "masked" or "csr".
        linear_bytes: of the chosen linears' weights as stored, indices included. model_bytes: of all tensors.
        multiplications: per token in the chosen linears that a kernel without wasted work does (kept weights).
        ppl: perplexity. top1: share of positions with the dense model's next token.
        tokens_per_second: of greedy decoding.
    """

    name: str
    linear_bytes: int
    model_bytes: int
    multiplications: int
    ppl: float
    top1: float
    tokens_per_second: float


@dataclass(frozen=True)
class Study:
    """The variants, the share of zeros of every chosen linear and of groups of them, and how it was measured."""

    sparsity: float
    variants: list[Variant]
    layers: dict[str, float] = field(repr=False)
    groups: dict[str, float]
    protocols: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def sparsity_study(
    model: nn.Module,
    text: EvaluationText,
    *,
    sparsity: float = 0.3,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = ("lm_head",),
    csr: Sequence[str] = ("Linear",),
    prompt_tokens: int = 16,
    new_tokens: int = 32,
    budget_s: float = 20.0,
    progress: Callable[[int, int, str], object] | None = None,
) -> Study:
    """Measures a causal language model dense, masked and with CSR linears; the model is changed in place.

    Args:
        model: dense, in memory.
        text: to measure perplexity and agreement on; the first tokens are the prompt of the decoding.
        sparsity: share of all chosen weights that are pruned, by one threshold on |W|.
        targets, ignore: which linears of the decoder blocks are pruned, as in a `Recipe`.
        csr: which of them become CSR linears.
        prompt_tokens, new_tokens, budget_s: of the decoding.
        progress: called after each variant.

    Raises:
        ValueError: a pattern that matches nothing, or a sparsity outside (0, 1).
    """
    from ..pipeline import Recipe, compress_
    from ..recovery.expand import expand_

    if not 0 < sparsity < 1:
        raise ValueError(f"sparsity_study: sparsity must be in (0, 1), got {sparsity}")
    recipe = Recipe.from_preset("magnitude", scope="global", sparsity=sparsity, targets=targets, ignore=ignore)
    prompt = text.windows[0, :prompt_tokens]
    protocols = {"quality": text.protocol}
    variants: list[Variant] = []
    reference: Tensor | None = None

    def measure(name: str, linear_bytes: int, kept: int) -> Tensor:
        quality, chosen = top1_tokens(model, text)
        speed = decode_speed(model, prompt, new_tokens=new_tokens, budget_s=budget_s)
        protocols["decode"] = speed.protocol
        same = 1.0 if reference is None else float((chosen == reference).double().mean())
        bytes_ = (linear_bytes, _model_bytes(model), kept)
        variants.append(Variant(name, *bytes_, quality.ppl, same, speed.tokens_per_second))
        if progress is not None:
            progress(len(variants), 3, name)
        return chosen

    weights = {name: linear.weight for name, linear in _chosen(model, recipe).items()}
    size = sum(weight.numel() * weight.element_size() for weight in weights.values())
    reference = measure("dense", size, sum(weight.numel() for weight in weights.values()))
    compress_(model, recipe)
    masks = {name: how.mask for name, how in expand_(model).items()}
    kept = sum(int(mask.sum()) for mask in masks.values())
    measure("masked", size, kept)
    swap_linears(model, CsrLinear, targets=_within(model, masks, csr), ignore=(), masks=_within(model, masks, csr))
    measure("csr", sum(_bytes(model.get_submodule(name)) for name in masks), kept)
    layers = {name: 1 - float(mask.float().mean()) for name, mask in masks.items()}
    return Study(sparsity, variants, layers, _by_group(masks), protocols)


def _chosen(model: nn.Module, recipe: Any) -> dict[str, nn.Linear]:
    from ..models import expose_linears, find_blocks

    exposed = expose_linears(model)
    try:
        prefix, _ = find_blocks(model)
        chosen, _ = select_linears(model, recipe.targets, recipe.ignore)
    finally:
        exposed.restore_unless(())
    return {name: linear for name, linear in chosen.items() if name.startswith(f"{prefix}.")}


def _within(model: nn.Module, masks: Mapping[str, Tensor], patterns: Sequence[str]) -> dict[str, Tensor]:
    """The masks of the linears that `patterns` name."""
    named, _ = select_linears(model, patterns)
    found = {name: mask for name, mask in masks.items() if name in named}
    if not found:
        raise ValueError(f"sparsity_study: csr must name a pruned linear, got {list(patterns)}")
    return found


def _bytes(linear: nn.Module) -> int:
    if isinstance(linear, PackedLinear):
        return linear.nbytes
    weight = linear.get_parameter("weight")
    return weight.numel() * weight.element_size()


def _model_bytes(model: nn.Module) -> int:
    """Every stored tensor once."""
    stored: dict[int, Tensor] = {id(t): t for t in model.state_dict(keep_vars=True).values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in stored.values())


def _by_group(masks: Mapping[str, Tensor]) -> dict[str, float]:
    kept, total = dict.fromkeys((*_GROUPS, "other"), 0), dict.fromkeys((*_GROUPS, "other"), 0)
    for name, mask in masks.items():
        group = next((g for g, words in _GROUPS.items() if any(word in name for word in words)), "other")
        kept[group] += int(torch.count_nonzero(mask))
        total[group] += mask.numel()
    return {group: 1 - kept[group] / count for group, count in total.items() if count}
