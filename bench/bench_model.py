"""A whole model: a random Llama of 1.1 B parameters decodes greedily with `transformers`, dense and in each format.

Every variant is built layer by layer and measured in a process of its own, so that its resident memory is its own; the
round is repeated, so that a slow minute of the machine does not fall on one variant.
"""

import argparse
import copy
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import targets
from .machine import device_folder, environment
from .problems import GROUP_SIZE, random_mask

SHAPE = {
    "hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4,
    "vocab_size": 32000, "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
PROMPT_TOKENS = 16
#: Of the short call of `generate`, whose time is taken off the long one: the prefill is not decoding.
FEW_TOKENS = 2
_ROWS = 256  # of random numbers in a weight; more rows repeat them


@dataclass(frozen=True)
class Variant:
    """How the linears are stored: a class of `prism_kernels.nn`, the mask and the options of `from_linear`."""

    module: str
    mask: str | None = None
    activation_bits: int | None = None
    quantized: bool = True
    lm_head: bool = False


VARIANTS: dict[str, Variant | None] = {
    "dense": None,
    targets.INT4: Variant("DualShiftLinear"),
    targets.INT4_A8: Variant("DualShiftLinear", activation_bits=8),
    f"{targets.INT4}, lm_head too": Variant("DualShiftLinear", lm_head=True),
    targets.JOINT: Variant("BitmapDualShiftLinear", "half"),
    targets.JOINT_A8: Variant("BitmapDualShiftLinear", "half", activation_bits=8),
    targets.BITMAP: Variant("BitmapLinear", "half", quantized=False),
    targets.SPARSE24: Variant("Sparse24Linear", "2:4", quantized=False),
    targets.SPARSE24_INT4: Variant("Sparse24DualShiftLinear", "2:4"),
}


def build(variant: Variant | None, layers: int) -> tuple[nn.Module, int, int]:
    """(model, bytes of its linears, their bytes in bfloat16), lm_head counted only where it is packed."""
    from transformers import LlamaConfig

    from prism_llm.models.skeleton import build_skeleton, restore_buffers

    model = build_skeleton(LlamaConfig(num_hidden_layers=layers, **SHAPE), torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    stored = dense = 0
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            linear = random_linear(module, generator)
            head = name == "lm_head"
            if not head or (variant is not None and variant.lm_head):
                dense += linear.weight.nbytes
                if variant is not None:
                    linear = packed_linear(linear, variant, generator)
                stored += linear.weight.nbytes if variant is None else linear.nbytes
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, linear)
        else:
            for leaf, parameter in list(module.named_parameters(recurse=False)):
                fresh = torch.ones_like(parameter, device="cpu")
                if parameter.dim() == 2:
                    fresh.normal_(0, 0.02, generator=generator)
                setattr(module, leaf, nn.Parameter(fresh, requires_grad=False))
    restore_buffers(model, "cpu")
    model.generation_config.pad_token_id = model.generation_config.eos_token_id = None
    return model, stored, dense


def random_linear(like: nn.Linear, generator: torch.Generator) -> nn.Linear:
    n, k = like.out_features, like.in_features
    slab = torch.randn(_ROWS, k, generator=generator).mul_(0.02).bfloat16()
    linear = nn.Linear(k, n, bias=False, device="meta")
    linear.weight = nn.Parameter(slab.repeat(n // _ROWS, 1), requires_grad=False)
    return linear


def packed_linear(linear: nn.Linear, variant: Variant, generator: torch.Generator) -> nn.Module:
    from prism_kernels import nn as packed_nn
    from prism_kernels import ops

    n, k = linear.weight.shape
    masks: dict[str | None, Any] = {
        None: lambda: None,
        "half": lambda: random_mask(n, k, generator),
        "2:4": lambda: ops.nm_mask(torch.rand(n, k, generator=generator), 2, 4),
    }
    options: dict[str, Any] = {"bits": 4, "group_size": GROUP_SIZE} if variant.quantized else {}
    if variant.activation_bits:
        options["activation_bits"] = variant.activation_bits
    mask = masks[variant.mask]()
    mask = None if mask is None else mask.to(linear.weight.device)
    return getattr(packed_nn, variant.module).from_linear(linear, mask, **options)


def resident_bytes() -> int:
    """Of this process, after what packing freed has gone back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@torch.inference_mode()
def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Decoding by `generate`: seconds per token, those of them inside the linears, and resident memory."""
    import transformers  # noqa: F401  (its code is not the model's memory)

    before = resident_bytes()
    model, stored, dense = build(VARIANTS[name], options.layers)
    ids = torch.randint(0, SHAPE["vocab_size"], (1, PROMPT_TOKENS), generator=torch.Generator().manual_seed(1))
    if options.compiled:
        model.forward = torch.compile(model.forward)

    def run(count: int) -> float:
        begin = time.perf_counter()
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False
        )
        taken = time.perf_counter() - begin
        assert out.shape[1] == PROMPT_TOKENS + count
        return taken

    run(FEW_TOKENS)
    seconds, whole = [], []
    for _ in range(options.runs):
        whole.append(run(options.new_tokens))
        seconds.append((whole[-1] - run(FEW_TOKENS)) / (options.new_tokens - FEW_TOKENS))
    resident = resident_bytes() - before
    inside = 0.0
    if not options.compiled:
        long, short = (_seconds_in_linears(model, lambda n=n: run(n)) for n in (options.new_tokens, FEW_TOKENS))
        inside = (long - short) / (options.new_tokens - FEW_TOKENS)
    if options.profile:
        _profile(lambda: run(4))
    return {
        "variant": name, "seconds_per_token": seconds, "seconds_of_generate": whole, "linear_bytes": stored,
        "dense_linear_bytes": dense, "resident_bytes": resident, "seconds_in_linears": inside,
        "overhead_us": call_overhead_us(model),
    }  # fmt: skip


def _seconds_in_linears(model: nn.Module, run: Any) -> float:
    """Seconds that one run spends inside the linears, lm_head included."""
    total = [0.0]

    def timed(forward: Any) -> Any:
        def call(x: torch.Tensor) -> torch.Tensor:
            begin = time.perf_counter()
            y = forward(x)
            total[0] += time.perf_counter() - begin
            return y

        return call

    linears = [m for m in model.modules() if isinstance(m, nn.Linear) or hasattr(m, "packed_weight")]
    for linear in linears:
        linear.forward = timed(linear.forward)
    run()
    for linear in linears:
        del linear.forward
    return total[0]


def call_overhead_us(model: nn.Module) -> float:
    """Microseconds of one call of the model's kind of linear on a weight so small that its kernel takes none."""
    kind = next(m for m in model.model.layers[0].modules() if isinstance(m, nn.Linear) or hasattr(m, "packed_weight"))
    small = nn.Linear(64, 16, bias=False, dtype=torch.bfloat16)
    small.weight.requires_grad_(False)
    if not isinstance(kind, nn.Linear):
        options = {key: kind.config[key] for key in ("bits", "group_size") if key in kind.config}
        bits = kind.activation_bits
        mask = torch.arange(64).expand(16, 64) % 4 < 2
        small = type(kind).from_linear(small, mask, **options, **({"activation_bits": bits} if bits else {}))
    x = torch.ones(1, 1, 64, dtype=torch.bfloat16)
    rounds = []
    for _ in range(30):
        begin = time.perf_counter()
        for _ in range(200):
            small(x)
        rounds.append((time.perf_counter() - begin) / 200)
    return 1e6 * statistics.median(rounds)


def _profile(run: Any) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25), file=sys.stderr)


