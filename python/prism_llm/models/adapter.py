"""One adapter for all decoder models: finds the blocks, records what each receives, and runs them one by one.

Attention masks and position embeddings are never rebuilt by hand: the model's own forward is run once per batch with
every block replaced by a recorder, so each block gets exactly the arguments its model would pass (sliding and global
layers differ), whatever the transformers version calls them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..scratch_file import TensorFile

_CACHE_ARGUMENTS = ("past_key_values", "past_key_value", "layer_past", "cache_params")


@dataclass(frozen=True)
class BlockCall:
    """What a block receives beside the hidden states. `keyword` names them if they are not the first argument."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    keyword: str | None = None


@dataclass
class CapturedInputs:
    """The inputs of all blocks.

    Attributes:
        hidden: per batch the input [batch, seqlen, width] of the first block; in memory, or in a file.
        calls: per batch and block the other arguments; equal tensors are stored once.
    """

    hidden: list[Tensor] | TensorFile = field(default_factory=list)
    calls: list[list[BlockCall]] = field(default_factory=list)


class DecoderAdapter:
    """The decoder blocks of `model` (`blocks`), their names (`prefixes`), and how to run them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        name, blocks = find_blocks(model)
        self.blocks: list[nn.Module] = list(blocks)
        self.prefixes = [f"{name}.{index}" for index in range(len(self.blocks))]
        self._output = _BlockOutput()

    @torch.no_grad()
    def capture(self, batches: Sequence[Tensor], hidden: TensorFile | None = None) -> CapturedInputs:
        """Runs the model up to its first block on each int64 [batch, seqlen] tensor of token ids.

        The hidden states go to `hidden`, or stay in memory.

        Needs no weights of blocks after `learn_output`, else those of the first one.

        Raises:
            NotImplementedError: blocks share mutable state, so they cannot run one by one.
        """
        with evaluation_mode(self.model), _recording(self.blocks, self._output) as recorder:
            if hidden is not None:
                recorder.captured.hidden = hidden
            for ids in batches:
                recorder.run(self.model, ids)
        return recorder.captured

    @torch.no_grad()
    def first_call(self, ids: Tensor) -> tuple[Tensor, BlockCall]:
        """The hidden states and other arguments that the first block gets for token ids [batch, seqlen]."""
        with evaluation_mode(self.model), _recording(self.blocks[:1], self._output) as recorder:
            recorder.run(self.model, ids)
        return recorder.captured.hidden[0], recorder.captured.calls[0][0]

    @torch.no_grad()
    def learn_output(self, hidden: Tensor, call: BlockCall) -> None:
        """Runs the first block on what `first_call` gave, to see in what form a block returns its hidden states."""
        with evaluation_mode(self.model):
            self._output.learn(_call_with_hidden(self.blocks[0], hidden, call))

    @torch.no_grad()
    def run_block(self, index: int, hidden: Tensor, call: BlockCall) -> Tensor:
        """The hidden states after block `index`; the model should be in evaluation mode."""
        return first_output(_call_with_hidden(self.blocks[index], hidden, call))


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the `nn.ModuleList` of the decoder blocks.

    It is the outermost list as long as the configuration's `num_hidden_layers` whose every element holds parameters.

    Raises:
        ValueError: none or several qualify; the message lists every list that was found.
    """
    wanted = _configured_layers(model)
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = {n: m for n, m in lists.items() if not any(n != other and n.startswith(f"{other}.") for other in lists)}
    fits = {
        n: m
        for n, m in outer.items()
        if len(m) and wanted in (None, len(m)) and all(next(block.parameters(), None) is not None for block in m)
    }
    if len(fits) == 1:
        return next(iter(fits.items()))
    found = ", ".join(f"{n} ({len(m)} x {type(m[0]).__name__ if len(m) else 'nothing'})" for n, m in lists.items())
    length = "" if wanted is None else f" of length num_hidden_layers = {wanted}"
    raise ValueError(
        f"find_blocks: model must have exactly one outermost nn.ModuleList{length} whose elements hold parameters, "
        f"got {len(fits)} in {type(model).__name__}; its lists: {found or 'none'}"
    )


