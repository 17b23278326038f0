"""All methods on one model: `python -m bench.methods` writes docs/methods.json and the tables of docs/methods.md.

Every preset is compressed in every regime that it is for, saved, loaded from disk, and measured on a held-out text and
on others given by path. A row is written as soon as it is measured; the same command again measures only what is
missing. Presets that are added later appear by themselves; `VARIANTS` are combinations of stages that no preset names.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


@dataclass(frozen=True)
class Regime:
    """What all methods of a table have to reach.

    Attributes:
        name, title: for the key and for people.
        fields: what it changes in a recipe.
        takes: whether a preset, as it is by default, is for this.
    """

    name: str
    title: str
    fields: dict[str, Any]
    takes: Callable[[Any], bool]


def _prunes(recipe: Any) -> bool:
    return recipe.prunes and recipe.tiers is None


def _only_quantizes(recipe: Any) -> bool:
    return (recipe.bits is not None and not recipe.prunes) or (recipe.round == "joint" and recipe.tiers is None)


REGIMES = (
    Regime("unstructured-50", "50 % unstructured", {"sparsity": 0.5, "bits": None}, _prunes),
    Regime("2:4", "2:4", {"pattern": "2:4", "bits": None}, _prunes),
    Regime("4:8", "4:8", {"pattern": "4:8", "bits": None}, _prunes),
    Regime("4-bit", "4-bit", {"sparsity": 0.0, "bits": 4}, _only_quantizes),
    Regime("50+4-bit", "50 % + 4-bit", {"sparsity": 0.5, "bits": 4}, _prunes),
    Regime("as-is", "Presets for none of the above, as they are", {}, lambda recipe: False),
    Regime("three-tier", "35 % dense, 45 % 2:4, 20 % top-10", {}, lambda recipe: recipe.tiers is not None),
)


@dataclass(frozen=True)
class Contender:
    """One row: `Recipe(method=preset, **fields)`, or None for the dense model. `steps` is the training of three-tier:
    0 none, else optimizer steps in all; `progressive` spreads them over the schedule."""

    name: str
    regime: str
    preset: str | None
    fields: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    progressive: bool = False

    @property
    def key(self) -> str:
        return f"{self.regime} | {self.name}"


#: (regime, name, preset, fields): what is compared beside the presets. Unknown fields or values leave a row out.
VARIANTS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("unstructured-50", "magnitude, one threshold for the model", "magnitude", {"scope": "global"}),
    ("unstructured-50", "wanda, OWL ratios", "wanda", {"ratios": "owl"}),
    ("unstructured-50", "wanda, reconstructed (sweep on its mask)", "wanda", {"compensate": "obs_sweep"}),
    ("unstructured-50", "ria, reconstructed (sweep on its mask)", "ria", {"compensate": "obs_sweep"}),
    ("unstructured-50", "wanda, exact least squares on its mask", "wanda", {"compensate": "least_squares"}),
    ("unstructured-50", "sparsegpt, exact least squares on its mask", "sparsegpt", {"compensate": "least_squares"}),
    ("2:4", "wanda, reconstructed (sweep on its mask)", "wanda", {"compensate": "obs_sweep"}),
    ("2:4", "wanda, exact least squares on its mask", "wanda", {"compensate": "least_squares"}),
    ("2:4", "wanda, permuted (linear sum assignment)", "wanda", {"permute": "lsa"}),
    ("2:4", "ria, permuted (heuristic)", "ria", {"permute": "heuristic"}),
    ("2:4", "ria, permuted (linear sum assignment)", "ria", {"permute": "lsa"}),
    ("4:8", "ria, permuted (linear sum assignment)", "ria", {"permute": "lsa"}),
    ("unstructured-50", "wanda, residual of rank 5 % added", "wanda", {"low_rank": 0.05, "low_rank_of": "residual"}),
    ("50+4-bit", "prism, residual of rank 5 % added", "prism", {"low_rank": 0.05, "low_rank_of": "residual"}),
    ("4-bit", "rounding alone", "custom", {"scale": "none"}),
    ("4-bit", "closed-form column scale", "custom", {"scale": "rms"}),
    ("4-bit", "sinq, nf4", "sinq", {"codebook": "nf4"}),
    ("4-bit", "sinq, square tiles", "sinq", {"scale": "sinq_2d"}),
    ("4-bit", "sinq, half-quadratic zeros", "sinq", {"round": "hqq"}),
    ("4-bit", "sinq, activation-aware (A-SINQ)", "sinq", {"scale": "asinq"}),
    ("4-bit", "sparsegpt (GPTQ), groups of 64", "sparsegpt", {"group_size": 64}),
    ("50+4-bit", "wanda, joint (sweep on its mask)", "wanda", {"compensate": "obs_sweep", "round": "joint"}),
    ("50+4-bit", "wanda, exact least squares, joint", "wanda", {"compensate": "least_squares", "round": "joint"}),
    ("50+4-bit", "sparsegpt, joint, groups of 64", "sparsegpt", {"group_size": 64}),
    ("50+4-bit", "sparsegpt, then rounded, groups of 64", "sparsegpt", {"group_size": 64, "round": "rtn"}),
    ("50+4-bit", "prism, scale over survivors: closed form", "prism", {"scale": "rms"}),
    ("50+4-bit", "prism, scale with zeros inside (sinq)", "prism", {"scale": "sinq_with_zeros"}),
)

#: Shares of the published five iterations.
SCHEDULE = "iteration,dense,mid_2_4,topk,epochs\n" + "".join(
    f"{i},{dense},{middle},{last},1\n"
    for i, (dense, middle, last) in enumerate(
        [("0.90", "0.10", "0.00"), ("0.80", "0.10", "0.10"), ("0.65", "0.20", "0.15"),
         ("0.50", "0.30", "0.20"), ("0.35", "0.45", "0.20")], 1,
    )
)  # fmt: skip
_ITERATIONS = 5


def contenders(steps: int) -> Iterator[Contender]:
    """Every row that the installed presets allow, the dense model first."""
    from prism_llm.pipeline import PRESETS, Recipe

    yield Contender("dense", "dense", None)
    placed = {p for p in PRESETS for r in REGIMES if r.takes(Recipe.from_preset(p)) and _is_valid(p, r.fields)}
    for regime in REGIMES:
        for preset in PRESETS:
            takes = preset not in placed if regime.name == "as-is" else regime.takes(Recipe.from_preset(preset))
            if takes and _is_valid(preset, regime.fields):
                yield Contender(preset, regime.name, preset, regime.fields)
        for where, name, preset, fields in VARIANTS:
            merged = regime.fields | fields
            if where == regime.name and _is_valid(preset, merged):
                yield Contender(name, regime.name, preset, merged)
    if steps:
        yield Contender(f"three-tier, then {steps} steps", "three-tier", "three-tier", {}, steps)
        name = f"three-tier, {_ITERATIONS} iterations of {steps // _ITERATIONS} steps"
        yield Contender(name, "three-tier", "three-tier", {}, steps, progressive=True)


def _is_valid(preset: str, fields: dict[str, Any]) -> bool:
    from prism_llm.pipeline import Recipe

    try:
        Recipe(method=preset, **fields)
    except ValueError:
        return False
    return True


class Study:
    """Measures contenders; `rows` by key is what the JSON file holds."""

    def __init__(self, options: argparse.Namespace) -> None:
        from prism_llm.data.sources import calibration_batches, load_text
        from prism_llm.evaluation import evaluation_text
        from prism_llm.models import load_model

        self.options = options
        dense, self.tokenizer = load_model(options.model)
        seqlen = min(options.seqlen, getattr(dense.config, "max_position_embeddings", options.seqlen))
        cut = {"seqlen": seqlen, "model": dense, "max_windows": options.max_windows}
        self.texts = {"held-out": evaluation_text(load_text(options.dataset, "test"), self.tokenizer, **cut)}
        for path in options.text:
            self.texts[Path(path).name] = evaluation_text(load_text(str(path), "test"), self.tokenizer, **cut)
        train = load_text(options.dataset, "train")
        self.calibration = calibration_batches(train, self.tokenizer, options.num_samples, seqlen, 0)
        self.calibrated = {"dataset": options.dataset, "num_calibration_samples": options.num_samples}
        self.calibrated["max_seq_length"] = seqlen
        self.dense_bytes = 0

    def settings(self) -> dict[str, Any]:
        """What every number of a file shares; another one begins a new file."""
        return {
            "model": Path(self.options.model).name if self.options.model else "the bundled model",
            "calibration": f"{self.options.num_samples} x {self.calibration.shape[1]} tokens of {self._shown_dataset}",
            "texts": {name: self._shown(text.protocol) for name, text in self.texts.items()},
        }

    @property
    def _shown_dataset(self) -> str:
        return self._shown(self.options.dataset)

    def _shown(self, text: str) -> str:
        """Without the folders of this machine."""
        for path in (*self.options.text, self.options.dataset):
            text = text.replace(str(path), Path(path).name)
        return text

    def measure(self, contender: Contender, folder: Path) -> dict[str, Any]:
        from prism_llm.checkpoint import load, open_checkpoint
        from prism_llm.models import find_blocks, load_model

        started = time.perf_counter()
        if contender.preset is None:
            model, _ = load_model(self.options.model)
            from torch import nn

            linears = [m.weight for m in find_blocks(model)[1].modules() if isinstance(m, nn.Linear)]
            nbytes = sum(weight.numel() * weight.element_size() for weight in linears)
            row: dict[str, Any] = {"bytes": nbytes, "bits_per_weight": 8 * nbytes / sum(w.numel() for w in linears)}
            row |= {"seconds": None, "recipe": None, "fallbacks": 0}
        else:
            saved = self._compress(contender, folder)
            seconds = time.perf_counter() - started
            checkpoint, model = open_checkpoint(saved), load(saved)
            report = checkpoint.report or {}
            row = {"bytes": checkpoint.compressed_nbytes, "bits_per_weight": checkpoint.bits_per_weight}
            row |= {"seconds": seconds, "recipe": checkpoint.recipe}
            row["fallbacks"] = sum("fallback" in " ".join(x["notes"]) for x in report.get("linears", []))
        return row | {"perplexity": self._perplexities(model)}

    def _perplexities(self, model: Any) -> dict[str, float]:
        from prism_llm.evaluation import perplexity

        return {name: perplexity(model, text).ppl for name, text in self.texts.items()}

    def _compress(self, contender: Contender, folder: Path) -> Path:
        from prism_llm.checkpoint import compress_to_checkpoint
        from prism_llm.pipeline import Recipe
        from prism_llm.recovery import finetune

        recipe = Recipe(method=contender.preset, **contender.fields, **self.calibrated)
        if contender.progressive:
            return self._run_schedule(recipe, contender.steps // _ITERATIONS, folder)
        calibration = self.calibration if recipe.needs_calibration else None
        saved = compress_to_checkpoint(
            self.options.model, folder / "pruned", recipe, calibration=calibration, tokenizer=self.tokenizer
        )
        if not contender.steps:
            return saved
        return finetune(saved, folder / "trained", self._training(contender.steps))

    def _run_schedule(self, recipe: Any, steps: int, folder: Path) -> Path:
        from prism_llm.pipeline.schedule import Schedule
        from prism_llm.recovery import run_schedule

        (folder / "schedule.csv").write_text(SCHEDULE, "utf-8")
        schedule = Schedule.load(folder / "schedule.csv")
        return run_schedule(self.options.model, folder / "out", schedule, recipe, self._training(steps))

    def _training(self, steps: int) -> Any:
        from prism_llm.recovery import Training

        options, seqlen = self.options, self.calibration.shape[1]
        return Training(
            max_steps=steps, learning_rate=options.learning_rate, dataset=options.dataset, seqlen=seqlen, patience=0
        )


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Measures what is missing in the file of results, row by row; returns them, and the keys of rows that failed."""
    from .machine import competing_cores, cpu_name

    study = Study(options)
    path, failed = Path(options.out), list[str]()
    results: dict[str, Any] = {"settings": study.settings(), "rows": {}}
    if path.is_file():
        held = json.loads(path.read_text("utf-8"))
        if held["settings"] != results["settings"]:
            sys.exit(f"methods: --out must be of the same model and texts, or not exist, got {path} of others")
        results = held
    for contender in contenders(options.steps):
        wanted = not options.only or any(word in contender.key for word in options.only)
        if contender.key in results["rows"] or not wanted:
            continue
        print(contender.key, end=" ", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="methods-"))
        try:
            row = {"regime": contender.regime, "name": contender.name, **study.measure(contender, folder)}
        except Exception as error:  # the other methods still have something to show; the exit code tells
            print(f"FAILED: {type(error).__name__}: {error}", flush=True)
            failed.append(contender.key)
            continue
        finally:
            shutil.rmtree(folder)
        row |= {"cpu": cpu_name(), "competing_cores": competing_cores()}
        results["rows"][contender.key] = row
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        partial.replace(path)
        print(", ".join(f"{name} {value:.3f}" for name, value in row["perplexity"].items()), flush=True)
    return results, failed


