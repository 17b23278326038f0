"""A model without weights: its modules on the meta device, its computed buffers real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .loading import not_found, resolve_source


def build_skeleton(config: Any, dtype: torch.dtype) -> nn.Module:
    """The causal language model of a transformers configuration, every tensor on the meta device."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def load_skeleton(name_or_path: str | Path | None = None) -> nn.Module:
    """The network of a model folder, a checkpoint or a hub repository, from its configuration alone: meta tensors.

    Raises:
        FileNotFoundError: there is no such folder or repository, or its configuration is no causal language model's.
    """
    from transformers import AutoConfig

    source = resolve_source(name_or_path)
    try:
        return build_skeleton(AutoConfig.from_pretrained(source), torch.bfloat16)
    except (OSError, ValueError) as error:
        raise not_found("load_skeleton", source, error) from error


def restore_buffers(model: nn.Module, device: torch.device | str) -> None:
    """Computes the buffers that no checkpoint stores (rotary frequencies, ...), as transformers does after loading.

    Raises:
        ValueError: transformers does not compute one of them; names it.
    """
    from transformers import PreTrainedModel

    owner: dict[str, PreTrainedModel] = {}
    for name, module in model.named_modules():
        owner[name] = module if isinstance(module, PreTrainedModel) else owner[name.rpartition(".")[0]]
        missing = [leaf for leaf in module._non_persistent_buffers_set if _is_meta(module._buffers.get(leaf))]
        if not missing:
            continue
        for leaf in missing:
            module._buffers[leaf] = _marked(module._buffers[leaf], device)
        for parameter in module.parameters(recurse=False):
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]  # transformers' mark for "leave alone"
        with torch.random.fork_rng(devices=[]):
            owner[name]._init_weights(module)
        for leaf in missing:
            if _is_marked(module._buffers[leaf]):
                raise ValueError(f"restore_buffers: transformers must be able to compute {name}.{leaf}, but did not")


def _is_meta(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.is_meta


def _marked(buffer: Tensor | None, device: torch.device | str) -> Tensor:
    assert buffer is not None
    value: float | int = float("nan") if buffer.is_floating_point() else 0 if buffer.dtype == torch.bool else -97
    return torch.full(buffer.shape, value, dtype=buffer.dtype, device=device)


def _is_marked(buffer: Tensor | None) -> bool:
    if buffer is None or buffer.numel() == 0 or buffer.dtype == torch.bool:
        return False  # no bool is free to serve as the mark
    return bool(buffer.isnan().all() if buffer.is_floating_point() else (buffer == -97).all())
