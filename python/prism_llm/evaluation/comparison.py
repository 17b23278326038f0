"""Compares methods on one model: compress, save, load from disk, measure through the compressed linears."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .block_speed import block_speed
from .decode_speed import DecodeSpeed, decode_speed
from .quality import Perplexity, top1_tokens
from .windows import EvaluationText, evaluation_text, position_limit

logger = logging.getLogger(__name__)

Results = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Attributes:
        name: also the name of its checkpoint folder. title: for people.
        preset, fields: the recipe is `Recipe.from_preset(preset, **fields)`; None is the dense model.
        contender: name of the matching row of `block_speed`.
    """

    name: str
    title: str
    preset: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    contender: str | None = None


_JOINT = "bitmap_dual_shift 50 % + 4-bit g64"
METHODS = (
    Method("dense", "dense", contender="dense bf16"),
    Method("sinq-4bit", "sinq 4-bit", "sinq", {"bits": 4, "group_size": 64}, "dual_shift 4-bit g64"),
    Method("wanda-50", "wanda 50 %", "wanda", {"sparsity": 0.5}, "bitmap 50 % bf16"),
    Method(
        "wanda-50-4bit",
        "wanda 50 %, then 4-bit",
        "wanda",
        {"sparsity": 0.5, "bits": 4, "group_size": 64, "scale": "none"},
        _JOINT,
    ),
    Method(
        "sparsegpt-50-4bit",
        "sparsegpt 50 % + 4-bit joint",
        "sparsegpt",
        {"sparsity": 0.5, "bits": 4, "group_size": 64},
        _JOINT,
    ),
    Method("prism", "prism 50 % + 4-bit", "prism", {"sparsity": 0.5, "bits": 4, "group_size": 64}, _JOINT),
)


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    dataset: str = "stdlib"
    data_dir: Path | None = None
    max_windows: int = 64
    num_samples: int = 64
    seqlen: int = 512
    prompt_tokens: int = 32
    new_tokens: int = 96
    decode_runs: int = 3
    decode_budget_s: float = 6.0
    block_m: tuple[int, ...] = (1, 16)
    block_rounds: int = 15
    block_budget_s: float = 45.0
    seed: int = 0

    @classmethod
    def fast(cls) -> Settings:
        """A shortened run, for a first look and for tests."""
        return cls(max_windows=16, num_samples=16, new_tokens=32, decode_runs=1, block_m=(1,), block_rounds=5)


