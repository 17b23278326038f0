"""Swaps the `nn.Linear` modules of a model for packed ones, and says what it left alone and why."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .nn._base import PackedLinear


@dataclass
class SwapReport:
    """What `swap_linears` did: names of swapped modules with their description, and of those left with the reason."""

    swapped: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    dense_nbytes: int = 0
    packed_nbytes: int = 0

    def __str__(self) -> str:
        lines = [f"swapped {len(self.swapped)} linears, {self.dense_nbytes:,} -> {self.packed_nbytes:,} bytes"]
        lines += [f"  {name}: {what}" for name, what in self.swapped.items()]
        lines += [f"  left {name}: {why}" for name, why in self.left.items()]
        return "\n".join(lines)


def matches(pattern: str, name: str, module: nn.Module) -> bool:
    """`re:<regex>` matches the whole name; otherwise the full name, its last part, or the class name."""
    if pattern.startswith("re:"):
        return re.fullmatch(pattern[3:], name) is not None
    return pattern in (name, name.rsplit(".", 1)[-1], type(module).__name__)


def select_linears(
    model: nn.Module, targets: Iterable[str] = ("Linear",), ignore: Iterable[str] = ("lm_head",)
) -> tuple[dict[str, nn.Linear], dict[str, str]]:
    """The linears of `model` that `targets` names and `ignore` does not, and the others with the reason.

    A target that matches no module is an error (a typo would silently compress less); so is an ignore pattern other
    than the default `lm_head`.
    """
    targets, ignore = tuple(targets), tuple(ignore)
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    for kind, patterns in (("targets", targets), ("ignore", ignore)):
        for pattern in patterns:
            if (kind, pattern) != ("ignore", "lm_head") and not any(matches(pattern, n, m) for n, m in linears.items()):
                raise ValueError(
                    f"select_linears: {kind} must match a linear of the model, got {pattern!r}, which matches none"
                )
    chosen, left = {}, {}
    for name, module in linears.items():
        ignored = next((p for p in ignore if matches(p, name, module)), None)
        if ignored is not None:
            left[name] = f"ignored by {ignored!r}"
        elif any(matches(p, name, module) for p in targets):
            chosen[name] = module
        else:
            left[name] = "not a target"
    return chosen, left


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent_name, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent_name), attribute, module)


def swap_linears(
    model: nn.Module,
    module_class: type[PackedLinear],
    *,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = ("lm_head",),
    masks: dict[str, torch.Tensor] | None = None,
    **options: Any,
) -> SwapReport:
    """Replaces linears of `model` in place by `module_class.from_linear(linear, mask, **options)`.

    Args:
        model: any `nn.Module`.
        module_class: one of `prism_kernels.nn`, e.g. `DualShiftLinear`.
        targets, ignore: module names, last name parts, class names, or `re:<regex>` over whole names.
        masks: bool [n, k] by module name (True = kept); sparse formats default to the non-zeros.
        **options: passed on, e.g. `bits=4, group_size=64`.

    Returns:
        A `SwapReport`.

    Raises:
        ValueError: a pattern matches nothing, or a mask names no selected linear.
    """
    chosen, left = select_linears(model, targets, ignore)
    if not chosen:
        raise ValueError("swap_linears: model must have a linear to swap, got none that targets and ignore leave")
    unknown = sorted(set(masks or {}) - set(chosen))
    if unknown:
        raise ValueError(f"swap_linears: masks must name selected linears, got {unknown}")
    report = SwapReport(left=left)
    for name, linear in chosen.items():
        packed = module_class.from_linear(linear, mask=(masks or {}).get(name), **options)
        replace_module(model, name, packed)
        report.swapped[name] = repr(packed)
        report.dense_nbytes += linear.weight.numel() * linear.weight.element_size()
        report.packed_nbytes += packed.nbytes
    return report