def first_output(output: Any) -> Tensor:
    """The hidden states of a block's output, which is a tensor or a tuple that starts with it."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off inside; every module's own training flag comes back after."""
    # Weakly: what is replaced meanwhile must be free to go, with its weights.
    training = [weakref.ref(module) for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in (reference() for reference in training):
            if module is not None:
                module.training = True


def _configured_layers(model: nn.Module) -> int | None:
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    return getattr(config, "num_hidden_layers", None)


class _AllBlocksSeen(Exception):
    """Ends a forward whose remaining part (norm, head) is of no interest."""


@dataclass
class _BlockOutput:
    """What a block returns: a tuple of that length, or (None) the hidden states alone."""

    known: bool = False
    length: int | None = None

    def learn(self, output: Any) -> None:
        self.known, self.length = True, len(output) if isinstance(output, tuple) else None


class _Recorder:
    """Stands in for the forward of every block: notes the arguments and hands the hidden states on."""

    def __init__(self, blocks: Sequence[nn.Module], output: _BlockOutput) -> None:
        self.captured = CapturedInputs()
        self._first_forward = blocks[0].forward
        self._last = len(blocks) - 1
        self._pool: list[Tensor] = []
        self._batch: list[BlockCall] = []
        self._output = output

    def run(self, model: nn.Module, ids: Tensor) -> None:
        self._batch = []
        try:
            model(input_ids=ids, use_cache=False)
        except _AllBlocksSeen:
            self.captured.calls.append(self._batch)
            return
        raise RuntimeError(
            f"capture: the forward of {type(model).__name__} must call all {self._last + 1} blocks, "
            f"got {len(self._batch)} calls"
        )

    def stub(self, index: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden, call = _split_call(args, kwargs)
            if len(self._batch) != index:
                raise NotImplementedError(
                    f"capture: blocks must be called once each, in order; got block {index} as call {len(self._batch)}"
                )
            call = BlockCall(self._intern(call.args), self._intern(call.kwargs), call.keyword)
            self._batch.append(call)
            if index == 0:
                self.captured.hidden.append(hidden.detach())
            if index == self._last:
                raise _AllBlocksSeen
            if not self._output.known:
                # A model may index the output of a block; only a real block tells whether it is a tuple.
                self._output.learn(_call_with_hidden(self._first_forward, hidden.clone(), call))
            return hidden if self._output.length is None else (hidden,) + (None,) * (self._output.length - 1)

        return forward

    def _intern(self, value: Any) -> Any:
        """Without caches, and with equal tensors (masks, position embeddings) of all batches and blocks stored once."""
        from transformers.cache_utils import Cache

        if isinstance(value, Cache):
            return None
        if isinstance(value, Tensor):
            for known in self._pool:
                if known is value or _identical(known, value):
                    return known
            self._pool.append(value)
            return value
        if isinstance(value, tuple):
            return tuple(self._intern(item) for item in value)
        if isinstance(value, dict):
            return {key: self._intern_argument(key, item) for key, item in value.items()}
        return value

    def _intern_argument(self, key: str, value: Any) -> Any:
        if key in _CACHE_ARGUMENTS:
            return None
        if isinstance(value, (dict, list)):
            raise NotImplementedError(
                f"capture: blocks must not share mutable state, got a {type(value).__name__} as {key!r}"
            )
        return self._intern(value)


@contextmanager
def _recording(blocks: Sequence[nn.Module], output: _BlockOutput) -> Iterator[_Recorder]:
    recorder = _Recorder(blocks, output)
    overridden = [vars(block).get("forward") for block in blocks]
    for index, block in enumerate(blocks):
        block.forward = recorder.stub(index)  # type: ignore[method-assign]
    try:
        yield recorder
    finally:
        for block, forward in zip(blocks, overridden, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward  # type: ignore[method-assign]


def _split_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, BlockCall]:
    if args:
        return args[0], BlockCall(args[1:], kwargs)
    keyword = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
    rest = {key: value for key, value in kwargs.items() if key != keyword}
    return kwargs[keyword], BlockCall((), rest, keyword)


def _call_with_hidden(function: Callable[..., Any], hidden: Tensor, call: BlockCall) -> Any:
    if call.keyword is not None:
        return function(**{call.keyword: hidden}, **call.kwargs)
    return function(hidden, *call.args, **call.kwargs)


def _identical(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.device == b.device and torch.equal(a, b)
