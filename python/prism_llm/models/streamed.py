"""A model of which only what is in use is in memory: its blocks, and what lies outside, come from safetensors files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from prism_kernels.nn import PackedLinear

from ..memory import return_free_memory
from .adapter import DecoderAdapter
from .linears import conv1d_weights, places_of
from .loading import not_found
from .skeleton import build_skeleton, restore_buffers
from .stored_tensors import NotStreamable, Source, StoredTensors, find_sources

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


class StreamedModel:
    """A causal language model on the meta device, into which blocks are loaded and from which they are released.

    Linears in another layout may be exposed (`expose_linears`) meanwhile: weights then go to what stands for them.

    Args:
        source: a folder in the transformers layout, or a repository of the hub.
        dtype: of the weights, or "auto" for the checkpoint's.
        device: where loaded tensors go.
        keep_blocks: whether `release` leaves a block in memory.
        on_tensors: receives {name: tensor} of everything outside packed linears, if `keep_blocks` is False. What lies
            outside the blocks is handed over at once, tensor by tensor, and then in memory only within `outside`.

    Attributes:
        model: everything outside the decoder blocks is loaded, unless handed over.

    Raises:
        NotStreamable: names or shapes of the checkpoint are not the model's, or a feature of the model needs loading
            as a whole.
        FileNotFoundError: no such model.
    """

    def __init__(
        self,
        source: str,
        *,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str = "cpu",
        keep_blocks: bool = True,
        on_tensors: Callable[[dict[str, Tensor]], object] | None = None,
    ) -> None:
        folder = _local_folder(source)
        self._tensors: StoredTensors | None = StoredTensors(folder)
        self._device, self._keep = device, keep_blocks
        self.model = _skeleton_for(folder, dtype)
        self._sources = find_sources(self.model, self._tensors)
        self._conv1d_weights = conv1d_weights(self.model)
        self._lent: list[Source] = []
        self._begin(on_tensors)
        try:
            restore_buffers(self.model, device)
        except ValueError as error:
            raise NotStreamable(str(error)) from error
        _load_generation_config(self.model, folder)
        outside = [s for s in self._sources if not all(map(self._in_block, s.targets.values()))]
        shared = self._read_by_blocks()
        if on_tensors is not None and not keep_blocks:
            order = list(self.model.state_dict())
            self._lent = [s for s in outside if shared.isdisjoint(s.targets.values())]
            self._lent.sort(key=lambda part: min(map(order.index, part.targets.values())))
        lent = {name for part in self._lent for name in part.targets.values()}
        self._materialize([s for s in outside if lent.isdisjoint(s.targets.values())])
        self.model.tie_weights()  # type: ignore[operator]
        for part in self._lent:
            self._hand_over({name: t.to(device) for name, t in part.read(self.model, self._tensors).items()})
        self._emit_outside_blocks(without=lent)

    @classmethod
    def around(
        cls,
        model: nn.Module,
        *,
        keep_blocks: bool = True,
        on_tensors: Callable[[dict[str, Tensor]], object] | None = None,
    ) -> StreamedModel:
        """The same face over a model that is in memory as a whole."""
        streamed = cls.__new__(cls)
        streamed.model, streamed._tensors, streamed._keep, streamed._lent = model, None, keep_blocks, []
        streamed._begin(on_tensors)
        streamed._emit_outside_blocks()
        return streamed

    def load(self, index: int) -> None:
        """Reads the weights of one block, unless they are in memory."""
        if self._tensors is not None:
            sources = self._sources_of(index)
            self._materialize([s for s in sources if any(self._is_missing(name) for name in s.targets.values())])

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Brings what lies outside the blocks into memory, except an untied head, where it is not kept there."""
        wanted = self._used_before_blocks() if self._lent else []
        if wanted:
            self._materialize(wanted)
            self.model.tie_weights()  # type: ignore[operator]
        try:
            yield
        finally:
            if wanted:
                self._drop(wanted)
                self.model.tie_weights()  # type: ignore[operator]
                return_free_memory()

    def release(self, index: int) -> None:
        """Hands the tensors of a block outside packed linears to `on_tensors` and drops the block, unless kept."""
        if not self._keep:
            block, prefix = self._adapter.blocks[index], self._adapter.prefixes[index]
            self._emit(block, f"{prefix}.")
            block.to("meta")
        return_free_memory()

    def unload(self, index: int) -> None:
        """Drops the weights of a block unchanged; `load` reads them again. Nothing where the model is in memory."""
        if self._tensors is None:
            return
        self._drop(self._sources_of(index))
        return_free_memory()

    def _begin(self, on_tensors: Callable[[dict[str, Tensor]], object] | None) -> None:
        self._on_tensors = on_tensors
        self._adapter = DecoderAdapter(self.model)

    def _sources_of(self, index: int) -> list[Source]:
        prefix = f"{self._adapter.prefixes[index]}."
        return [source for source in self._sources if any(n.startswith(prefix) for n in source.targets.values())]

    def _is_missing(self, name: str) -> bool:
        return any(place.tensor.is_meta for place in places_of(self.model, name, self._conv1d_weights))

    def _in_block(self, name: str) -> bool:
        return any(name.startswith(f"{prefix}.") for prefix in self._adapter.prefixes)

    def _used_before_blocks(self) -> list[Source]:
        """All that is lent, except an untied head."""
        head = getattr(self.model.get_output_embeddings(), "weight", None)  # type: ignore[operator]
        if head is self.model.get_input_embeddings().weight:  # type: ignore[operator]
            return self._lent
        named = self.model.named_parameters(remove_duplicate=False)
        unused = {name for name, parameter in named if parameter is head}
        return [source for source in self._lent if unused.isdisjoint(source.targets.values())]

    def _read_by_blocks(self) -> set[str]:
        """Names outside the blocks of tensors that blocks read as well."""
        tensors = self.model.state_dict(keep_vars=True)
        inside = {id(tensor) for name, tensor in tensors.items() if self._in_block(name)}
        return {name for name, tensor in tensors.items() if not self._in_block(name) and id(tensor) in inside}

    def _emit_outside_blocks(self, without: Collection[str] = ()) -> None:
        if self._on_tensors is None:
            return
        tensors = self.model.state_dict(keep_vars=True)
        known = {id(tensors[name]) for name in without}
        left = {name: tensor for name, tensor in tensors.items() if id(tensor) not in known}
        self._hand_over({name: tensor for name, tensor in left.items() if not self._in_block(name)})

    def _emit(self, block: nn.Module, prefix: str) -> None:
        if self._on_tensors is None:
            return
        packed = tuple(f"{prefix}{name}." for name, m in block.named_modules() if isinstance(m, PackedLinear))
        tensors = block.state_dict(prefix=prefix, keep_vars=True)
        self._hand_over({name: t for name, t in tensors.items() if not name.startswith(packed or ("\0",))})

    def _hand_over(self, tensors: dict[str, Tensor]) -> None:
        assert self._on_tensors is not None
        unique: dict[int, tuple[str, Tensor]] = {}
        for name, tensor in tensors.items():
            unique.setdefault(id(tensor), (name, tensor.detach()))
        if unique:
            self._on_tensors(dict(unique.values()))

    def _materialize(self, sources: list[Source]) -> None:
        assert self._tensors is not None
        for source in sources:
            for name, tensor in source.read(self.model, self._tensors).items():
                tensor = tensor.to(self._device)
                for place in places_of(self.model, name, self._conv1d_weights):
                    place.put(place.part_of(tensor))

    def _drop(self, sources: list[Source]) -> None:
        for source in sources:
            for name in source.targets.values():
                for place in places_of(self.model, name, self._conv1d_weights):
                    place.put(place.tensor.to("meta"))


def _local_folder(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        raise not_found("compress", source, error) from error


def _skeleton_for(folder: Path, dtype: torch.dtype | str) -> nn.Module:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise not_found("compress", str(folder), error) from error
    if getattr(config, "quantization_config", None) is not None:
        raise NotStreamable("the checkpoint is quantized already")
    if isinstance(dtype, str):
        dtype = config.dtype or torch.float32
    model = build_skeleton(config, dtype)
    _keep_float32(model, dtype)
    return model


def _keep_float32(model: nn.Module, dtype: torch.dtype) -> None:
    """Gives the tensors that the model wants in float32 whatever it is loaded in that dtype, as `from_pretrained`."""
    from transformers.core_model_loading import build_glob_alternation

    patterns = list(model._get_dtype_plan(dtype))  # type: ignore[operator]
    if not patterns:
        return
    wanted = build_glob_alternation(patterns)[0]
    for name, tensor in model.state_dict(keep_vars=True).items():
        if wanted.search(name):
            for place in places_of(model, name):
                place.put(tensor.float())


def _load_generation_config(model: nn.Module, folder: Path) -> None:
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)  # type: ignore[assignment]
