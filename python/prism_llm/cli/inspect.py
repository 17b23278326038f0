"""`prism inspect`: what a checkpoint holds, from its headers alone."""

from collections import Counter
from typing import Annotated, Any

import typer

from .exits import UsageError
from .models import JsonOption, ModelArgument, resolve_model
from .output import print_json, size, stdout


def inspect(
    model: ModelArgument = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also show every compressed layer.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Format, bytes, bits per weight and recipe of a checkpoint; no weight is read."""
    from prism_llm import checkpoint

    source = resolve_model(model)
    found = _checkpoint_facts(source, layers) if checkpoint.is_checkpoint(source) else _dense_facts(source)
    if as_json:
        print_json(found)
        return
    console = stdout()
    for key, value in found.items():
        if key not in ("layers", "recipe") and value is not None:
            shown = f"{value:,} ({size(value)})" if key.endswith("bytes") else value
            console.print(f"{key.replace('_', ' '):>20}: {shown}", markup=False)
    if found["recipe"]:
        import yaml

        console.print("\nrecipe:\n" + yaml.safe_dump(found["recipe"], sort_keys=False), markup=False)
    if found.get("layers"):
        console.print(_layer_table(found["layers"]))


def _checkpoint_facts(source: str, layers: bool) -> dict[str, Any]:
    from prism_llm.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(source)
    formats = Counter(module["format"] for module in checkpoint.modules.values())
    total = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    facts: dict[str, Any] = {
        "model": source,
        "kind": "prism checkpoint",
        "architecture": (checkpoint.config.get("architectures") or [checkpoint.config.get("model_type")])[0],
        "run_id": checkpoint.run_id,
        "formats": dict(formats),
        "compressed_linears": len(checkpoint.modules),
        "compressed_weights": checkpoint.compressed_weights,
        "compressed_bytes": checkpoint.compressed_nbytes,
        "bits_per_weight": round(checkpoint.bits_per_weight, 4),
        "other_bytes": total - checkpoint.compressed_nbytes,
        "total_bytes": total,
        "recipe": checkpoint.recipe,
    }
    if layers:
        facts["layers"] = [layer_facts(checkpoint, fqn) for fqn in checkpoint.modules]
    return facts


def layer_facts(checkpoint: Any, fqn: str) -> dict[str, Any]:
    """Name, format, shape, bytes and bits per weight of one compressed linear."""
    module = checkpoint.modules[fqn]
    n, k = module["shape"]
    nbytes = checkpoint.module_nbytes(fqn)
    settings = {key: value for key, value in module.items() if key not in ("format", "shape")}
    return {
        "name": fqn,
        "format": module["format"],
        "shape": [n, k],
        "settings": settings,
        "bytes": nbytes,
        "bits_per_weight": 8 * nbytes / (n * k),
    }


def _dense_facts(source: str) -> dict[str, Any]:
    """A dense folder: sizes from the headers of its files."""
    from pathlib import Path

    from safetensors import safe_open

    files = sorted(Path(source).glob("*.safetensors"))
    if not files:
        raise UsageError(f"MODEL: must be a folder with safetensors files, got {source!r}")
    weights = 0
    for path in files:
        with safe_open(path, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (not a dict)
                count = 1
                for extent in shard.get_slice(name).get_shape():
                    count *= extent
                weights += count
    total = sum(path.stat().st_size for path in files)
    return {
        "model": source,
        "kind": "dense model",
        "weights": weights,
        "total_bytes": total,
        "bits_per_weight": round(8 * total / max(weights, 1), 4),
        "recipe": None,
    }


def _layer_table(layers: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table("layer", "format", "shape", "settings")
    table.add_column("bytes", justify="right")
    table.add_column("bits/weight", justify="right")
    for layer in layers:
        settings = ", ".join(f"{key} {value}" for key, value in layer["settings"].items())
        shape = " x ".join(str(extent) for extent in layer["shape"])
        bits = f"{layer['bits_per_weight']:.3f}"
        table.add_row(layer["name"], layer["format"], shape, settings, f"{layer['bytes']:,}", bits)
    return table


def register(app: typer.Typer) -> None:
    app.command("inspect")(inspect)
