"""The one loop behind every method: block by block, statistics, compression, and the inputs of the next block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from prism_kernels.formats import LowRankWeight
from prism_kernels.nn import PackedLinear
from prism_kernels.swap import matches, replace_module, select_linears

from ..calibration import CalibrationError, InputStatistics, StatisticsCollector, store_products
from ..memory import return_free_memory
from ..models import CapturedInputs, DecoderAdapter, evaluation_mode, expose_linears
from ..pruning import HessianSolver, require_solver
from ..scratch_file import TensorFile
from .allocation import Allocation, allocate
from .folding import fold_permutations
from .layer import compress_weight, without_calibration
from .low_rank import compress_low_rank, low_rank_names
from .promise import require_pruned_as_named, rounding_note
from .recipe import Recipe
from .report import CompressionReport, LinearReport, relative_error
from .scale_folding import fold_column_scales

OnBlock = Callable[[int, str, dict[str, PackedLinear]], object]
Progress = Callable[[int, int, str], object]

_ALL_LINEARS: tuple[str, ...] = Recipe.model_fields["targets"].default

# Enough for efficient matrix products, few enough that one batch's activations stay small beside a block.
_TOKENS_PER_BATCH = 512
_PROBE_TOKENS = 32
# Of SINQ's factors where a row is one group.
_WIDEST_STRIP = 2**31 - 1


class BlockStore(Protocol):
    """Brings the weights of a block, or what lies outside all blocks, into memory and lets them go."""

    def outside(self) -> AbstractContextManager[None]: ...

    def load(self, index: int) -> None: ...

    def release(self, index: int) -> None: ...

    def unload(self, index: int) -> None: ...


class InMemory:
    """The store of a model that is in memory as a whole."""

    def outside(self) -> AbstractContextManager[None]:
        """Nothing to do."""
        return nullcontext()

    def load(self, index: int) -> None:
        """Nothing to do."""

    def release(self, index: int) -> None:
        """Nothing to do."""

    def unload(self, index: int) -> None:
        """Nothing to do."""


@torch.no_grad()
def compress_blocks(
    model: nn.Module,
    recipe: Recipe,
    calibration: Tensor | None,
    store: BlockStore,
    on_block: OnBlock | None = None,
    progress: Progress | None = None,
    tiers: Mapping[str, Tensor] | None = None,
) -> CompressionReport:
    """Compresses the selected linears of `model` in place; see `prism_llm.compress_`.

    At any time the weights of the blocks that `store` holds and the statistics of one block are in memory. The hidden
    states of all batches, and X^T X of linears whose turn has not come, are in temporary files if they are on the CPU.
    """
    started = time.perf_counter()
    require_solver(recipe.permute)
    adapter = DecoderAdapter(model)
    plan, left, experts = _plan(adapter, recipe)
    factored = _leave_to_factors(recipe, plan, left)
    _check_tier_maps(tiers, [name for linears in plan for name in linears])
    report = CompressionReport(recipe.to_dict(), left=left, block_parameters=_count_parameters(adapter))
    if calibration is not None and not recipe.needs_calibration:
        report.notes.append("calibration not used: the recipe is data-free")
    with evaluation_mode(model):
        inputs, probe = _capture(adapter, recipe, calibration, store)
        # No name holds this second plan: the dense weights in it must not outlive their block.
        allocation = allocate(
            adapter, [_pruned_only(recipe, linears, factored) for linears in plan], recipe, inputs, store, experts
        )
        for index, linears in enumerate(plan):
            store.load(index)
            modules = _compress_block(
                adapter, index, linears, recipe, inputs, report, tiers or {}, allocation, experts, probe, factored
            )
            if inputs is not None and index + 1 < len(plan):
                for batch, calls in enumerate(inputs.calls):
                    inputs.hidden[batch] = adapter.run_block(index, inputs.hidden[batch], calls[index])
            if on_block is not None:
                on_block(index, adapter.prefixes[index], modules)
            store.release(index)
            if progress is not None:
                progress(index + 1, len(plan), adapter.prefixes[index])
    report.seconds = time.perf_counter() - started
    return report


def _capture(
    adapter: DecoderAdapter, recipe: Recipe, calibration: Tensor | None, store: BlockStore
) -> tuple[CapturedInputs | None, CapturedInputs | None]:
    """The inputs of all blocks for the calibration tokens, and for few tokens on which a block is compared with itself;
    None where the recipe needs none."""
    model, probed = adapter.model, recipe.fold or (recipe.prunes and recipe.permute != "none")
    if not recipe.needs_calibration and not probed:
        return None, None
    with store.outside():
        batches = list(_batches(model, calibration)) if recipe.needs_calibration else []
        probe = [_probe_tokens(model)] if probed else []
        first = adapter.first_call((*batches, *probe)[0][:1, :1])
    # One token through the first block shows what blocks return; then it makes room for what lies outside of blocks.
    store.load(0)
    adapter.learn_output(*first)
    store.unload(0)
    with store.outside():
        hidden = TensorFile() if batches and batches[0].device.type == "cpu" else None
        return (adapter.capture(batches, hidden) if batches else None), (adapter.capture(probe) if probe else None)


def _compress_block(
    adapter: DecoderAdapter,
    index: int,
    linears: dict[str, nn.Linear],
    recipe: Recipe,
    inputs: CapturedInputs | None,
    report: CompressionReport,
    tiers: Mapping[str, Tensor],
    allocation: Allocation,
    experts: set[str],
    probe: CapturedInputs | None,
    factored: set[str],
) -> dict[str, PackedLinear]:
    """Replaces `linears` of one block, and empties the dict; statistics are freed with the last linear they serve."""
    statistics: dict[str, InputStatistics] = {}
    groups = [[name] for name in linears]
    scaled: dict[str, str] = {}
    if recipe.fold and linears and probe is not None:
        found = fold_column_scales(
            adapter, index, probe, method=recipe.scale, group_size=recipe.group_size or _WIDEST_STRIP
        )
        scaled = found.notes
        report.notes += [f"column scale not folded, the block would change: {pair}" for pair in found.refused]
    if inputs is not None and linears:
        collector = StatisticsCollector(
            linears, hessian=recipe.needs_gram, max_tokens=recipe.max_tokens, optional=experts
        )
        calls = zip(inputs.hidden, inputs.calls, strict=True)
        collector.run(lambda h=h, c=c: adapter.run_block(index, h, c[index]) for h, c in calls)  # type: ignore[misc]
        statistics, groups = collector.statistics, collector.groups()
        del collector
        store_products(statistics.values())
        return_free_memory()
    # A decomposition takes several copies of its weight in float32: last, when the other weights are packed.
    groups.sort(key=lambda group: not factored.isdisjoint(group))
    names, prunable = list(linears), set(_pruned_only(recipe, linears, factored))
    permutes = probe is not None and recipe.prunes and recipe.permute != "none"
    folded = {}
    if probe is not None and permutes:
        movable = {name: linear for name, linear in linears.items() if name in prunable}
        folded = fold_permutations(adapter, index, movable, recipe, statistics, probe)
        del movable
    modules: dict[str, PackedLinear] = {}
    for group in groups:
        shared = statistics.get(group[0])
        solver = HessianSolver(shared, recipe.percdamp) if shared is not None and recipe.needs_gram else None
        for name in group:
            linear, map_ = linears.pop(name), tiers.get(name)
            pruned = allocation(name, linear.weight) if name in prunable else None
            own, notes = recipe if name in factored else _without_factors(recipe), allocation.notes_of(name)
            if name in folded:
                own, notes = own.replace(permute="none"), [*notes, folded[name]]
            if name in scaled and own.bits is not None:
                own, notes = own.replace(sparsity=own.sparsity, scale="none", fold=False), [*notes, scaled[name]]
            if solver is not None:
                solver.keep = name != group[-1]
            modules[name] = _compress_linear(
                adapter.model, name, linear, own, shared, solver, report, map_, pruned, notes
            )
            statistics.pop(name, None)
            del linear  # the dense weight must not outlive its packed form
            return_free_memory()
    return {name: modules[name] for name in names}


def _compress_linear(
    model: nn.Module,
    name: str,
    linear: nn.Linear,
    recipe: Recipe,
    statistics: InputStatistics | None,
    solver: HessianSolver | None,
    report: CompressionReport,
    tiers: Tensor | None,
    pruned: int | None,
    notes: list[str],
) -> PackedLinear:
    started = time.perf_counter()
    unseen = recipe.needs_calibration and statistics is None
    if unseen:  # an expert that no token was sent to
        recipe = without_calibration(recipe)
        if recipe.needs_calibration:
            raise CalibrationError(f"calibration never reached {name}: it saw 0 tokens")
    if recipe.low_rank is None:
        result = compress_weight(name, linear.weight, recipe, statistics, solver, tiers, pruned)
    else:
        result = compress_low_rank(name, linear.weight, recipe, statistics, solver, pruned)
    if solver is not None and not solver.keep:
        solver.release()
    if unseen:
        result.notes.append("no calibration token reached it: score magnitude, no compensation")
    if result.mask is not None:
        given = result.pruned if recipe.tiers is not None else pruned
        require_pruned_as_named(name, result.packed, result.recipe, given)
        result.notes += [] if given is not None else rounding_note(result.recipe, result.packed.shape)
    module = result.module(linear.bias).train(linear.training)
    replace_module(model, name, module)
    return_free_memory()
    seconds = time.perf_counter() - started
    dense = linear.weight.detach()
    # Weights decode exactly into their own dtype, but a product of factors is rounded.
    decoded = result.packed.to_dense(torch.float32 if isinstance(result.packed, LowRankWeight) else None)
    return_free_memory()
    error, measure = relative_error(dense, decoded, statistics)
    report.linears.append(
        LinearReport(
            fqn=name,
            shape=(linear.out_features, linear.in_features),
            method=result.stages,
            format=result.packed.NAME,
            nbytes=result.packed.nbytes,
            dense_nbytes=dense.numel() * dense.element_size(),
            bits_per_weight=result.packed.bits_per_weight,
            sparsity=result.pruned / max(dense.numel(), 1),
            error=error,
            error_measure=measure,
            tokens=0 if statistics is None else statistics.tokens,
            seconds=seconds,
            notes=(*notes, *result.notes),
        )
    )
    return module


def _leave_to_factors(recipe: Recipe, plan: list[dict[str, nn.Linear]], left: dict[str, str]) -> set[str]:
    """The linears that get factors; where the recipe does nothing else, the others leave the plan."""
    factored = low_rank_names(recipe, [item for linears in plan for item in linears.items()])
    instead = (
        recipe.low_rank is not None and recipe.low_rank_of == "weight" and (recipe.prunes or recipe.bits is not None)
    )
    if instead and all(name in factored for linears in plan for name in linears):
        raise ValueError(
            "compress: low_rank_targets must leave a linear to prune or quantize where factors stand instead of the "
            f"weights (low_rank_of weight), got {list(recipe.low_rank_targets)}, which matches all"
        )
    if recipe.low_rank is not None and not recipe.prunes and recipe.bits is None:
        for linears in plan:
            for name in [name for name in linears if name not in factored]:
                del linears[name]
                left[name] = "not a target of low_rank"
    return factored


def _pruned_only(recipe: Recipe, linears: dict[str, nn.Linear], factored: set[str]) -> dict[str, nn.Linear]:
    """Those that are not factors and nothing else."""
    if recipe.low_rank is None or recipe.low_rank_of != "weight":
        return linears
    return {name: linear for name, linear in linears.items() if name not in factored}


def _without_factors(recipe: Recipe) -> Recipe:
    return recipe if recipe.low_rank is None else recipe.replace(sparsity=recipe.sparsity, low_rank=None)


def _check_tier_maps(tiers: Mapping[str, Tensor] | None, names: Sequence[str]) -> None:
    """A map that is missing would let its linear begin anew as dense."""
    if tiers is None:
        return
    missing, foreign = sorted(set(names) - tiers.keys()), sorted(tiers.keys() - set(names))
    if missing or foreign:
        raise ValueError(
            f"compress: tier maps must be those of the linears to compress, got none for {missing[:3]} and maps of "
            f"others for {foreign[:3]}"
        )


def _plan(adapter: DecoderAdapter, recipe: Recipe) -> tuple[list[dict[str, nn.Linear]], dict[str, str], set[str]]:
    """The linears to compress by block; everything else that a user might expect to be compressed, with reasons; and
    which of the linears are experts, that calibration may not reach."""
    exposed = expose_linears(adapter.model)
    try:
        chosen, left = select_linears(adapter.model, recipe.targets, recipe.ignore)
    except ValueError:
        exposed.restore_unless(())
        raise
    plan: list[dict[str, nn.Linear]] = []
    for prefix in adapter.prefixes:
        plan.append({name: chosen.pop(name) for name in list(chosen) if name.startswith(f"{prefix}.")})
    left |= dict.fromkeys(chosen, "outside the decoder blocks")
    for name in exposed.restore_unless({name for linears in plan for name in linears}):
        left.pop(name, None)
    known = {f"{name}.weight" for name in (*left, *(name for linears in plan for name in linears))}
    elsewhere = {
        name: parameter
        for prefix, block in zip(adapter.prefixes, adapter.blocks, strict=True)
        for name, parameter in block.named_parameters(prefix=prefix)
        if parameter.dim() >= 2 and name not in known
    }
    left |= {n: f"a {p.dim()}-D parameter that is not the weight of an nn.Linear" for n, p in elsewhere.items()}
    if recipe.targets == _ALL_LINEARS:
        _require_coverage(adapter, elsewhere)
    if not any(plan):
        raise ValueError(
            f"compress: model must have a linear to compress inside its decoder blocks, got none in "
            f"{type(adapter.model).__name__} for targets {list(recipe.targets)}; left: {left}"
        )
    _require_targets(recipe, plan, left)
    return plan, left, exposed.experts


def _require_targets(recipe: Recipe, plan: list[dict[str, nn.Linear]], left: dict[str, str]) -> None:
    """A recipe that reaches less than it names fails."""
    for pattern in recipe.targets:
        if not any(matches(pattern, name, linear) for linears in plan for name, linear in linears.items()):
            reasons = {name: why for name, why in left.items() if matches(pattern, name, nn.Identity())}
            raise ValueError(
                f"compress: targets must each match a linear to compress inside the decoder blocks, got {pattern!r}, "
                f"which matches none; left: {reasons or left}"
            )


def _require_coverage(adapter: DecoderAdapter, elsewhere: dict[str, nn.Parameter]) -> None:
    """Refuses to call a model compressed whose weights mostly lie elsewhere, as fused experts do."""
    share = sum(p.numel() for p in elsewhere.values()) / max(_count_parameters(adapter), 1)
    if share > 0.5:
        raise ValueError(
            f"compress: nn.Linear modules must hold most of the decoder blocks' weights, got {100 * (1 - share):.0f} % "
            f"(others: {', '.join(list(elsewhere)[:3])}, ...); name the linears by targets to compress only them"
        )


def _count_parameters(adapter: DecoderAdapter) -> int:
    return sum(p.numel() for block in adapter.blocks for p in block.parameters())


def _probe_tokens(model: nn.Module) -> Tensor:
    """Token ids [1, few] on which a block is compared with itself; which ones does not matter."""
    embedding = model.get_input_embeddings().weight  # type: ignore[operator]
    length = min(_PROBE_TOKENS, model_context(model) or _PROBE_TOKENS)
    return (torch.arange(length, device=embedding.device) % embedding.shape[0])[None]


def _batches(model: nn.Module, calibration: Tensor | None) -> Sequence[Tensor] | Iterator[Tensor]:
    """The token ids in batches that are independent of everything but the sequence length; raises ValueError."""
    rule = "compress: calibration must be int64 token ids [num, seqlen]"
    if calibration is None:
        raise ValueError(f"{rule} for a recipe that is not data-free, got None")
    if calibration.dtype != torch.int64 or calibration.dim() != 2:
        raise ValueError(f"{rule}, got {calibration.dtype} {list(calibration.shape)}")
    if calibration.numel() == 0:
        raise ValueError(f"{rule} with at least one token, got {list(calibration.shape)}")
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    vocabulary = embedding.weight.shape[0]
    low, high = int(calibration.min()), int(calibration.max())
    if low < 0 or high >= vocabulary:
        raise ValueError(f"{rule} from 0 to {vocabulary - 1}, got ids from {low} to {high}")
    context = model_context(model)
    if context is not None and calibration.shape[1] > context:
        raise ValueError(f"{rule} with seqlen at most {context} (the model's context), got {calibration.shape[1]}")
    size = max(1, _TOKENS_PER_BATCH // calibration.shape[1])
    return calibration.to(embedding.weight.device).split(size)


def model_context(model: nn.Module) -> int | None:
    """`max_position_embeddings` of the text model, where its configuration has one."""
    config = model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
    return getattr(config, "max_position_embeddings", None)