class Comparison:
    """Runs the methods one after the other; `results` is complete after each, so that a crash loses one method.

    Args:
        output: folder; checkpoints go to `output`/checkpoints/<name>, existing ones are replaced.
        source: model folder or hub name; None is the bundled model.
        on_change: called with the results after each method.
    """

    def __init__(
        self,
        output: str | Path,
        source: str | None = None,
        *,
        methods: tuple[Method, ...] = METHODS,
        settings: Settings | None = None,
        environment: Mapping[str, Any] | None = None,
        on_change: Callable[[Results], None] = lambda results: None,
    ) -> None:
        self._output, self._source = Path(output), source
        self._methods, self._settings = methods, settings or Settings()
        self._on_change = on_change
        self._start = time.perf_counter()
        self.results: Results = {
            "started": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "seconds": 0.0,
            "fast": self._settings == Settings.fast(),
            "model": {},
            "environment": dict(environment or {}),
            "settings": {key: str(v) if isinstance(v, Path) else v for key, v in asdict(self._settings).items()},
            "protocols": {},
            "notes": _notes(),
            "methods": [],
            "has_layer_errors": False,
            "block_speed": None,
            "block_speed_error": "the run ended before it",
        }

    def run(self) -> Results:
        """Runs everything; a method that fails is recorded as failed, and the others go on."""
        from prism_llm.models import load_model

        dense, self._tokenizer = load_model(self._source)
        self._prepare(dense)
        del dense
        for method in self._methods:
            logger.info("%s", method.title)
            started = time.perf_counter()
            row: Results = {"name": method.name, "title": method.title, "recipe": None, "layers": []}
            try:
                row |= self._dense_row(method) if method.preset is None else self._compressed_row(method)
                row["status"] = "done"
            except Exception as error:  # whatever it was, the other methods still have something to show
                logger.exception("%s failed", method.title)
                row |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
            row["total_seconds"] = time.perf_counter() - started
            if row["status"] == "done":
                logger.info(
                    "  perplexity %.3f, %.3f bits per weight, %.0f s",
                    row["perplexity"]["ppl"],
                    row["bits_per_weight"],
                    row["total_seconds"],
                )
            self.results["methods"].append(row)
            self._changed()
            gc.collect()
        self._measure_block()
        self._changed()
        return self.results

    def _changed(self) -> None:
        self.results["seconds"] = time.perf_counter() - self._start
        self._on_change(self.results)

    def _prepare(self, dense: nn.Module) -> None:
        from prism_llm.data.sources import calibration_batches, load_text

        settings, data_dir = self._settings, self._settings.data_dir
        test = load_text(settings.dataset, "test", data_dir)
        train = load_text(settings.dataset, "train", data_dir)
        seqlen = min(settings.seqlen, position_limit(dense) or settings.seqlen)
        self._text: EvaluationText = evaluation_text(
            test, self._tokenizer, seqlen=seqlen, model=dense, max_windows=settings.max_windows
        )
        self._calibration: Tensor = calibration_batches(
            train, self._tokenizer, settings.num_samples, seqlen, settings.seed
        )
        self._prompt = self._text.windows[0, : settings.prompt_tokens]
        self._dense_top1: Tensor | None = None
        self._dense_ppl: float | None = None
        source = self._source or "bundled model"
        self.results["model"] = {
            "name": Path(source).name if Path(source).is_dir() else source,
            "parameters": sum(parameter.numel() for parameter in dense.parameters()),
            "compressible_weights": None,
        }
        self.results["protocols"] = {
            "perplexity": self._text.protocol,
            "calibration": (
                f"{settings.num_samples} sequences of {seqlen} tokens, {train.name} {train.split} split, "
                f"seed {settings.seed}"
            ),
        }

    def _dense_row(self, method: Method) -> Results:
        from prism_llm.models import find_blocks, load_model

        started = time.perf_counter()
        model, _ = load_model(self._source)
        seconds = {"compress": None, "load": time.perf_counter() - started}
        _, blocks = find_blocks(model)
        linears = [module for module in blocks.modules() if isinstance(module, nn.Linear)]
        weights = sum(linear.weight.numel() for linear in linears)
        nbytes = sum(linear.weight.numel() * linear.weight.element_size() for linear in linears)
        self.results["model"]["compressible_weights"] = weights
        measured = self._measure(model, seconds)
        return measured | {"disk_bytes": nbytes, "bits_per_weight": 8 * nbytes / weights, "checkpoint": None}

    def _compressed_row(self, method: Method) -> Results:
        from prism_llm.checkpoint import compress_to_checkpoint, load, open_checkpoint
        from prism_llm.pipeline import Recipe

        recipe = Recipe.from_preset(
            method.preset or "custom",
            **method.fields,
            dataset=self._settings.dataset,
            num_calibration_samples=self._settings.num_samples,
            max_seq_length=self._calibration.shape[1],
            seed=self._settings.seed,
        )
        clock = _Clock()
        folder = compress_to_checkpoint(
            self._source,
            self._output / "checkpoints" / method.name,
            recipe,
            calibration=self._calibration if recipe.needs_calibration else None,
            tokenizer=self._tokenizer,
            overwrite=True,
        )
        clock.lap("compress")
        loaded = load(folder)
        clock.lap("load")
        checkpoint = open_checkpoint(folder)
        measured = self._measure(loaded, clock.seconds)
        layers = _layers(checkpoint)
        self.results["has_layer_errors"] |= any(layer["relative_error"] is not None for layer in layers)
        return measured | {
            "recipe": recipe.to_dict(),
            "disk_bytes": checkpoint.compressed_nbytes,
            "bits_per_weight": checkpoint.bits_per_weight,
            "checkpoint": str(folder),
            "layers": layers,
        }

    def _measure(self, model: nn.Module, seconds: Results) -> Results:
        clock = _Clock()
        perplexity, chosen = top1_tokens(model, self._text)
        clock.lap("evaluate")
        if self._dense_top1 is None:
            self._dense_top1, self._dense_ppl = chosen, perplexity.ppl
        speed = self._decode(model)
        clock.lap("decode")
        self.results["protocols"].setdefault("decode", speed.protocol)
        return _quality(perplexity, chosen, self._dense_top1, self._dense_ppl) | {
            "decode": speed.to_dict(),
            "block_ratio": None,
            "seconds": seconds | clock.seconds,
        }

    def _decode(self, model: nn.Module) -> DecodeSpeed:
        settings = self._settings
        return decode_speed(
            model,
            self._prompt,
            new_tokens=settings.new_tokens,
            runs=settings.decode_runs,
            budget_s=settings.decode_budget_s,
        )

    def _measure_block(self) -> None:
        logger.info("speed of one block of Llama-3.1-8B")
        settings = self._settings
        try:
            speed = block_speed(
                m=settings.block_m, rounds=settings.block_rounds, budget_s=settings.block_budget_s, seed=settings.seed
            )
        except (RuntimeError, MemoryError) as error:  # too little memory for 0.9 GB of weights, above all
            logger.exception("the block was not measured")
            self.results["block_speed_error"] = f"{type(error).__name__}: {error}"
            return
        self.results["block_speed"], self.results["block_speed_error"] = speed.to_dict(), None
        contenders = {method.name: method.contender for method in self._methods}
        for row in self.results["methods"]:
            contender = contenders[row["name"]]
            if row["status"] == "done" and contender is not None:
                row["block_ratio"] = speed.ratio(contender, settings.block_m[0])


def _notes() -> list[str]:
    """What a reader of the numbers has to know about the machine."""
    if not hasattr(os, "getloadavg"):
        return []
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if load <= 0.5 * cores:
        return []
    return [f"the machine was busy when the run began (load {load:.1f} on {cores} cores): speeds are not reliable"]


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def _quality(perplexity: Perplexity, chosen: Tensor, dense: Tensor, dense_ppl: float | None) -> Results:
    return {
        "perplexity": perplexity.to_dict(),
        "perplexity_ratio": perplexity.ppl / dense_ppl if dense_ppl else None,
        "top1_agreement": float((chosen == dense).double().mean()),
    }


def _layers(checkpoint: Any) -> list[Results]:
    """One row per compressed linear: what the headers say, and the error that compression reported."""
    reported = {linear["fqn"]: linear for linear in (checkpoint.report or {}).get("linears", [])}
    rows = []
    for fqn, module in checkpoint.modules.items():
        n, k = module["shape"]
        nbytes = checkpoint.module_nbytes(fqn)
        rows.append(
            {
                "name": fqn,
                "format": module["format"],
                "shape": [n, k],
                "bytes": nbytes,
                "bits_per_weight": 8 * nbytes / (n * k),
                "sparsity": reported.get(fqn, {}).get("sparsity"),
                "relative_error": reported.get(fqn, {}).get("error"),
                "error_measure": reported.get(fqn, {}).get("error_measure"),
            }
        )
    return rows
