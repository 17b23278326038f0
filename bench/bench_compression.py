"""Compressing a random Llama of 1.1 B parameters: seconds per block, the share of kernels, and peak memory.

`python -m bench.bench_compression` compresses the same checkpoint with every preset, each in a process of its own, so
that its peak of resident memory is its own. Memory is compared with two blocks and the activations (the hidden states
of all calibration tokens before and after a block); the peak counts everything above the start, also what lies outside
the blocks and the libraries that are loaded meanwhile. Files do not count: hidden states, and X^T X that waits for its
linear, are in temporary ones. Where X^T X is needed, the table has the largest of a block, whole in float32 (what is
collected is its triangle, and those of the block's other inputs), and the sum of it, one block and the hidden states.
Time in the project's ops ("kernels") and in dense products of torch is taken by a
dispatch mode; the rest is Python, copies and files. Rows are kept, and the same command again measures only what is
missing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .bench_model import SHAPE, build
from .machine import competing_cores, device_folder, environment

_TINY = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
    "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "_scaled_dot_product", "cholesky", "linalg_")

COLUMNS = (
    "preset", "seconds per block", "kernels", "dense products", "peak above start, MB", "two blocks + activations, MB",
    "ratio", "outside blocks, MB", "largest X^T X, MB", "block + X^T X + hidden states, MB", "competing cores",
)  # fmt: skip


class OpClock(TorchDispatchMode):
    """Seconds in ops of the project ("kernels") and in dense products of torch ("products")."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        kind = "kernels" if name.startswith("prism::") else "products" if _is_product(name) else None
        if kind is None:
            return func(*args, **(kwargs or {}))
        begin = time.perf_counter()
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.seconds[kind] += time.perf_counter() - begin


def _is_product(name: str) -> bool:
    return name.removeprefix("aten::").startswith(_PRODUCTS)


def memory(field: str) -> int:
    """VmRSS or VmHWM (the peak) of this process in bytes."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def make_checkpoint(folder: Path, layers: int, tiny: bool) -> None:
    """Writes the random model, as any dense checkpoint."""
    if tiny:
        from transformers import AutoModelForCausalLM, LlamaConfig

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: Any = AutoModelForCausalLM.from_config(
                LlamaConfig(num_hidden_layers=layers, **_TINY), dtype=torch.bfloat16
            )
    else:
        model, _, _ = build(None, layers)
    model.save_pretrained(folder, max_shard_size="500MB")


def measure(folder: Path, preset: str, samples: int, seqlen: int) -> dict[str, Any]:
    """Compresses the checkpoint in this process and returns what it took."""
    from transformers import AutoConfig

    from prism_llm.checkpoint import compress_to_checkpoint, open_checkpoint
    from prism_llm.models import load_skeleton
    from prism_llm.pipeline import Recipe

    config, recipe = AutoConfig.from_pretrained(folder), Recipe.from_preset(preset)
    ids = torch.randint(config.vocab_size, (samples, seqlen), generator=torch.Generator().manual_seed(0))
    skeleton: Any = load_skeleton(folder)
    layers = skeleton.model.layers
    block = sum(parameter.numel() for parameter in layers[0].parameters()) * 2
    outside = sum(parameter.numel() for parameter in skeleton.parameters()) * 2 - len(layers) * block
    activations = 2 * ids.numel() * config.hidden_size * 2 if recipe.needs_calibration else 0
    widest = max(m.in_features for m in layers[0].modules() if isinstance(m, torch.nn.Linear))
    products = 4 * widest**2 if recipe.needs_gram else 0
    begun, laps, clock = memory("VmRSS"), [time.perf_counter()], OpClock()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, clock:
        saved = compress_to_checkpoint(
            folder,
            Path(scratch) / "out",
            recipe,
            calibration=ids if recipe.needs_calibration else None,
            tokenizer=_NoTokenizer(),
            progress=lambda done, total, name: laps.append(time.perf_counter()),
        )
        peak = memory("VmHWM")
        bits = open_checkpoint(saved).bits_per_weight
    seconds = laps[-1] - laps[0]
    blocks = [after - before for before, after in pairwise(laps)]
    return {
        "preset": preset,
        "blocks": len(blocks),
        "seconds_per_block": statistics.median(blocks),
        "kernel_share": clock.seconds["kernels"] / seconds,
        "product_share": clock.seconds["products"] / seconds,
        "peak_bytes": peak - begun,
        "two_blocks_and_activations_bytes": 2 * block + activations,
        "outside_bytes": outside,
        "products_bytes": products,
        "least_bytes": block + products + activations // 2 if products else 0,
        "bits_per_weight": bits,
        "competing_cores": competing_cores(),
    }


class _NoTokenizer:
    """A random model has none."""

    def save_pretrained(self, folder: Path) -> None:
        """Nothing to write."""


def lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The table, a row per preset."""
    return [
        [
            row["preset"],
            f"{row['seconds_per_block']:.2f}",
            f"{100 * row['kernel_share']:.0f} %",
            f"{100 * row['product_share']:.0f} %",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['two_blocks_and_activations_bytes'] / 1e6:.0f}",
            f"{row['peak_bytes'] / row['two_blocks_and_activations_bytes']:.2f}",
            f"{row['outside_bytes'] / 1e6:.0f}",
            *(f"{row[name] / 1e6:.0f}" if row["products_bytes"] else "" for name in ("products_bytes", "least_bytes")),
            f"{row['competing_cores']:.1f}",
        ]
        for row in rows
    ]


