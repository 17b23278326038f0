"""Judges a checkpoint directory before any of its weights is used.

A checkpoint comes from a stranger: names in it are checked against patterns and tables, and never become paths outside
the directory or imports.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import _layout
from ._errors import CheckpointError
from ._owner import owner
from .registry import FORMATS


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its shard's header describes it."""

    shard: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory whose names, headers and run id are consistent.

    Attributes:
        path: the directory.
        run_id: which run wrote it; equal in all its files.
        config: the model's configuration, without `quantization_config`.
        modules: full name of each compressed linear -> {"format": name, ...what the format needs}.
        tensors: every stored tensor by name.
        files: every file of the manifest -> {"bytes": int, "sha256": str}.
        recipe: the resolved recipe, or None. report: what the compression reported, or None.
    """

    path: Path
    run_id: str
    config: dict[str, Any]
    modules: dict[str, dict[str, Any]]
    tensors: dict[str, StoredTensor] = field(repr=False)
    files: dict[str, dict[str, Any]] = field(repr=False)
    recipe: dict[str, Any] | None
    report: dict[str, Any] | None = field(repr=False)

    @property
    def packed_tensors(self) -> dict[str, dict[str, str]]:
        """Full name of each compressed linear -> {tensor name in its format: stored name}; the bias is not in it."""
        found: dict[str, dict[str, str]] = {fqn: {} for fqn in self.modules}
        for name in self.tensors:
            fqn = owner(name, found)
            if fqn is not None and name != f"{fqn}.bias":
                found[fqn][name[len(fqn) + 1 :]] = name
        return found

    def module_nbytes(self, fqn: str) -> int:
        """Bytes on disk of one compressed linear's weight."""
        return sum(self.tensors[name].nbytes for name in self.packed_tensors[fqn].values())

    @property
    def compressed_nbytes(self) -> int:
        """Bytes on disk of all compressed linears' weights."""
        return sum(self.tensors[name].nbytes for names in self.packed_tensors.values() for name in names.values())

    @property
    def compressed_weights(self) -> int:
        """Weights (zeros included) of all compressed linears."""
        return sum(n * k for n, k in (module["shape"] for module in self.modules.values()))

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight of the compressed linears, from bytes on disk."""
        return 8 * self.compressed_nbytes / max(self.compressed_weights, 1)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Reads and judges everything but the weights themselves.

    Raises:
        CheckpointError: a missing or broken file, an unknown format or a newer version, a name that leads outside the
            directory, missing or extra tensors, files of different runs.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint: must be an existing directory, got {path}")
    config = read_json(folder / _layout.CONFIG)
    quantization = config.pop("quantization_config", None)
    modules = _checked_modules(quantization)
    manifest = read_json(folder / _layout.MANIFEST)
    run_id, files = _checked_manifest(folder, manifest)
    tensors = _checked_shards(folder, run_id, files)
    recipe, report = folder / _layout.RECIPE, folder / _layout.REPORT
    return Checkpoint(
        path=folder,
        run_id=run_id,
        config=config,
        modules=modules,
        tensors=tensors,
        files=files,
        recipe=_read_yaml(recipe) if recipe.exists() else None,
        report=read_json(report) if report.exists() else None,
    )


def verify(path: str | Path) -> Checkpoint:
    """`open_checkpoint`, and the digest of every file against the manifest. Raises CheckpointError."""
    checkpoint = open_checkpoint(path)
    for name, entry in checkpoint.files.items():
        digest = _layout.sha256_of(checkpoint.path / name)
        if digest != entry.get("sha256"):
            raise CheckpointError(f"{name}: sha256 must be {entry.get('sha256')}, got {digest}")
    return checkpoint


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.name}: must exist, not found in {path.parent}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: must be readable JSON, got {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name}: must hold a JSON object, got {type(value).__name__}")
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path.name}: must be readable YAML, got {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name}: must hold a mapping, got {type(value).__name__}")
    return value


def _checked_modules(quantization: Any) -> dict[str, dict[str, Any]]:
    where = f"{_layout.CONFIG}: quantization_config"
    if not isinstance(quantization, dict):
        raise CheckpointError(f"{where} must be an object, got {type(quantization).__name__}")
    if quantization.get("quant_method") != _layout.QUANT_METHOD:
        raise CheckpointError(
            f"{where}.quant_method must be {_layout.QUANT_METHOD!r}, got {quantization.get('quant_method')!r}"
        )
    _check_version(f"{where}.format_version", quantization.get("format_version"))
    modules = quantization.get("modules")
    if not isinstance(modules, dict):
        raise CheckpointError(f"{where}.modules must be an object, got {type(modules).__name__}")
    for fqn, module in modules.items():
        name = module.get("format") if isinstance(module, dict) else None
        if not isinstance(name, str) or name not in FORMATS:
            raise CheckpointError(f"module {fqn}: format must be one of {sorted(FORMATS)}, got {name!r}")
        shape = module.get("shape")
        if not (isinstance(shape, list) and len(shape) == 2 and all(type(size) is int and size > 0 for size in shape)):
            raise CheckpointError(f"module {fqn}: shape must be two positive integers, got {shape!r}")
    return modules


def _check_version(where: str, version: Any) -> None:
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{where} must be a positive integer, got {version!r}")
    if version > _layout.FORMAT_VERSION:
        raise CheckpointError(
            f"{where} must be at most {_layout.FORMAT_VERSION}, which this prism-kernels reads, got {version}; "
            "upgrade it"
        )


def _checked_manifest(folder: Path, manifest: Mapping[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    _check_version(f"{_layout.MANIFEST}: format_version", manifest.get("format_version"))
    run_id, files = manifest.get("run_id"), manifest.get("files")
    if not isinstance(run_id, str) or not run_id:
        raise CheckpointError(f"{_layout.MANIFEST}: run_id must be a string, got {run_id!r}")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise CheckpointError(f"{_layout.MANIFEST}: files must be an object of objects, got {type(files).__name__}")
    for name, entry in files.items():
        target = folder / name
        if not _is_inside(name):
            raise CheckpointError(f"{_layout.MANIFEST}: file names must stay in the directory, got {name!r}")
        if not target.is_file():
            raise CheckpointError(f"{name}: must exist, not found in {folder}")
        if target.stat().st_size != entry.get("bytes"):
            raise CheckpointError(f"{name}: must have {entry.get('bytes')} bytes, got {target.stat().st_size}")
    return run_id, files


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return bool(name) and "\\" not in name and "\0" not in name and not any(part in ("", ".", "..") for part in parts)


def _checked_shards(folder: Path, run_id: str, files: Mapping[str, Any]) -> dict[str, StoredTensor]:
    index = read_json(folder / _layout.INDEX)
    weight_map, metadata = index.get("weight_map"), index.get("metadata")
    if not isinstance(weight_map, dict) or not isinstance(metadata, dict):
        raise CheckpointError(f"{_layout.INDEX}: must hold the objects metadata and weight_map")
    _check_run_id(_layout.INDEX, metadata.get("run_id"), run_id)
    shards = set()
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _layout.SHARD_PATTERN.fullmatch(shard):
            raise CheckpointError(
                f"{_layout.INDEX}: tensor {tensor} must lie in a file compressed-NNNNN-of-NNNNN.safetensors of the "
                f"directory, got {shard!r}"
            )
        if shard not in files:
            raise CheckpointError(f"{shard}: must be listed in {_layout.MANIFEST}")
        shards.add(shard)
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(shards):
        held = _read_header(folder / shard, run_id)
        named = {tensor for tensor, other in weight_map.items() if other == shard}
        for tensor in sorted(named - held.keys()):
            raise CheckpointError(f"{shard}: must hold the tensor {tensor} that {_layout.INDEX} names, not found")
        for tensor in sorted(held.keys() - named):
            raise CheckpointError(f"{shard}: holds the tensor {tensor}, which {_layout.INDEX} does not name")
        tensors |= held
    return tensors


def _check_run_id(name: str, found: Any, expected: str) -> None:
    if found != expected:
        raise CheckpointError(
            f"{name}: run id must be {expected} as in {_layout.MANIFEST}, got {found!r}: files of different runs"
        )


def _read_header(path: Path, run_id: str) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as shard:
            _check_run_id(path.name, (shard.metadata() or {}).get("run_id"), run_id)
            held = {}
            for name in shard.keys():  # noqa: SIM118 (not a dict)
                part = shard.get_slice(name)
                shape, dtype = tuple(part.get_shape()), part.get_dtype()
                held[name] = StoredTensor(path.name, dtype, shape, _nbytes(path.name, name, dtype, shape))
            return held
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path.name}: must be a valid safetensors file, got {error}") from error


_DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def _nbytes(shard: str, name: str, dtype: str, shape: tuple[int, ...]) -> int:
    if dtype not in _DTYPE_BYTES:
        raise CheckpointError(f"{shard}: tensor {name} must have a dtype of {sorted(_DTYPE_BYTES)}, got {dtype}")
    elements = 1
    for size in shape:
        elements *= size
    return elements * _DTYPE_BYTES[dtype]
