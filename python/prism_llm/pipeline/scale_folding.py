"""Column scales folded into what produces a linear's input, so that the rounded weight needs no second scale.

W x = (W / t)(t x): the channels of x are multiplied by t where they are made, in the weight (and bias) of a norm or in
the rows of a linear, and W's columns are divided by t. Pre-SINQ (huawei-csl/SINQ, `presinq_models_generation`) does so
with t = mu1 / median(mu1), mu1 being SINQ's column factor of all readers of the channels together:

* v_proj -> o_proj, head by head; heads that share values share t,
* up_proj -> down_proj; an activation that is linear for positive factors (ReLU) lets fc1 -> fc2 through,
* a norm -> the linears that read it (q, k and v; gate and up; a norm may have its weight or 1 + weight as its factor).

Whether a model really is so is not taken from its names: each pair is tried on a few tokens with powers of two, which
are exact in every dtype, and left alone if the block then computes anything else (GELU between fc1 and fc2, a router
that reads the norm too).

Deviations from pre-SINQ: one pass of 16 iterations (the original tries several and keeps what changes logits least),
and any group size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from prism_kernels import ops

from ..models import CapturedInputs, DecoderAdapter
from .folding import linear_at, same_output, value_projection

#: Consumer -> (producer, in which of how many equal parts of its rows the channels are).
_MLP = {
    "down_proj": (("up_proj", 0, 1), ("gate_up_proj", 1, 2)),
    "fc2": (("fc1", 0, 1),),
    "w2": (("w3", 0, 1),),
}
_ATTENTION = ("o_proj", "out_proj")


@dataclass
class _Pair:
    """Who makes some channels and who reads them.

    Attributes:
        producer: a linear (rows `begin` to `begin` + channels) or a norm.
        consumers: by name; all that read the channels.
        repeats: (readers of each head, size of a head): how consumers repeat the channels; (1, channels) if they don't.
        offset: what a norm adds to its weight.
    """

    producer_name: str
    producer: nn.Module
    consumers: dict[str, nn.Linear]
    channels: int
    begin: int = 0
    repeats: tuple[int, int] = (1, 1)
    offset: float = 0.0

    def matrix(self) -> Tensor:
        """float32 [rows, channels]: every weight that reads a channel."""
        readers, size = self.repeats
        parts = []
        for consumer in self.consumers.values():
            weight = consumer.weight.detach().float()
            heads = weight.view(weight.shape[0], -1, readers, size).transpose(1, 2)
            parts.append(heads.reshape(-1, self.channels))
        return torch.cat(parts)

    def apply(self, factor: Tensor) -> None:
        """Multiplies the channels by `factor`, float32 [channels], where they are made; divides where they are read."""
        weight, bias = self.producer.get_parameter("weight"), getattr(self.producer, "bias", None)
        if isinstance(self.producer, nn.Linear):
            rows = slice(self.begin, self.begin + self.channels)
            weight[rows] = (weight[rows].float() * factor[:, None]).to(weight.dtype)
        else:
            rows, old = slice(None), weight.float() + self.offset
            weight.copy_(old * factor - self.offset)
            # Readers are divided by what the rounded weight really multiplies by.
            factor = torch.where(old == 0, factor, (weight.float() + self.offset) / old)
        if isinstance(bias, Tensor):
            bias[rows] = (bias[rows].float() * factor).to(bias.dtype)
        readers, size = self.repeats
        columns = factor.view(-1, 1, size).expand(-1, readers, -1).flatten()
        for consumer in self.consumers.values():
            consumer.weight.copy_(consumer.weight.float() / columns)


@dataclass
class FoldedScales:
    """Of `fold_column_scales`: a note for each linear that needs no column scale any more, and why others do."""

    notes: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


@torch.no_grad()
def fold_column_scales(
    adapter: DecoderAdapter, index: int, probe: CapturedInputs, *, method: str = "sinq", group_size: int = 64
) -> FoldedScales:
    """Folds column scales of the linears of block `index`, in place; the block computes the same up to rounding.

    Args:
        probe: a few tokens to compare the block on.
        method: of `prism_kernels.ops.column_scale`.
        group_size: of the quantization to come.
    """
    result = FoldedScales()
    for pair in _pairs(adapter, index, probe):
        consumers = ", ".join(name.rsplit(".", 1)[-1] for name in pair.consumers)
        if not _is_exact(adapter, index, probe, pair):
            result.refused.append(f"{pair.producer_name} -> {consumers}")
            continue
        scale = ops.column_scale(pair.matrix(), method=method, group_size=group_size).float()
        pair.apply(scale / scale.median())
        for name in pair.consumers:
            result.notes[name] = f"{method} column scale folded into {pair.producer_name.rsplit('.', 1)[-1]}"
    return result


def _pairs(adapter: DecoderAdapter, index: int, probe: CapturedInputs) -> Iterator[_Pair]:
    """In the order of the original: later ones see what earlier ones changed."""
    model, prefix = adapter.model, adapter.prefixes[index]
    names = [f"{prefix}.{n}" for n, m in adapter.blocks[index].named_modules() if isinstance(m, nn.Linear)]
    for name in names:
        consumer = linear_at(model, name)
        if name.rpartition(".")[2] in _ATTENTION and consumer is not None:
            producers, heads = value_projection(model, name, consumer.in_features)
            for producer_name, (producer, _) in producers.items():
                if heads is not None:
                    yield _Pair(producer_name, producer, {name: consumer}, producer.out_features, repeats=heads)
    for name in names:
        head, _, leaf = name.rpartition(".")
        consumer = linear_at(model, name)
        for producer_leaf, part, parts in _MLP.get(leaf, ()):
            found = linear_at(model, f"{head}.{producer_leaf}")
            if consumer is None or found is None or found.out_features != parts * consumer.in_features:
                continue
            k = consumer.in_features
            yield _Pair(f"{head}.{producer_leaf}", found, {name: consumer}, k, begin=part * k, repeats=(1, k))
            break
    yield from _norm_pairs(adapter, index, probe)


def _norm_pairs(adapter: DecoderAdapter, index: int, probe: CapturedInputs) -> Iterator[_Pair]:
    """Norms and the linears that read their very output."""
    block, prefix = adapter.blocks[index], adapter.prefixes[index]
    norms = {
        f"{prefix}.{name}": module
        for name, module in block.named_modules()
        if not isinstance(module, nn.Linear) and getattr(getattr(module, "weight", None), "ndim", 0) == 1
    }
    outputs: dict[str, Tensor] = {}
    readers: dict[str, dict[str, nn.Linear]] = {}

    def wrote(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            outputs[name] = output

    def reads(name: str, linear: nn.Linear, inputs: Tensor) -> None:
        for norm, output in outputs.items():
            if inputs.data_ptr() == output.data_ptr() and inputs.shape[-1] == output.shape[-1]:
                readers.setdefault(norm, {})[name] = linear

    handles = [m.register_forward_hook(lambda _, a, out, n=n: wrote(n, out)) for n, m in norms.items()]
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear):
            handles.append(module.register_forward_pre_hook(lambda m, args, n=f"{prefix}.{name}": reads(n, m, args[0])))
    try:
        adapter.run_block(index, probe.hidden[0], probe.calls[0][index])
    finally:
        for handle in handles:
            handle.remove()
    for norm, consumers in readers.items():
        k = outputs[norm].shape[-1]
        if all(linear.in_features == k for linear in consumers.values()) and norms[norm].weight.numel() == k:
            yield _Pair(norm, norms[norm], consumers, k, repeats=(1, k))


def _is_exact(adapter: DecoderAdapter, index: int, probe: CapturedInputs, pair: _Pair) -> bool:
    """Whether the block stays the same under factors 1/2, 1 and 2; finds out how a norm uses its weight. No pair is
    exact with a consumer that the probe does not reach, as an expert may be."""
    hidden, call = probe.hidden[0], probe.calls[0][index]
    reached: set[str] = set()
    handles = [
        consumer.register_forward_pre_hook(lambda module, args, name=name: reached.add(name))
        for name, consumer in pair.consumers.items()
    ]
    changed = [p for m in (pair.producer, *pair.consumers.values()) for p in m.parameters(recurse=False)]
    kept = [p.detach().clone() for p in changed]
    before = adapter.run_block(index, hidden, call).clone()
    for handle in handles:
        handle.remove()
    if reached != set(pair.consumers):
        return False
    factor = 2.0 ** (torch.arange(pair.channels, device=before.device) % 3 - 1).float()
    for offset in (0.0,) if isinstance(pair.producer, nn.Linear) else (0.0, 1.0):
        pair.offset = offset
        pair.apply(factor)
        same = same_output(before, adapter.run_block(index, hidden, call))
        for parameter, old in zip(changed, kept, strict=True):
            parameter.copy_(old)
        if same:
            return True
    return False
