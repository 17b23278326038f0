"""Permutations of a linear's input, made by the linears that produce it: the order then costs nothing at run time.

down_proj reads what up_proj (and gate_proj) write, channel by channel; o_proj reads what v_proj writes, head by head.
Permuting the rows of the producers and the columns of the consumer changes nothing but the order of sums. Whether a
model really is so (a norm with its own weights could stand in between, a gate could read the same channels) is not
taken from its name: the block runs before and after on a few tokens, and what does not compute the same is undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..calibration import InputStatistics
from ..models import CapturedInputs, DecoderAdapter
from ..pruning import FindOrder, Pattern, within_heads
from .recipe import Recipe
from .selection import choose_mask

#: Consumer -> sets of producers by name; the first set of which one is there serves. A fused producer holds the halves
#: of gate and up.
_MLP: dict[str, tuple[tuple[str, ...], ...]] = {
    "down_proj": (("up_proj", "gate_proj"), ("gate_up_proj",)),
    "fc2": (("fc1",),),
    "dense_4h_to_h": (("dense_h_to_4h",),),
    "c_proj": (("c_fc",),),
    "w2": (("w1", "w3"),),
}
_ATTENTION = ("o_proj", "out_proj")

# Of the norm of an output, in units of its dtype's rounding: what another order of sums may change.
_ROUNDINGS = {torch.float64: 1e3, torch.float32: 64.0}
_HALF_ROUNDINGS = 2.0


@dataclass
class _Fold:
    """A consumer, its producers (module, how often its rows hold the channels), and the order of the channels."""

    name: str
    consumer: nn.Linear
    producers: dict[str, tuple[nn.Linear, int]]
    index: Tensor
    rows: Tensor

    def apply(self) -> None:
        self._permute(self.index, self.rows)

    def undo(self) -> None:
        self._permute(self.index.argsort(), self.rows.argsort())

    def _permute(self, columns: Tensor, rows: Tensor) -> None:
        self.consumer.weight.copy_(self.consumer.weight[:, columns])
        for producer, parts in self.producers.values():
            every = torch.cat([rows + part * len(rows) for part in range(parts)])
            producer.weight.copy_(producer.weight[every])
            if producer.bias is not None:
                producer.bias.copy_(producer.bias[every])


@torch.no_grad()
def fold_permutations(
    adapter: DecoderAdapter,
    index: int,
    linears: Mapping[str, nn.Linear],
    recipe: Recipe,
    statistics: dict[str, InputStatistics],
    probe: CapturedInputs,
) -> dict[str, str]:
    """Puts the input channels of a block's linears into a better order for their n:m pattern where producers can.

    Weights of consumers and producers (chosen or not) are permuted in place, the statistics of consumers with them.

    Args:
        linears: the chosen linears of block `index`, all dense.
        statistics: of their inputs, as far as they are known; entries of folded consumers are replaced.
        probe: a few tokens to compare the block on.

    Returns:
        A note for each consumer that needs no permutation any more.
    """
    folds = []
    for name, consumer in linears.items():
        shared = statistics.get(name)
        if shared is None and recipe.needs_calibration:
            continue  # an expert that no token was sent to
        if shared is not None and sum(other is shared for other in statistics.values()) > 1:
            continue  # another linear reads the same input
        fold = _plan_fold(adapter.model, name, consumer, recipe, shared)
        if fold is not None:
            folds.append(fold)
    notes = {}
    for fold in _keep_exact(adapter, index, folds, probe):
        if fold.name in statistics:
            statistics[fold.name] = statistics[fold.name].permuted(fold.index)
        producers = ", ".join(name.rsplit(".", 1)[-1] for name in fold.producers)
        notes[fold.name] = f"{recipe.permute} permutation folded into {producers}"
    return notes


def _plan_fold(
    model: nn.Module, name: str, consumer: nn.Linear, recipe: Recipe, statistics: InputStatistics | None
) -> _Fold | None:
    """What could be folded for this consumer, or None: no producers, or no order that is better."""
    pattern, k = Pattern.parse(recipe.pattern), consumer.in_features
    producers = _mlp_producers(model, name, k)
    find: FindOrder | None = None
    heads: tuple[int, int] | None = None
    if not producers:
        producers, heads = value_projection(model, name, k)
        if heads is None or heads[1] % pattern.m:
            return None
        find = within_heads(heads[1], heads[0], pattern, recipe.permute)
    order = choose_mask(consumer.weight.detach().float(), recipe, statistics, find=find).order
    if order is None:
        return None
    rows = order
    if heads is not None:  # the first reader of each key-value head tells the order of its channels
        readers, size = heads
        first = order.view(-1, readers, size)[:, 0] % size
        rows = (first + size * torch.arange(len(first), device=order.device)[:, None]).flatten()
    return _Fold(name, consumer, producers, order, rows)


def _mlp_producers(model: nn.Module, name: str, k: int) -> dict[str, tuple[nn.Linear, int]]:
    for leaf, choices in _MLP.items():
        head, found, tail = name.rpartition(leaf)
        if not found or (head and not head.endswith(".")) or (tail and not tail.startswith(".")):
            continue
        for names in choices:
            modules = {f"{head}{n}{tail}": linear_at(model, f"{head}{n}{tail}") for n in names}
            linears = {n: m for n, m in modules.items() if m is not None}
            parts = 2 if names == ("gate_up_proj",) else 1
            if linears and all(m.out_features == parts * k for m in linears.values()):
                return {n: (m, parts) for n, m in linears.items()}
    return {}


def value_projection(
    model: nn.Module, name: str, k: int
) -> tuple[dict[str, tuple[nn.Linear, int]], tuple[int, int] | None]:
    """v_proj beside an output projection, and (readers of each of its heads, size of a head)."""
    head, _, leaf = name.rpartition(".")
    producer = linear_at(model, f"{head}.v_proj") if leaf in _ATTENTION else None
    size = getattr(model.get_submodule(head), "head_dim", None) if producer is not None else None
    if producer is None or not isinstance(size, int) or size < 1:
        return {}, None
    if producer.out_features % size or k % producer.out_features:
        return {}, None
    return {f"{head}.v_proj": (producer, 1)}, (k // producer.out_features, size)


def linear_at(model: nn.Module, name: str) -> nn.Linear | None:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return None
    return module if isinstance(module, nn.Linear) else None


def _keep_exact(adapter: DecoderAdapter, index: int, folds: list[_Fold], probe: CapturedInputs) -> list[_Fold]:
    """Applies the folds that leave the outputs of their consumers and of the block as they are, up to rounding."""
    if not folds:
        return []
    before, block_before = _outputs(adapter, index, folds, probe)
    kept = [fold for fold in folds if fold.name in before]  # an expert that the probe does not reach stays as it is
    for fold in kept:
        fold.apply()
    while kept:
        after, block_after = _outputs(adapter, index, kept, probe)
        wrong = [name for name in before if name in after and not same_output(before[name], after[name])]
        if not wrong and same_output(block_before, block_after):
            return kept
        # What comes after a wrong one is wrong because of it: only the first is known to be.
        first = wrong[0] if wrong else kept[-1].name
        for fold in kept:
            if fold.name == first:
                fold.undo()
        kept = [fold for fold in kept if fold.name != first]
    return kept


def _outputs(
    adapter: DecoderAdapter, index: int, folds: list[_Fold], probe: CapturedInputs
) -> tuple[dict[str, Tensor], Tensor]:
    """The outputs of the consumers, in the order of their calls, and of the block."""
    outputs: dict[str, Tensor] = {}

    def observe(name: str, output: Tensor) -> None:
        outputs[name] = output.detach().clone()

    handles = [
        fold.consumer.register_forward_hook(lambda module, args, output, name=fold.name: observe(name, output))
        for fold in folds
    ]
    try:
        block = adapter.run_block(index, probe.hidden[0], probe.calls[0][index])
    finally:
        for handle in handles:
            handle.remove()
    return outputs, block


def same_output(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape:
        return False
    roundings = _ROUNDINGS.get(left.dtype, _HALF_ROUNDINGS)
    limit = roundings * torch.finfo(left.dtype).eps * float(left.double().norm())
    return float((left.double() - right.double()).norm()) <= limit
