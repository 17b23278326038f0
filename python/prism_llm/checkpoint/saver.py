"""`save`: a compressed model in memory becomes a checkpoint directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from prism_kernels.nn import PackedLinear

from ._errors import CheckpointError
from ._owner import owner
from .writer import SHARD_BYTES, CheckpointWriter


def save(
    model: nn.Module,
    out: str | Path,
    tokenizer: Any = None,
    recipe: Any = None,
    report: Any = None,
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Writes a model with packed linears into a directory that appears complete or not at all.

    `load(save(model))` computes bit-identical logits, and saving what was loaded writes identical bytes.

    Args:
        model: a transformers model; packed linears are stored packed, all other tensors as they are, tied ones once.
        out: directory to produce; an existing one is refused unless `overwrite`.
        tokenizer: stored beside the weights.
        recipe, report: a mapping, or an object with `to_dict` or `model_dump`; by default those of the checkpoint that
            the model was loaded from.
        overwrite: replace an existing checkpoint once the new one is complete.
        shard_bytes: largest weight file.
        files: further files to store, by name.

    Returns:
        The directory.

    Raises:
        CheckpointError: the output is refused, or a tensor cannot be stored.
    """
    if not hasattr(model, "config"):
        raise CheckpointError(f"model: must be a transformers model with a config, got {type(model).__name__}")
    origin = getattr(model, "prism_checkpoint", None)
    if origin is not None:
        recipe = origin.recipe if recipe is None else recipe
        report = origin.report if report is None else report
    packed = {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}
    left_out, tied = _tied_names(model, packed)
    with CheckpointWriter(out, overwrite=overwrite, shard_bytes=shard_bytes) as writer:
        done: set[str] = set()
        for name, tensor in model.state_dict(keep_vars=True).items():
            fqn = owner(name, packed)
            if fqn is not None:
                if fqn not in done:
                    writer.add_module(fqn, packed[fqn])
                    done.add(fqn)
            elif name not in left_out:
                writer.add_tensors({name: tensor})
        for name, content in (files or {}).items():
            (writer.directory / name).write_bytes(content)
        return writer.finish(
            config=_config(model, tied),
            tokenizer=tokenizer,
            generation_config=getattr(model, "generation_config", None),
            recipe=as_mapping(recipe),
            report=as_mapping(report),
        )


def as_mapping(value: Any) -> Mapping[str, Any] | None:
    """JSON values of a recipe or a report: a mapping, a pydantic model, or an object with `to_dict`."""
    if value is None or isinstance(value, Mapping):
        return value
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"save: recipe and report must be mappings, got {type(value).__name__}")


def _tied_names(model: nn.Module, packed: Mapping[str, PackedLinear]) -> tuple[set[str], bool]:
    """Names that need no storage because the model's config ties them, and whether all such ties still hold."""
    tensors = model.state_dict(keep_vars=True)
    declared = getattr(model, "all_tied_weights_keys", None) or {}
    left_out, intact = set(), True
    for target, source in declared.items():
        if tensors.get(target) is not None and tensors.get(target) is tensors.get(source):
            left_out.add(max(target, source, key=list(tensors).index))  # the first name is the one that is stored
        else:
            intact = False
    return left_out, intact


def stored_config(model: nn.Module) -> dict[str, Any]:
    """The configuration that describes `model` as it is, for `CheckpointWriter.finish`."""
    packed = {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}
    return _config(model, _tied_names(model, packed)[1])


def _config(model: nn.Module, tied: bool) -> dict[str, Any]:
    config = dict(model.config.to_diff_dict())  # type: ignore[union-attr, operator]
    config.pop("quantization_config", None)
    config["model_type"] = model.config.model_type  # type: ignore[union-attr]
    config["architectures"] = [type(model).__name__]
    config["dtype"] = str(model.dtype).removeprefix("torch.")
    if not tied:
        config["tie_word_embeddings"] = False
    return dict(sorted(config.items()))
