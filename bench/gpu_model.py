"""`python -m bench.gpu_model`: a random model of Llama-3.1-8B's shape decodes with `generate` on a GPU, batch 1.

The cache is static and the forward pass compiled with CUDA graphs, for dense and packed linears alike. One decoder
layer is packed and copied to all others, so that building takes seconds; each has its own memory, as in a model.
"""

import argparse
import copy
import gc
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import targets
from .bench_model import VARIANTS, Variant, packed_linear, random_linear

SHAPE = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
TINY_SHAPE = SHAPE | {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
                      "vocab_size": 512}  # fmt: skip
PROMPT_TOKENS = 16
FEW_TOKENS = 8
RACING = ("dense", targets.INT4, targets.SPARSE24_INT4, targets.JOINT)


def build(variant: Variant | None, shape: dict[str, Any], layers: int, device: torch.device) -> nn.Module:
    """Random weights in bfloat16; lm_head and embeddings stay dense."""
    from transformers import LlamaConfig

    from prism_llm.models.skeleton import build_skeleton, restore_buffers

    model = build_skeleton(LlamaConfig(num_hidden_layers=layers, **shape), torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    first = model.model.layers[0]
    for name, module in list(first.named_modules()):
        if isinstance(module, nn.Linear):
            linear = random_linear(module, generator).to(device)
            parent, _, leaf = name.rpartition(".")
            made = linear if variant is None else packed_linear(linear, variant, generator).to(device)
            setattr(first.get_submodule(parent), leaf, made)
    _materialize(first, device)
    for index in range(1, layers):
        model.model.layers[index] = copy.deepcopy(first)
        model.model.layers[index].self_attn.layer_idx = index
    _materialize(model, device)
    restore_buffers(model, device)
    model.generation_config.pad_token_id = model.generation_config.eos_token_id = None
    return model.eval()


def _materialize(module: nn.Module, device: torch.device) -> None:
    """Norms of ones and small normal numbers for every parameter that has no memory yet."""
    for owner in module.modules():
        for leaf, parameter in list(owner.named_parameters(recurse=False)):
            if parameter.is_meta:
                fresh = torch.ones(parameter.shape, dtype=parameter.dtype, device=device)
                fresh = fresh.normal_(0, 0.02) if parameter.dim() == 2 else fresh
                setattr(owner, leaf, nn.Parameter(fresh, requires_grad=False))


@torch.inference_mode()
def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per token of decoding, the prefill taken off, and bytes on the device."""
    device = torch.device(options.device)
    shape = TINY_SHAPE if options.tiny else SHAPE
    model = build(VARIANTS[name], shape, options.layers, device)
    held = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    if device.type == "cuda":
        model.forward = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, shape["vocab_size"], (1, PROMPT_TOKENS), generator=generator).to(device)

    def run(count: int) -> float:
        begin = time.perf_counter()
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False,
            cache_implementation="static",
        )  # fmt: skip
        assert out.shape[1] == PROMPT_TOKENS + count  # also waits for the device
        out.cpu()
        return time.perf_counter() - begin

    for count in (FEW_TOKENS, FEW_TOKENS, options.new_tokens):
        run(count)
    seconds = [
        (run(options.new_tokens) - run(FEW_TOKENS)) / (options.new_tokens - FEW_TOKENS) for _ in range(options.runs)
    ]
    return {"variant": name, "seconds_per_token": seconds, "device_bytes": held}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_model", description=__doc__.split("\n\n")[0])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(RACING), help="dense always runs")
    parser.add_argument("--new-tokens", type=int, default=136)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cuda", help="cpu runs without graphs, to try the program out")
    parser.add_argument("--tiny", action="store_true", help="a small shape, to try the program out")
    parser.add_argument("--output", type=Path, help="results folder")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("needs an NVIDIA GPU; `python -m bench.bench_model` measures the CPU kernels")
    if options.new_tokens <= FEW_TOKENS:
        parser.error(f"--new-tokens: must be more than {FEW_TOKENS}, got {options.new_tokens}")
    return options


def facts_of(options: argparse.Namespace) -> dict[str, Any]:
    if options.device == "cuda":
        from .gpu_machine import environment
    else:
        from .machine import environment
    return environment()


def main() -> int:
    options = arguments()
    results = []
    for name in dict.fromkeys(["dense", *options.variants]):
        results.append(measure(name, options))
        gc.collect()
        torch.compiler.reset()
        if options.device == "cuda":
            torch.cuda.empty_cache()
    dense = statistics.median(results[0]["seconds_per_token"])
    for result in results:
        per_token = statistics.median(result["seconds_per_token"])
        asked = targets.GPU_MODEL_SPEED.get(result["variant"])
        result["tokens_per_second"], result["ratio"] = 1 / per_token, dense / per_token
        verdict = "" if asked is None else f"  asked {asked:g}: {'pass' if dense / per_token >= asked else 'MISS'}"
        print(
            f"{result['variant']:<34} {1 / per_token:8.1f} tokens/s  {dense / per_token:5.2f}x"
            f"  {result['device_bytes'] / 1e9:6.2f} GB{verdict}"
        )
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        content = {
            "about": " ".join(__doc__.split()),
            "environment": facts_of(options),
            "model": results,
            "columns": ["variant", "tokens/s", "x dense", "GB"],
            "lines": [
                [r["variant"], f"{r['tokens_per_second']:.1f}", f"{r['ratio']:.2f}", f"{r['device_bytes'] / 1e9:.2f}"]
                for r in results
            ],
        }
        (options.output / "gpu_model.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        print(f"written: {options.output / 'gpu_model.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