def tables(results: dict[str, Any]) -> str:
    """The results in Markdown, a table per regime, the best perplexity on the first text first."""
    texts = list(results["settings"]["texts"])
    lines = [f"Model: {results['settings']['model']}. Calibration: {results['settings']['calibration']}.", ""]
    lines += [f"- {name}: {protocol}" for name, protocol in results["settings"]["texts"].items()]
    dense = [row for row in results["rows"].values() if row["regime"] == "dense"]
    for name, title in (("dense", "Dense"), *((regime.name, regime.title) for regime in REGIMES)):
        rows = [row for row in results["rows"].values() if row["regime"] == name]
        if not rows:
            continue
        rows = rows if name == "dense" else sorted(rows, key=lambda row: row["perplexity"][texts[0]])
        lines += ["", f"### {title}", ""]
        lines.append(
            f"| method | {' | '.join(f'perplexity, {text}' for text in texts)} | bytes | bits/weight | seconds |"
        )
        lines.append("|---|" + "---:|" * (len(texts) + 3))
        for row in rows:
            values = " | ".join(f"{row['perplexity'][text]:.3f}" for text in texts)
            seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
            note = f" ({row['fallbacks']} linears fell back)" if row["fallbacks"] else ""
            lines.append(
                f"| {row['name']}{note} | {values} | {row['bytes']:,} | {row['bits_per_weight']:.3f} | {seconds} |"
            )
    if dense:
        lines += ["", f"Machine: {dense[0]['cpu']}; seconds are of compression alone."]
    busy = [row["competing_cores"] for row in results["rows"].values() if row["competing_cores"] > 0.3]
    if busy:
        lines.append(
            f"Other work kept up to {max(busy):.1f} cores busy meanwhile: the seconds are no measure of speed."
        )
    return "\n".join(lines)


