"""`load`: a checkpoint directory becomes a model whose linears compute from their packed weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prism_kernels.formats import FormatError

from ..models.linears import expose_linears
from ..models.skeleton import build_skeleton, restore_buffers
from ._errors import CheckpointError
from ._layout import GENERATION_CONFIG
from ._owner import owner
from .reader import Checkpoint, open_checkpoint
from .registry import FORMATS


def load(path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
    """Builds the model of a checkpoint, with packed linears in the places of the compressed ones.

    No weight is initialized at random and nothing dense is made of the packed ones. `model.prism_checkpoint` keeps what
    `open_checkpoint` read.

    Args:
        path: a directory written by `save` or `CheckpointWriter`.
        device: where the tensors go.
        dtype: dtype of the parameters that are not packed, hence of the activations; None keeps the stored ones.

    Returns:
        The transformers model, in evaluation mode.

    Raises:
        CheckpointError: the directory is incomplete, inconsistent, or does not fit its own model configuration.
    """
    checkpoint = open_checkpoint(path)
    model = _skeleton(checkpoint, dtype)
    expose_linears(model).restore_unless(checkpoint.modules)
    _restore_buffers(model, device)  # while every module is one that transformers knows
    linears = _compressed_linears(model, checkpoint)
    aliases = _aliases(model, set(linears))
    _check_names(model, checkpoint, linears, set(aliases))
    values = _Values(checkpoint, torch.device(device), dtype)
    with torch.no_grad():
        for fqn, linear in linears.items():
            _set_module(model, fqn, _packed_linear(checkpoint, fqn, linear, values))
        packed = set(checkpoint.packed_tensors)
        for name, tensor in list(model.state_dict(keep_vars=True).items()):
            if name not in aliases and owner(name, packed) is None:
                _set_tensor(model, name, values.read(name, tensor))
        for alias, source in aliases.items():
            _set_tensor(model, alias, _get_tensor(model, source))
    _load_generation_config(model, checkpoint)
    model.prism_checkpoint = checkpoint  # type: ignore[assignment]
    return model.eval()


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer stored with a checkpoint (a transformers tokenizer).

    Raises:
        CheckpointError: the directory holds none.
    """
    from transformers import AutoTokenizer

    folder = Path(path)
    if not (folder / "tokenizer_config.json").is_file():
        raise CheckpointError(f"tokenizer_config.json: must exist for a tokenizer, not found in {folder}")
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _skeleton(checkpoint: Checkpoint, dtype: torch.dtype | None) -> nn.Module:
    from transformers import CONFIG_MAPPING

    values = {key: value for key, value in checkpoint.config.items() if key != "auto_map"}
    try:
        config = CONFIG_MAPPING[values.pop("model_type", None)].from_dict(values)
        stored: Any = config.dtype
        return build_skeleton(config, dtype or stored or torch.float32)
    except Exception as error:  # whatever a strange configuration raises inside transformers, it is the file's fault
        raise CheckpointError(
            f"config.json: must describe a causal language model that transformers can build, got {error}"
        ) from error


def _restore_buffers(model: nn.Module, device: str | torch.device) -> None:
    try:
        restore_buffers(model, device)
    except ValueError as error:
        raise CheckpointError(f"config.json: {error}") from error


def _compressed_linears(model: nn.Module, checkpoint: Checkpoint) -> dict[str, nn.Linear]:
    modules = dict(model.named_modules())
    found = {}
    for fqn, entry in checkpoint.modules.items():
        linear = modules.get(fqn)
        if not isinstance(linear, nn.Linear):
            kind = "no module" if linear is None else type(linear).__name__
            raise CheckpointError(f"module {fqn}: must name a linear layer of the model, got {kind}")
        shape = [linear.out_features, linear.in_features]
        if entry["shape"] != shape:
            raise CheckpointError(f"module {fqn}: shape must be {shape} by the model's config, got {entry['shape']}")
        found[fqn] = linear
    return found


