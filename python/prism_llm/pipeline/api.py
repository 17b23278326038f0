"""`compress_` (in place) and `compress` (a copy, or a checkpoint streamed from disk)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models import load_network, load_tokenizer
from ..models.loading import resolve_source
from ..models.stored_tensors import NotStreamable
from ..models.streamed import StreamedModel
from .engine import InMemory, OnBlock, Progress, compress_blocks, model_context
from .recipe import Recipe, as_recipe
from .report import CompressionReport

OnTensors = Callable[[dict[str, Tensor]], object]


@dataclass(frozen=True)
class CompressionResult:
    """Of `compress`: the model, its tokenizer (None unless given or needed), what was done, and by which recipe."""

    model: nn.Module
    tokenizer: Any
    report: CompressionReport
    recipe: Recipe


def compress_(
    model: nn.Module,
    recipe: Recipe | str | Mapping[str, Any],
    calibration: Tensor | None = None,
    *,
    on_block: OnBlock | None = None,
    progress: Progress | None = None,
    tiers: Mapping[str, Tensor] | None = None,
) -> CompressionReport:
    """Compresses a transformers causal language model in place, block by block.

    Selected `nn.Linear` modules become modules of `prism_kernels.nn`: `BitmapLinear` (pruned), `DualShiftLinear`
    (quantized) or `BitmapDualShiftLinear` (both), with the pattern 2:4 `Sparse24Linear` or `Sparse24DualShiftLinear`.
    Global state (random generators, default dtype, threads) is left alone; the same inputs give identical tensors.

    Args:
        model: in memory, on any device; its own dtype is used for activations, float32 for all else.
        recipe: a `Recipe`, the name of a preset, or a mapping of fields.
        calibration: int64 token ids [num, seqlen]; a data-free recipe (`recipe.needs_calibration` False) needs none.
        on_block: called after each block with its index, its name and {full name: packed module}.
        progress: called after each block with the number done, the total, and the name.
        tiers: for a three-tier recipe, where each linear stands: u8 maps of its blocks by full name (`TierMaps.maps`).
            None begins with every block dense.

    Raises:
        ValueError: nothing to compress, a pattern that matches nothing, unusable calibration, weights not finite.
        CalibrationError: calibration never reached a linear, or gave statistics that are not finite.
    """
    return compress_blocks(model, as_recipe(recipe), calibration, InMemory(), on_block, progress, tiers)


def compress(
    model: nn.Module | str | Path | None = None,
    recipe: Recipe | str | Mapping[str, Any] = "prism",
    *,
    calibration: Tensor | None = None,
    tokenizer: Any = None,
    data_dir: str | Path | None = None,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str = "cpu",
    on_block: OnBlock | None = None,
    on_tensors: OnTensors | None = None,
    keep_blocks: bool = True,
    progress: Progress | None = None,
    **changes: Any,
) -> CompressionResult:
    """Compresses a copy of a model, or a checkpoint of which one block at a time is in memory as dense weights.

    Args:
        model: a transformers model (copied, left alone), a folder, a repository of the hub, or None for the model that
            ships with the package.
        recipe: a `Recipe`, the name of a preset, or a mapping of fields; `changes` are fields that override it.
        calibration: int64 token ids [num, seqlen]; by default drawn from the recipe's dataset where it needs any.
        tokenizer: for that; by default the checkpoint's.
        data_dir: local copy of the dataset.
        dtype, device: of the weights of a checkpoint.
        on_block, progress: as `compress_`. Modules given to `on_block` are its own only during the call if
            `keep_blocks` is False.
        on_tensors: for a checkpoint with keep_blocks=False: called with {name: tensor} for everything that is not in a
            packed module, in the course of the run; names are those of the model's state_dict, tied tensors come once.
        keep_blocks: False lets each block go after `on_block` (its tensors are then on the meta device in the result).

    Returns:
        A `CompressionResult`.

    Raises:
        FileNotFoundError: no such model. Others as `compress_`.
    """
    chosen = as_recipe(recipe, **changes)
    if not keep_blocks and (on_block is None or isinstance(model, nn.Module)):
        raise ValueError("compress: keep_blocks=False must come with a checkpoint and on_block, else all would be lost")
    if on_tensors is not None and keep_blocks:
        raise ValueError("compress: on_tensors must come with keep_blocks=False, else the result has all tensors")
    notes: list[str] = []
    store: Any = InMemory()
    if isinstance(model, nn.Module):
        network = copy.deepcopy(model)
    else:
        network, store = _open(resolve_source(model), dtype, device, keep_blocks, on_tensors, notes)
        if tokenizer is None and chosen.needs_calibration and calibration is None:
            tokenizer = load_tokenizer(model)
    if chosen.needs_calibration and calibration is None:
        calibration = draw_calibration(network, chosen, tokenizer, data_dir, notes)
    report = compress_blocks(network, chosen, calibration, store, on_block, progress)
    report.notes += notes
    return CompressionResult(network, tokenizer, report, chosen)


def _open(
    source: str,
    dtype: torch.dtype | str,
    device: torch.device | str,
    keep_blocks: bool,
    on_tensors: OnTensors | None,
    notes: list[str],
) -> tuple[nn.Module, Any]:
    try:
        streamed = StreamedModel(source, dtype=dtype, device=device, keep_blocks=keep_blocks, on_tensors=on_tensors)
    except NotStreamable as reason:
        notes.append(f"the whole model was loaded, not block by block: {reason}")
        network = load_network(source, dtype).to(device)
        return network, StreamedModel.around(network, keep_blocks=keep_blocks, on_tensors=on_tensors)
    return streamed.model, streamed


def draw_calibration(
    model: nn.Module, recipe: Recipe, tokenizer: Any, data_dir: str | Path | None, notes: list[str]
) -> Tensor:
    """The recipe's calibration, int64 token ids [num, seqlen]; a note says what it is."""
    if tokenizer is None:
        raise ValueError("compress: tokenizer must be given to draw calibration for a model in memory, got None")
    from ..data.sources import calibration_batches, load_text

    text = load_text(recipe.dataset, "train", data_dir)
    seqlen = min(recipe.max_seq_length, model_context(model) or recipe.max_seq_length)
    notes.append(f"calibration: {recipe.num_calibration_samples} x {seqlen} tokens of {text.description}")
    return calibration_batches(text, tokenizer, recipe.num_calibration_samples, seqlen, recipe.seed)
