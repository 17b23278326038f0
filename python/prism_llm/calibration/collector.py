"""Collects `InputStatistics` by forward pre-hooks; linears that read the same tensor share one object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..memory import return_free_memory
from .statistics import InputStatistics


class StatisticsCollector:
    """Statistics of the inputs of some linears of a block.

    The first forward finds out which linears read the same tensor (q, k and v; gate and up); from then on one of each
    group feeds the shared statistics, and the others only confirm that they still read its input.

    Args:
        linears: the linears by name.
        hessian: also accumulate X^T X.
        max_tokens: take only the first so many tokens of each; None takes all.
        optional: names that no token may reach (experts); they then have no statistics.
    """

    def __init__(
        self,
        linears: Mapping[str, nn.Linear],
        *,
        hessian: bool = False,
        max_tokens: int | None = None,
        optional: Collection[str] = (),
    ) -> None:
        self.statistics: dict[str, InputStatistics] = {}
        self._linears, self._optional = dict(linears), frozenset(optional)
        self._hessian, self._max_tokens = hessian, max_tokens
        self._leaders: dict[str, str] = {}
        self._first_forward: dict[str, int] = {}
        self._calls: Counter[str] = Counter()
        self._forward = 0
        # Inputs of the forward under way and the leaders that read them. Holding the tensors keeps their memory from
        # being given to another one, which would then look like the same input.
        self._seen: dict[tuple[Any, ...], tuple[Tensor, list[str]]] = {}

    @torch.no_grad()
    def run(self, forwards: Iterable[Callable[[], Any]]) -> dict[str, InputStatistics]:
        """Calls each of `forwards` (one batch through the block) under hooks, and returns the checked statistics.

        Raises:
            CalibrationError: a linear saw no token, or its statistics are not finite.
            RuntimeError: linears that shared their input in one batch do not in another.
        """
        # Hooks return None: a value would replace the input of the linear.
        handles = [
            linear.register_forward_pre_hook(lambda module, args, name=name: self._observe(name, args[0]))
            for name, linear in self._linears.items()
        ]
        try:
            for forward in forwards:
                forward()
                self._seen.clear()
                self._forward += 1
                return_free_memory()  # the next batch does not fit into the holes that this one leaves
        finally:
            self._seen.clear()
            for handle in handles:
                handle.remove()
        for name, linear in self._linears.items():
            if name not in self.statistics and name in self._optional:
                continue
            if name not in self.statistics:
                InputStatistics(linear.in_features, hessian=False).check(name)
            self.statistics[name].check(name)
            self._require_shared(name, self._calls[name] == self._calls[self._leaders[name]])
        return self.statistics

    def groups(self) -> list[list[str]]:
        """The names of the linears, those with one input together, in the order of the linears."""
        by_leader: dict[str, list[str]] = {}
        for name in self._linears:
            by_leader.setdefault(self._leaders.get(name, name), []).append(name)
        return list(by_leader.values())

    def _observe(self, name: str, inputs: Tensor) -> None:
        if inputs.numel() == 0:
            return  # an expert without tokens; all empty tensors have the same address
        key = (inputs.data_ptr(), inputs.shape, inputs.stride(), inputs.dtype, inputs._version)
        _, readers = self._seen.setdefault(key, (inputs, []))
        self._calls[name] += 1
        if name not in self._leaders:
            self._join(name, inputs, readers)
        leader = self._leaders[name]
        if leader == name:
            readers.append(name)
            self.statistics[name].add(inputs)
        else:
            self._require_shared(name, leader in readers)

    def _join(self, name: str, inputs: Tensor, readers: list[str]) -> None:
        """Gives `name` the statistics of a linear that reads the same tensor and has seen nothing but what it saw."""
        self._first_forward[name] = self._forward
        leader = next((r for r in readers if self._first_forward[r] == self._forward), name)
        self._leaders[name] = leader
        if leader == name:
            self.statistics[name] = InputStatistics(
                inputs.shape[-1], hessian=self._hessian, max_tokens=self._max_tokens, device=inputs.device
            )
        else:
            self.statistics[name] = self.statistics[leader]

    def _require_shared(self, name: str, shared: bool) -> None:
        if not shared:
            raise RuntimeError(
                f"calibration: {name} must read the input of {self._leaders[name]} in every batch, as in the first"
            )
