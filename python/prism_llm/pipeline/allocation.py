"""How many weights each linear loses where a recipe does not prune all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from torch import Tensor, nn

from ..calibration import StatisticsCollector
from ..models import CapturedInputs, DecoderAdapter
from ..pruning import GlobalThreshold, count_outliers, exact_counts, owl_sparsities, share_of
from .recipe import Recipe


@dataclass(frozen=True)
class Allocation:
    """How many weights of the linear `name` with that weight go; None leaves it to the recipe. Asked once for each.

    `notes` are for the report, by name.
    """

    count: Callable[[str, Tensor], int | None]
    notes: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, name: str, weight: Tensor) -> int | None:
        return self.count(name, weight)

    def notes_of(self, name: str) -> list[str]:
        return [self.notes[name]] if name in self.notes else []


Plan = Sequence[Mapping[str, nn.Linear]]


class BlockSource(Protocol):
    """Brings the weights of a block into memory, and drops them unchanged."""

    def load(self, index: int) -> None: ...

    def unload(self, index: int) -> None: ...


def allocate(
    adapter: DecoderAdapter,
    plan: Plan,
    recipe: Recipe,
    inputs: CapturedInputs | None,
    store: BlockSource,
    experts: set[str],
) -> Allocation:
    """The allocation of a recipe: by itself ("uniform"), after one pass over the dense model (ratios "owl"), or after
    two over its weights (scope "global"). Passes hold one block at a time. Calibration need not reach `experts`."""
    if recipe.prunes and recipe.scope == "global":
        return _global(plan, recipe, store)
    if recipe.prunes and recipe.ratios == "owl":
        if inputs is None:
            raise ValueError("allocate: inputs must be given for ratios owl, got None")
        return _owl(adapter, plan, recipe, inputs, store, experts)
    return Allocation(lambda name, weight: None)


def _global(plan: Plan, recipe: Recipe, store: BlockSource) -> Allocation:
    weights = sum(linear.weight.numel() for linears in plan for linear in linears.values())
    threshold = GlobalThreshold(share_of(weights, recipe.sparsity))
    for _ in threshold.passes:
        for index, linears in enumerate(plan):
            store.load(index)
            for linear in linears.values():
                threshold.add(linear.weight)
            store.unload(index)
        threshold.end_pass()
    return Allocation(lambda name, weight: threshold.pruned(weight))


def _owl(
    adapter: DecoderAdapter,
    plan: Plan,
    recipe: Recipe,
    inputs: CapturedInputs,
    store: BlockSource,
    experts: set[str],
) -> Allocation:
    """Counts by OWL from the dense model's own activations, as the original.

    Experts that no token reached have no scores: they get the ratio that the others of their block give, or the
    recipe's where no linear of the block was reached."""
    hidden, counted = list(inputs.hidden), {}
    notes: dict[str, str] = {}
    for index, linears in enumerate(plan):
        store.load(index)

        def forward(batch: int, index: int = index) -> None:
            hidden[batch] = adapter.run_block(index, hidden[batch], inputs.calls[batch][index])

        if linears:
            collector = StatisticsCollector(linears, max_tokens=recipe.max_tokens, optional=experts)
            collector.run(partial(forward, batch) for batch in range(len(hidden)))
            known = collector.statistics
            layers = [(linears[name].weight.detach(), known[name].norms) for name in linears if name in known]
            unseen = [linear.weight.numel() for name, linear in linears.items() if name not in known]
            counted[index] = count_outliers(layers, recipe.owl_threshold, unseen=sum(unseen))
            whose = "its block's others" if layers else "the recipe"
            notes |= {name: f"no outliers known: the sparsity of {whose}" for name in linears if name not in known}
        else:
            for batch in range(len(hidden)):
                forward(batch)
        store.unload(index)
    sparsities = dict(
        zip(counted, owl_sparsities([*counted.values()], recipe.sparsity, recipe.owl_lambda), strict=True)
    )
    shares = {
        name: (linear.weight.numel(), sparsities[index])
        for index, linears in enumerate(plan)
        for name, linear in linears.items()
    }
    total = share_of(sum(weights for weights, _ in shares.values()), recipe.sparsity)
    counts = exact_counts(shares, total)
    return Allocation(lambda name, weight: counts[name], notes)