def _aliases(model: nn.Module, packed: set[str]) -> dict[str, str]:
    """Names of tied tensors -> the first name of the same tensor, which is the one that is stored."""
    first: dict[int, str] = {}
    aliases = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        source = first.setdefault(id(tensor), name)
        if source == name:
            continue
        for tied in (name, source):
            if tied.rpartition(".")[0] in packed:
                raise CheckpointError(
                    f"module {tied.rpartition('.')[0]}: is compressed, but tied by the model's config"
                )
        aliases[name] = source
    return aliases


def _check_names(model: nn.Module, checkpoint: Checkpoint, linears: dict[str, nn.Linear], aliases: set[str]) -> None:
    stored_packed = {name for names in checkpoint.packed_tensors.values() for name in names.values()}
    weights = {f"{fqn}.weight" for fqn in linears}
    expected = model.state_dict().keys() - aliases - weights
    stored = checkpoint.tensors.keys() - stored_packed
    for name in sorted(expected - stored):
        raise CheckpointError(
            f"tensor {name}: must be stored for this model, not found ({len(expected - stored)} missing)"
        )
    for name in sorted(stored - expected):
        raise CheckpointError(f"tensor {name}: has no place in this model ({len(stored - expected)} such tensors)")


class _Values:
    """Reads stored tensors, each checked against the place it goes to."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype | None) -> None:
        self.device = device
        self._checkpoint, self._dtype = checkpoint, dtype
        self._open: dict[str, Any] = {}

    def raw(self, name: str) -> Tensor:
        """The tensor as stored, in memory of its own: the file may change or vanish afterwards."""
        from safetensors import safe_open

        shard = self._checkpoint.tensors[name].shard
        if shard not in self._open:
            self._open[shard] = safe_open(self._checkpoint.path / shard, framework="pt")
        return self._open[shard].get_tensor(name).clone()

    def read(self, name: str, place: Tensor) -> Tensor:
        """A tensor that is not packed, cast to the requested dtype, of the kind (parameter or buffer) of its place."""
        tensor = self.raw(name)
        if tensor.shape != place.shape:
            raise CheckpointError(
                f"tensor {name}: shape must be {list(place.shape)} by the model's config, got {list(tensor.shape)}"
            )
        if tensor.is_floating_point() != place.is_floating_point():
            raise CheckpointError(f"tensor {name}: dtype must be like {place.dtype}, got {tensor.dtype}")
        dtype = self._dtype if self._dtype is not None and tensor.is_floating_point() else tensor.dtype
        tensor = tensor.to(device=self.device, dtype=dtype)
        return nn.Parameter(tensor, place.requires_grad) if isinstance(place, nn.Parameter) else tensor


def _packed_linear(checkpoint: Checkpoint, fqn: str, linear: nn.Linear, values: _Values) -> nn.Module:
    entry = checkpoint.modules[fqn]
    kind = FORMATS[entry["format"]]
    names = checkpoint.packed_tensors[fqn]
    config = {key: value for key, value in entry.items() if key != "format"}
    try:
        weight = kind.weight.from_tensors({leaf: values.raw(name) for leaf, name in names.items()}, config)
    except (FormatError, KeyError, TypeError) as error:
        raise CheckpointError(f"module {fqn}: {error}") from error
    if extra := sorted(names.keys() - weight.tensors().keys()):
        raise CheckpointError(f"tensor {names[extra[0]]}: has no place in the format {entry['format']}")
    if list(weight.shape) != entry["shape"]:
        raise CheckpointError(f"module {fqn}: shape must be {entry['shape']}, got {list(weight.shape)}")
    bias = None if linear.bias is None else values.read(f"{fqn}.bias", linear.bias)
    return kind.module(weight, bias).to(values.device)


def _set_module(model: nn.Module, fqn: str, module: nn.Module) -> None:
    parent, _, leaf = fqn.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _get_tensor(model: nn.Module, name: str) -> Tensor:
    parent, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(parent), leaf)


def _set_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    registry = owner._parameters if leaf in owner._parameters else owner._buffers
    registry[leaf] = tensor  # type: ignore[assignment]


def _load_generation_config(model: nn.Module, checkpoint: Checkpoint) -> None:
    from transformers import GenerationConfig

    if GENERATION_CONFIG in checkpoint.files:
        model.generation_config = GenerationConfig.from_pretrained(checkpoint.path)  # type: ignore[assignment]
