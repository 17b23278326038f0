"""Linears that are not `nn.Linear`: GPT-2's `Conv1D` (weight [k, n]) and experts fused into 3-D parameters.

`expose_linears` puts an `nn.Linear` in the place of each, so that whatever works on linears works on them; what was not
compressed goes back to its own layout. Names stay those of the model; expert e of the fused parameter
`mlp.experts.down_proj` is the linear `mlp.experts.down_proj.<e>`.

Limits: fused experts of the common layout only (`gate_up_proj` [E, 2 i, h], `down_proj` [E, h, i], no bias). Others
(transposed or interleaved with biases, as in gpt-oss) stay as they are, and reports list them.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prism_kernels.swap import replace_module

_FUSED = ("gate_up_proj", "down_proj")


class SeparateExperts(nn.Module):
    """Fused experts with one `nn.Linear` per expert and projection; called like the module it stands for."""

    gate_up_proj: nn.ModuleList
    down_proj: nn.ModuleList
    _shell: Any

    def __init__(self, fused: nn.Module) -> None:
        super().__init__()
        self.num_experts = fused.get_parameter(_FUSED[0]).shape[0]
        for name in _FUSED:
            weights = fused.get_parameter(name)
            experts = [_linear(weights.detach()[e], None, weights.requires_grad) for e in range(self.num_experts)]
            setattr(self, name, nn.ModuleList(experts))
        # The model's own gate and activation, without its weights; not a submodule, for it has nothing to store.
        shell = copy.copy(fused)
        shell._parameters = {}
        self.__dict__["_shell"] = shell
        self.train(fused.training)

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """hidden_states [tokens, h], top_k_index and top_k_weights [tokens, top_k] -> [tokens, h]; experts add up in
        the order of their numbers."""
        output = torch.zeros_like(hidden_states)
        for expert in top_k_index.unique().tolist():
            if not 0 <= expert < self.num_experts:
                continue  # of tokens that no expert of this module serves
            token, place = (top_k_index == expert).nonzero(as_tuple=True)
            states = self._shell._apply_gate(self.gate_up_proj[expert](hidden_states[token]))
            states = self.down_proj[expert](states) * top_k_weights[token, place, None]
            output.index_add_(0, token, states.to(output.dtype))
        return output


class ExposedLinears:
    """What `expose_linears` replaced.

    Attributes:
        names: full names of the linears that came of it.
        experts: those of them that serve only the tokens that a router sends them.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._originals: dict[str, nn.Module] = {}
        self.names: list[str] = []
        self.experts: set[str] = set()

    def replace(self, name: str, original: nn.Module, module: nn.Module) -> None:
        self._originals[name] = original
        replace_module(self._model, name, module)
        inside = _linears_in(name, module)
        self.names += inside
        if isinstance(module, SeparateExperts):
            self.experts |= set(inside)

    def restore_unless(self, chosen: Collection[str]) -> list[str]:
        """Puts back the modules without a linear in `chosen`; returns the names that are no longer there. The others
        have weights of their own, in rows."""
        gone: list[str] = []
        for name, original in self._originals.items():
            inside = [n for n in self.names if n == name or n.startswith(f"{name}.")]
            if any(n in chosen for n in inside):
                for linear in (self._model.get_submodule(n) for n in inside):
                    assert isinstance(linear.weight, nn.Parameter)
                    linear.weight.data = linear.weight.data.contiguous()
                continue
            replace_module(self._model, name, original)
            gone += [n for n in inside if n != name]
        return gone


def expose_linears(model: nn.Module) -> ExposedLinears:
    """Puts `nn.Linear` modules in the places of everything in `model` that computes like them, sharing the weights.

    Outputs are the same up to the rounding of a product in another layout.
    """
    exposed = ExposedLinears(model)
    for name, module in model.named_modules():
        if isinstance(module, SeparateExperts):  # exposed before, as in a checkpoint that is compressed further
            exposed.experts |= set(_linears_in(name, module))
    for name, module in _candidates(model):
        replacement: nn.Module
        if _is_conv1d(module):
            bias = module._parameters.get("bias")
            replacement = _linear(module.get_parameter("weight").detach().T, bias, True)
            replacement.training = module.training
        else:
            replacement = SeparateExperts(module)
        exposed.replace(name, module, replacement)
    return exposed


@dataclass(frozen=True)
class Place:
    """Where a tensor of a model lives: the parameter or buffer `leaf` of `module`, made of all of the tensor, its
    transpose, or one entry of its first axis."""

    module: nn.Module
    leaf: str
    transposed: bool = False
    entry: int | None = None

    @property
    def tensor(self) -> Tensor:
        return getattr(self.module, self.leaf)

    def part_of(self, tensor: Tensor) -> Tensor:
        """What of `tensor` belongs here, in rows."""
        part = tensor if self.entry is None else tensor[self.entry]
        return part.T.contiguous() if self.transposed else part

    def put(self, tensor: Tensor) -> None:
        old = self.tensor
        if isinstance(old, nn.Parameter):
            self.module._parameters[self.leaf] = nn.Parameter(tensor, requires_grad=old.requires_grad)
        else:
            self.module._buffers[self.leaf] = tensor


def places_of(model: nn.Module, name: str, conv1d_weights: Collection[str] = ()) -> list[Place]:
    """Where the tensor `name` of a model lives now that linears may be exposed in it.

    Args:
        conv1d_weights: of the model as it was before.
    """
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    if isinstance(module, SeparateExperts):
        experts = module.get_submodule(leaf).children()
        return [Place(expert, "weight", entry=e) for e, expert in enumerate(experts)]
    return [Place(module, leaf, transposed=name in conv1d_weights and not _is_conv1d(module))]


def conv1d_weights(model: nn.Module) -> set[str]:
    """The names of the weights of `Conv1D` modules."""
    return {f"{name}.weight" for name, module in _candidates(model) if _is_conv1d(module)}


def _candidates(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in model.named_modules() if _is_conv1d(m) or _is_fused_experts(m)]


def _linears_in(name: str, module: nn.Module) -> list[str]:
    return [f"{name}.{n}" if n else name for n, m in module.named_modules() if isinstance(m, nn.Linear)]


def _is_conv1d(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def _is_fused_experts(module: nn.Module) -> bool:
    if set(module._parameters) != set(_FUSED) or any(p is None or p.dim() != 3 for p in module._parameters.values()):
        return False
    flags = {"has_gate": True, "has_bias": False, "is_transposed": False, "has_post_expert_norm": False}
    return hasattr(module, "_apply_gate") and all(getattr(module, k, None) is v for k, v in flags.items())


def _linear(weight: Tensor, bias: nn.Parameter | None, requires_grad: bool) -> nn.Linear:
    """An `nn.Linear` around a weight [n, k] and the bias itself."""
    n, k = weight.shape
    with torch.device("meta"):
        linear = nn.Linear(k, n, bias=False)
    linear.weight = nn.Parameter(weight, requires_grad=requires_grad)
    linear.register_parameter("bias", bias)
    return linear
