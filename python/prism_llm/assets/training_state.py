"""Where a training run stands, as one safetensors file that appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def save_training_state(
    path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], progress: dict[str, Any]
) -> None:
    """Writes parameters, optimizer states and `progress` (JSON values) to `path`."""
    tensors = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    for index, optimizer in enumerate(optimizers):
        for parameter_idx, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer.{index}.{parameter_idx}.{key}"] = torch.as_tensor(value).contiguous()
    partial = path.with_suffix(".partial")
    save_file({name: t.contiguous() for name, t in tensors.items()}, partial, {"progress": json.dumps(progress)})
    partial.replace(path)


def load_training_state(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """Restores what `save_training_state` wrote; the optimizers keep their own options. Returns the progress."""
    with safe_open(path, "pt") as stored:
        progress = json.loads(stored.metadata()["progress"])
        names = set(stored.keys())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(stored.get_tensor(f"model.{name}"))
        for index, optimizer in enumerate(optimizers):
            states: dict[int, dict[str, Tensor]] = {}
            for name in names:
                kind, *rest = name.split(".")
                if kind == "optimizer" and int(rest[0]) == index:
                    states.setdefault(int(rest[1]), {})[rest[2]] = stored.get_tensor(name)
            optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return progress
