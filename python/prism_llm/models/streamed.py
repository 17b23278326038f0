"""A model of which only what is in use is in memory: its blocks, and what lies outside, come from safetensors files."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from prism_kernels.nn import PackedLinear

from .adapter import DecoderAdapter
from .linears import has_hidden_linears
from .loading import not_found
from .safetensors_file import SafetensorsFile
from .skeleton import build_skeleton, restore_buffers

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


class NotStreamable(Exception):
    """The checkpoint cannot be read tensor by tensor under the model's own names; says why."""


class CheckpointTensors:
    """The tensors of a folder of safetensors files, read one by one into memory of their own."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[Path, SafetensorsFile] = {}
        index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
        if index.is_file():
            files = json.loads(index.read_text("utf-8"))["weight_map"]
            self._file_of = {name: folder / Path(file).name for name, file in files.items()}
        elif single.is_file():
            self._file_of = dict.fromkeys(self._names(single), single)
        else:
            raise NotStreamable(f"{folder} has neither model.safetensors nor model.safetensors.index.json")

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def shape(self, name: str) -> tuple[int, ...]:
        return self._open(self._file_of[name]).shape(name)

    def read(self, name: str) -> Tensor:
        return self._open(self._file_of[name]).read(name)

    def _names(self, path: Path) -> list[str]:
        return self._open(path).names

    def _open(self, path: Path) -> SafetensorsFile:
        if path not in self._files:
            self._files[path] = SafetensorsFile(path)
        return self._files[path]


class StreamedModel:
    """A causal language model on the meta device, into which blocks are loaded and from which they are released.

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
        self._tensors: CheckpointTensors | None = CheckpointTensors(folder)
        self._device, self._keep = device, keep_blocks
        self.model = _skeleton_for(folder, dtype)
        self._names = _match_names(self.model, self._tensors)
        self._lent: list[str] = []
        self._begin(on_tensors)
        try:
            restore_buffers(self.model, device)
        except ValueError as error:
            raise NotStreamable(str(error)) from error
        _load_generation_config(self.model, folder)
        outside = [name for name in self._names if not self._in_block(name)]
        if on_tensors is None or keep_blocks:
            self._materialize(outside)
            self.model.tie_weights()  # type: ignore[operator]
            self._emit_outside_blocks()
            return
        shared = self._shared_with_blocks()
        self._materialize([name for name in outside if name in shared])
        self._lent = [name for name in outside if name not in shared]
        for name in outside:
            on_tensors({name: self._place(name)[2].detach() if name in shared else self._read(name)})

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
        prefix = self._adapter.prefixes[index]
        if self._tensors is not None:
            self._materialize([n for n in self._names if n.startswith(f"{prefix}.") and self._place(n)[2].is_meta])

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Brings what lies outside the blocks into memory, except the head, where it is not kept there."""
        head = self.model.get_output_embeddings()  # type: ignore[operator]
        embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        tied = head is None or getattr(head, "weight", None) is embedding.weight
        names = [name for name in self._lent if tied or self._place(name)[0] is not head]
        self._materialize(names)
        self._tie()
        try:
            yield
        finally:
            self._drop(names)
            self._tie()
            _return_free_memory()

    def release(self, index: int) -> None:
        """Hands the tensors of a block outside packed linears to `on_tensors` and drops the block, unless kept."""
        if not self._keep:
            block, prefix = self._adapter.blocks[index], self._adapter.prefixes[index]
            self._emit(block, f"{prefix}.")
            block.to("meta")
        _return_free_memory()

    def unload(self, index: int) -> None:
        """Drops the weights of a block unchanged; `load` reads them again. Nothing where the model is in memory."""
        if self._tensors is None:
            return
        prefix = self._adapter.prefixes[index]
        self._drop([n for n in self._names if n.startswith(f"{prefix}.")])
        _return_free_memory()

    def _begin(self, on_tensors: Callable[[dict[str, Tensor]], object] | None) -> None:
        self._on_tensors = on_tensors
        self._adapter = DecoderAdapter(self.model)

    def _in_block(self, name: str) -> bool:
        return any(name.startswith(f"{prefix}.") for prefix in self._adapter.prefixes)

    def _emit_outside_blocks(self) -> None:
        if self._on_tensors is None:
            return
        tensors = self.model.state_dict(keep_vars=True)
        self._hand_over({name: tensor for name, tensor in tensors.items() if not self._in_block(name)})

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

    def _place(self, name: str) -> tuple[nn.Module, str, Tensor]:
        module_name, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(module_name)
        return module, leaf, getattr(module, leaf)

    def _read(self, name: str) -> Tensor:
        assert self._tensors is not None
        return self._tensors.read(self._names[name]).to(device=self._device, dtype=self._place(name)[2].dtype)

    def _materialize(self, names: list[str]) -> None:
        for name in names:
            self._put(name, self._read(name))

    def _drop(self, names: list[str]) -> None:
        for name in names:
            self._put(name, self._place(name)[2].to("meta"))

    def _put(self, name: str, tensor: Tensor) -> None:
        module, leaf, place = self._place(name)
        if isinstance(place, nn.Parameter):
            module._parameters[leaf] = nn.Parameter(tensor, requires_grad=place.requires_grad)
        else:
            module._buffers[leaf] = tensor

    def _tie(self) -> None:
        if self._lent:
            self.model.tie_weights()  # type: ignore[operator]

    def _shared_with_blocks(self) -> set[str]:
        """Names outside the blocks whose tensors blocks read as well."""
        tensors = self.model.state_dict(keep_vars=True)
        inside = {id(tensor) for name, tensor in tensors.items() if self._in_block(name)}
        return {name for name, tensor in tensors.items() if not self._in_block(name) and id(tensor) in inside}


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
    if getattr(model, "_keep_in_fp32_modules", None) or getattr(model, "_keep_in_fp32_modules_strict", None):
        raise NotStreamable(f"{type(model).__name__} keeps some modules in float32")
    if has_hidden_linears(model):
        raise NotStreamable(f"{type(model).__name__} has linears in another layout (Conv1D or fused experts)")
    return model


def _match_names(model: nn.Module, tensors: CheckpointTensors) -> dict[str, str]:
    """The stored name of every tensor of the model; tied ones once, under the name that the model lists first."""
    prefix = f"{model.base_model_prefix}."
    names = {}
    persistent = model.state_dict(keep_vars=True)
    seen: set[int] = set()
    for name, tensor in persistent.items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        candidates = (name, name.removeprefix(prefix), prefix + name)
        stored = next((candidate for candidate in candidates if candidate in tensors), None)
        if stored is None:
            raise NotStreamable(f"the checkpoint has no tensor {name}, which its model needs")
        if tensors.shape(stored) != tuple(tensor.shape):
            raise NotStreamable(f"{name} must have shape {list(tensor.shape)}, got {list(tensors.shape(stored))}")
        names[name] = stored
    return names


def _return_free_memory() -> None:
    """Gives freed heap pages back to the system, where the C library is glibc.

    Its heap otherwise grows by the fragments that each block leaves: in the end, by the size of the dense model.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _load_generation_config(model: nn.Module, folder: Path) -> None:
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)  # type: ignore[assignment]