def write_page(results: dict[str, Any], page: Path) -> None:
    """Replaces what stands between the marks of the page."""
    text = page.read_text("utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"methods: {page} must hold the marks {BEGIN} and {END} once")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{tables(results)}\n{END}{after}", "utf-8")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.methods", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a model folder or hub name; default the bundled model")
    parser.add_argument("--dataset", default="stdlib", help="calibration (train split) and held-out text (test split)")
    parser.add_argument("--text", action="append", default=[], help="path of another text to measure on (repeatable)")
    parser.add_argument("--num-samples", type=int, default=64, help="calibration sequences")
    parser.add_argument("--seqlen", type=int, default=512, help="tokens per sequence and window")
    parser.add_argument("--max-windows", type=int, default=128, help="windows of each text")
    parser.add_argument(
        "--steps", type=int, default=100, help="optimizer steps of three-tier's training; 0 leaves it out"
    )
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="of that training")
    parser.add_argument("--only", action="append", default=[], help="rows whose key holds this (repeatable)")
    parser.add_argument("--out", default=str(ROOT / "docs" / "methods.json"), help="file of results, extended")
    parser.add_argument("--page", default=str(ROOT / "docs" / "methods.md"), help="page whose tables are replaced")
    parser.add_argument("--list", action="store_true", help="print the rows and measure nothing")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.list:
        print("\n".join(contender.key for contender in contenders(options.steps)))
        return
    results, failed = run(options)
    if options.page and Path(options.page).is_file():
        write_page(results, Path(options.page))
    if failed:
        sys.exit(f"methods: {len(failed)} rows failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