def measure_apart(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a fresh process. Raises RuntimeError with its last words where it fails."""
    command = [sys.executable, "-m", "bench.bench_model", "--child", name, "--new-tokens", str(options.new_tokens),
               "--layers", str(options.layers), "--runs", str(options.runs)]  # fmt: skip
    command += ["--compiled"] * options.compiled + ["--profile"] * options.profile
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: its process ended with code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


COLUMNS = ("variant", "tokens/s", "x dense", "asked", "with prefill", "linears MB", "of dense", "asked", "resident MB",
           "linears ms/token", "rest ms/token", "overhead us/call")  # fmt: skip


def line_of(result: dict[str, Any], dense: dict[str, Any]) -> list[str]:
    name = result["variant"]
    per_token, dense_per_token = (statistics.median(r["seconds_per_token"]) for r in (result, dense))
    speed = dense_per_token / per_token
    share = result["linear_bytes"] / result["dense_linear_bytes"]
    inside = result["seconds_in_linears"]
    whole = statistics.median(dense["seconds_of_generate"]) / statistics.median(result["seconds_of_generate"])

    def asked(wanted: float | None, passed: bool) -> str:
        return "" if wanted is None else f"{wanted:g} {'pass' if passed else 'MISS'}"

    fast, small = targets.MODEL_SPEED.get(name), targets.MODEL_BYTES.get(name)
    return [
        name, f"{1 / per_token:.2f}", f"{speed:.2f}", asked(fast, speed >= (fast or 0)), f"{whole:.2f}",
        f"{result['linear_bytes'] / 1e6:.0f}", f"{share:.3f}", asked(small, share <= (small or 1)),
        f"{result['resident_bytes'] / 1e6:.0f}", f"{1e3 * inside:.1f}" if inside else "",
        f"{1e3 * (per_token - inside):.1f}" if inside else "", f"{result['overhead_us']:.1f}",
    ]  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.bench_model", description=__doc__.split("\n\n")[0])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="dense always runs")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--layers", type=int, default=targets.MODEL_LAYERS)
    parser.add_argument("--runs", type=int, default=2, help="timed calls of generate per process")
    parser.add_argument("--rounds", type=int, default=2, help="processes per variant")
    parser.add_argument("--compiled", action="store_true", help="torch.compile the forward pass, dense too")
    parser.add_argument("--profile", action="store_true", help="print where four tokens spend their time")
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / device_folder())
    return parser.parse_args()


def main() -> int:
    from rich.console import Console
    from rich.table import Table

    from .page import write_page

    options = arguments()
    if options.child:
        print(json.dumps(measure(options.child, options)))
        return 0
    facts = environment()
    kind = "compiled" if options.compiled else "eager"
    setting = f"{options.layers} layers, {options.new_tokens} new tokens, batch 1, {kind}, {facts['threads']} threads"
    path = options.output / ("model.compiled.json" if options.compiled else "model.json")
    results: dict[str, dict[str, Any]] = {}
    for index in range(options.rounds):
        for name in dict.fromkeys(["dense", *options.variants]):
            print(f"round {index + 1} of {options.rounds}: {name}", file=sys.stderr)
            found = measure_apart(name, options)
            kept = results.setdefault(name, copy.deepcopy(found))
            for key in ("seconds_per_token", "seconds_of_generate") if index else ():
                kept[key] = kept[key] + found[key]
            kept["seconds_in_linears"] = min(kept["seconds_in_linears"], found["seconds_in_linears"])
            write(path, setting, options.layers, facts, results)
    console = Console(width=200)
    table = Table(*COLUMNS, title=setting)
    for result in results.values():
        table.add_row(*line_of(result, results["dense"]))
    console.print(table)
    console.print(f"written: {path}, {write_page(options.output)}")
    return 0


def write(path: Path, setting: str, layers: int, facts: dict[str, Any], results: dict[str, dict[str, Any]]) -> None:
    """What was measured so far: an interrupted run keeps it."""
    content = {
        "about": f"{' '.join((__doc__ or '').split())} {setting}, load average {facts['load_average']}.",
        "environment": facts,
        "layers": layers,
        "columns": COLUMNS,
        "lines": [line_of(result, results["dense"]) for result in results.values()],
        "results": list(results.values()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
