"""`CheckpointWriter`: streams tensors into a checkpoint directory that appears complete or not at all."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from prism_kernels.nn import PackedLinear

from . import _layout
from ._errors import CheckpointError
from .readme import readme_text
from .registry import FORMATS
from .shard import Shard, set_metadata
from .staging import StagingDirectory

SHARD_BYTES = 2_000_000_000
_RUN_ID_PLACEHOLDER = "0" * 32


class CheckpointWriter:
    """Writes a checkpoint block by block; tensors go to disk as they are added.

        with CheckpointWriter("out") as writer:
            writer.add_module("model.layers.0.mlp.up_proj", packed_linear)
            writer.add_tensors({"model.norm.weight": weight})
            writer.finish(config=model.config.to_diff_dict())

    Leaving the block without `finish` (an exception, an interrupt) leaves nothing behind. The run id is derived from
    the content, so equal content gives equal files.

    Args:
        out: directory to produce.
        overwrite: replace an existing checkpoint; the old one stays until the new one is complete.
        shard_bytes: largest shard (a larger single tensor gets a shard of its own).

    Raises:
        CheckpointError: `out` exists, a name is added twice, or a module has no checkpoint format.
    """

    def __init__(self, out: str | Path, *, overwrite: bool = False, shard_bytes: int = SHARD_BYTES) -> None:
        if shard_bytes < 1:
            raise ValueError(f"CheckpointWriter: shard_bytes must be at least 1, got {shard_bytes}")
        self._staging = StagingDirectory(out, overwrite=overwrite)
        self._shard_bytes = shard_bytes
        self._shard: Shard | None = None
        self._shard_of: dict[str, int] = {}
        self._shards = 0
        self._total_bytes = 0
        self._modules: dict[str, dict[str, Any]] = {}
        self._content = hashlib.sha256()
        self._finished = False

    @property
    def directory(self) -> Path:
        """Where files are staged; whatever lies there at `finish` becomes part of the checkpoint."""
        return self._staging.path

    def __enter__(self) -> "CheckpointWriter":
        self._staging.create()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            if self._shard is not None:
                self._shard.discard()
            self._staging.discard()

    def add_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Adds tensors under their full names. They are on disk when this returns; the writer keeps none."""
        for name, tensor in tensors.items():
            if name in self._shard_of:
                raise CheckpointError(f"tensor {name}: must be added once, got it twice")
            if tensor.is_meta:
                raise CheckpointError(f"tensor {name}: must hold data, got a meta tensor")
            size = tensor.numel() * tensor.element_size()
            if self._shard is not None and self._shard.nbytes and self._shard.nbytes + size > self._shard_bytes:
                self._flush()
            if self._shard is None:
                self._shard = Shard(self.directory / self._partial_name(self._shards))
            self._shard.add(name, tensor)
            self._shard_of[name] = self._shards

    def add_module(self, fqn: str, module: PackedLinear) -> None:
        """Adds a packed linear (and its bias) under its full name in the model."""
        name = module.FORMAT.NAME
        if name not in FORMATS or FORMATS[name].module is not type(module):
            raise CheckpointError(
                f"module {fqn}: must be of {sorted(f.module.__name__ for f in FORMATS.values())}, "
                f"got {type(module).__name__}"
            )
        weight = module.packed_weight()
        tensors = dict(weight.tensors())
        if isinstance(module.bias, Tensor):
            tensors["bias"] = module.bias
        self.add_tensors({f"{fqn}.{key}": tensor for key, tensor in tensors.items()})
        self._modules[fqn] = {"format": name, **weight.config()}

    def _flush(self) -> None:
        if self._shard is None:
            return
        self._content.update(self._shard.close({"format": "pt", "run_id": _RUN_ID_PLACEHOLDER}))
        self._shards += 1
        self._total_bytes += self._shard.nbytes
        self._shard = None

    @staticmethod
    def _partial_name(shard: int) -> str:
        return f"compressed-{shard + 1:05d}.partial"

    def finish(
        self,
        *,
        config: Mapping[str, Any],
        tokenizer: Any = None,
        generation_config: Any = None,
        recipe: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> Path:
        """Writes everything but the weights and puts the directory under its name.

        Args:
            config: the model's configuration, as `config.to_diff_dict()` gives it.
            tokenizer, generation_config: transformers objects with `save_pretrained`.
            recipe: the resolved recipe (JSON values). report: what the compression reported (JSON values).

        Returns:
            The output directory.
        """
        self._flush()
        modules = dict(sorted(self._modules.items()))
        quantization = {
            "quant_method": _layout.QUANT_METHOD,
            "format_version": _layout.FORMAT_VERSION,
            "modules": modules,
            "recipe": {k: v for k, v in (recipe or {}).items() if isinstance(v, str | int | float | bool)},
        }
        text = _json({**config, "quantization_config": quantization})
        (self.directory / _layout.CONFIG).write_text(text, "utf-8")
        if tokenizer is not None:
            tokenizer.save_pretrained(self.directory)
        if generation_config is not None:
            generation_config.save_pretrained(self.directory)
        if recipe is not None:
            import yaml

            (self.directory / _layout.RECIPE).write_text(yaml.safe_dump(dict(recipe), sort_keys=False), "utf-8")
        if report is not None:
            (self.directory / _layout.REPORT).write_text(_json(_finite(report)), "utf-8")
        self._content.update(text.encode())
        run_id = self._content.hexdigest()[: len(_RUN_ID_PLACEHOLDER)]
        self._name_shards(run_id)
        (self.directory / _layout.README).write_text(readme_text(config, modules, run_id), "utf-8")
        (self.directory / _layout.MANIFEST).write_text(_json(self._manifest(run_id)), "utf-8")
        out = self._staging.publish()
        self._finished = True
        return out

    def _name_shards(self, run_id: str) -> None:
        for shard in range(self._shards):
            partial = self.directory / self._partial_name(shard)
            set_metadata(partial, {"format": "pt", "run_id": run_id})
            os.rename(partial, self.directory / _layout.shard_name(shard, self._shards))
        names = {name: _layout.shard_name(shard, self._shards) for name, shard in sorted(self._shard_of.items())}
        index = {"metadata": {"run_id": run_id, "total_size": self._total_bytes}, "weight_map": names}
        (self.directory / _layout.INDEX).write_text(_json(index), "utf-8")

    def _manifest(self, run_id: str) -> dict[str, Any]:
        files = {}
        for path in sorted(p for p in self.directory.rglob("*") if p.is_file() and not p.name.startswith(".")):
            name = path.relative_to(self.directory).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": _layout.sha256_of(path)}
        return {"format_version": _layout.FORMAT_VERSION, "run_id": run_id, "files": files}


def check_output(out: str | Path, *, overwrite: bool = False) -> None:
    """Raises OutputError where `CheckpointWriter` would refuse `out`: worth asking before the long work."""
    StagingDirectory(out, overwrite=overwrite).check_target()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The value with NaN and infinity, which JSON lacks, as null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