def _child(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", __spec__.name, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"bench_compression: the process of {arguments} must end well, got exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.bench_compression", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument(
        "--layers", type=int, default=22, help="blocks of the model; fewer give the same figures sooner"
    )
    parser.add_argument("--num-samples", type=int, default=16, help="calibration sequences")
    parser.add_argument("--seqlen", type=int, default=512, help="tokens per sequence")
    parser.add_argument("--presets", help="comma-separated; default all")
    parser.add_argument("--folder", help="where the random checkpoint (2.2 GB) and outputs go; default a temporary one")
    parser.add_argument("--out", help="JSON file; default compression.json beside the other results of this device")
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand weights, to try the command")
    parser.add_argument("--child", choices=("make", "measure"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.child == "make":
        make_checkpoint(Path(options.folder), options.layers, options.tiny)
        print("{}")
        return
    if options.child == "measure":
        print(json.dumps(measure(Path(options.folder), options.presets, options.num_samples, options.seqlen)))
        return
    out = Path(options.out or Path(__file__).parent / "results" / device_folder() / "compression.json")
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        _run(options, Path(scratch) / "model", out)


def _run(options: argparse.Namespace, folder: Path, out: Path) -> None:
    from prism_llm.pipeline import PRESETS

    shape = [
        "--layers",
        str(options.layers),
        "--num-samples",
        str(options.num_samples),
        "--seqlen",
        str(options.seqlen),
    ]
    shape += ["--tiny"] if options.tiny else []
    about = (
        f"A random Llama ({options.layers} blocks of {'a tiny model' if options.tiny else SHAPE['hidden_size']}), "
        f"calibrated on {options.num_samples} x {options.seqlen} random tokens, compressed block by block to disk"
    )
    held = json.loads(out.read_text("utf-8")) if out.is_file() else {}
    kept = {row["preset"]: row for row in held.get("presets", [])} if held.get("about") == about else {}
    for preset in (options.presets or ",".join(PRESETS)).split(","):
        if preset in kept:
            continue
        if not folder.exists():
            _child(["--child", "make", "--folder", str(folder), *shape])
        kept[preset] = _child(["--child", "measure", "--presets", preset, "--folder", str(folder), *shape])
        rows = list(kept.values())
        result = {"about": about, "columns": COLUMNS, "lines": lines(rows), "presets": rows}
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(".partial")
        partial.write_text(json.dumps(result | {"environment": environment()}, indent=1) + "\n", "utf-8")
        os.replace(partial, out)
        print(" | ".join(f"{head} {cell}" for head, cell in zip(COLUMNS, lines(rows)[-1], strict=True)), flush=True)


if __name__ == "__main__":
    main()
