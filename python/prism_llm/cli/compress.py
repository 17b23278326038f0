"""`prism compress`: a model becomes a checkpoint."""

import logging
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from . import three_tier
from .effects import require_effect
from .exits import UsageError, usage_errors
from .low_rank import low_rank_changes
from .models import DataDirOption, JsonOption, ModelArgument, resolve_model
from .output import print_json, progress, quiet_transformers, size, stdout

logger = logging.getLogger("prism_llm.cli")

_NONE = "default: the method's"
_MOST_WARNINGS = 5


def compress(
    model: ModelArgument = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write.")] = ...,  # type: ignore[assignment]
    method: Annotated[
        str | None,
        typer.Option(
            help="Preset: prism, sinq, asinq, wanda, ria, clearcut, sparsegpt, magnitude, ls-prism, three-tier. "
            "Default prism."
        ),
    ] = None,
    bits: Annotated[int | None, typer.Option(help=f"Bits per code; 0 keeps floats; {_NONE}.")] = None,
    sparsity: Annotated[float | None, typer.Option(help=f"Share of weights to prune, in [0, 1); {_NONE}.")] = None,
    pattern: Annotated[str | None, typer.Option(help='"unstructured" or n:m (n kept of m), such as 2:4.')] = None,
    score: Annotated[
        str | None,
        typer.Option(help=f"What ranks weights: magnitude, wanda, ri, ria, clearcut, prism, sparsegpt, ...; {_NONE}."),
    ] = None,
    scope: Annotated[str | None, typer.Option(help=f"Sparsity counts per row, matrix, or global; {_NONE}.")] = None,
    permute: Annotated[
        str | None,
        typer.Option(help="Order of input channels for n:m patterns: none, heuristic, or lsa (needs scipy)."),
    ] = None,
    ratios: Annotated[
        str | None, typer.Option(help="Sparsity of blocks: uniform, or owl (denser where outliers are).")
    ] = None,
    ria_exponent: Annotated[
        float | None, typer.Option(help="Power of the input's norm in ria and clearcut; default 0.5.")
    ] = None,
    use_variant: Annotated[
        bool, typer.Option("--use-variant", help="Wanda's variant: the same share of every row's sum goes.")
    ] = False,
    compensate: Annotated[
        str | None, typer.Option(help=f"Update of kept weights: none, obs_one_shot, obs_sweep, least_squares; {_NONE}.")
    ] = None,
    reconstruct: Annotated[
        bool, typer.Option("--reconstruct", help="The sweep on the mask of any score: --compensate obs_sweep.")
    ] = False,
    scale: Annotated[
        str | None, typer.Option(help=f"Column scale: none, rms, sinq, sinq_2d, prism, asinq; {_NONE}.")
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Fold column scales into the layers before, where that is exact.")
    ] = False,
    codebook: Annotated[str | None, typer.Option(help=f"uniform, nf4 or nf3; {_NONE}.")] = None,
    rounding: Annotated[
        str | None, typer.Option(help=f"rtn, hqq (better zeros) or joint (inside the sweep); {_NONE}.")
    ] = None,
    low_rank: Annotated[
        str | None, typer.Option(help='Factors of some linears: a share (0.3), a rank (64), or "kmif".')
    ] = None,
    target_modules: Annotated[
        str | None, typer.Option(help="Which linears get factors: q,k,v,o,gate,up,down, names, or re:...; default all.")
    ] = None,
    low_rank_of: Annotated[
        str | None,
        typer.Option(help=f"What the factors are of: weight (instead of it), pruned, residual (added to it); {_NONE}."),
    ] = None,
    low_rank_weighting: Annotated[
        str | None, typer.Option(help="Norm in which factors are best: none, or activations (of the outputs).")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Level of --method ls-prism: conservative (0.3) or aggressive (0.5).")
    ] = None,
    group_size: Annotated[
        int | None, typer.Option(help=f"Columns per group scale; 0 is one group per row; {_NONE}.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Calibration text: stdlib (offline, the default), wikitext2, c4, ptb, or a file.")
    ] = None,
    data_dir: DataDirOption = None,
    num_samples: Annotated[int | None, typer.Option(help="Calibration sequences.")] = None,
    seqlen: Annotated[int | None, typer.Option(help="Tokens per calibration sequence.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the choice of calibration sequences.")] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="YAML recipe; the options above override its fields.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint once the new one is complete.")
    ] = False,
    targets: Annotated[list[str] | None, typer.Option(help='Modules to compress (repeatable; "re:..." too).')] = None,
    ignore: Annotated[list[str] | None, typer.Option(help='Modules to leave (repeatable; "re:..." too).')] = None,
    tiers: Annotated[
        str | None, typer.Option(help="Shares of dense, 2:4 and top-k blocks, such as 0.35,0.45,0.2 (three-tier).")
    ] = None,
    topk_per_block: Annotated[int | None, typer.Option(help="Weights that a top-k block keeps (three-tier).")] = None,
    block_size: Annotated[
        int | None, typer.Option(help="Side of a block, a multiple of 16 (three-tier); else columns per sweep step.")
    ] = None,
    schedule: Annotated[
        Path | None, typer.Option(help="CSV of iterations with training in between (three-tier).")
    ] = None,
    iteration: Annotated[int | None, typer.Option(help="Only this iteration of --schedule, without training.")] = None,
    previous: Annotated[
        Path | None, typer.Option(help="With --iteration above 1: the checkpoint of the iteration before.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the training between iterations; default 2e-05.")
    ] = None,
    train_dataset: Annotated[
        str | None, typer.Option(help="Text of the training between iterations; default that of --dataset.")
    ] = None,
    train_device: Annotated[
        str | None, typer.Option(help="Where to train between iterations: cpu (the default), cuda, ...")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compresses a model and saves it; the output appears complete or not at all."""
    changes = {
        "sparsity": sparsity,
        "pattern": pattern,
        "score": score,
        "scope": scope,
        "ratios": ratios,
        "permute": permute,
        "ria_exponent": ria_exponent,
        "compensate": compensate,
        "scale": scale,
        "codebook": codebook,
        "round": rounding,
        "low_rank_of": low_rank_of,
        "low_rank_weighting": low_rank_weighting,
        "dataset": dataset,
        "num_calibration_samples": num_samples,
        "max_seq_length": seqlen,
        "seed": seed,
        "targets": targets,
        "ignore": ignore,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    for name, value in (("bits", bits), ("group_size", group_size)):
        if value is not None:
            changes[name] = value or None
    if schedule is not None and method is None and recipe is None:
        method = three_tier.METHOD
    typed: dict[str, str] = {}
    with usage_errors():
        if use_variant:
            if score not in (None, "wanda"):
                raise UsageError(f"--use-variant: must go with the score wanda, got {score!r}")
            changes["score"], typed["score"] = "wanda_variant", "--use-variant"
        if fold:
            changes["fold"] = True
        if reconstruct:
            if compensate not in (None, "obs_sweep"):
                raise UsageError(f"--reconstruct: must go with --compensate obs_sweep, got {compensate!r}")
            changes["compensate"], typed["compensate"] = "obs_sweep", "--reconstruct"
        changes |= low_rank_changes(low_rank, target_modules, preset, method, sparsity)
        changes |= three_tier.changes(tiers, topk_per_block, block_size, method, recipe)
        resolved = _recipe(recipe, method, changes)
        require_effect(resolved, changes, typed)
        training = {"learning_rate": learning_rate, "train_dataset": train_dataset, "train_device": train_device}
        three_tier.require_schedule(schedule, iteration, previous, training)
        if schedule is not None and tiers is not None:
            raise UsageError(f"--tiers: must not go with --schedule, which has the shares, got {tiers!r}")
        _check_output(output, overwrite)
    source = resolve_model(model)
    if schedule is not None:
        plan = three_tier.Plan(
            schedule,
            iteration,
            previous,
            three_tier.LEARNING_RATE if learning_rate is None else learning_rate,
            train_dataset or resolved.dataset,
            train_device or "cpu",
        )
        plan.check(model, resolved)
        result = three_tier.run(source, output, resolved, plan, data_dir=data_dir, overwrite=overwrite)
    else:
        result = run(source, output, resolved, data_dir=data_dir, overwrite=overwrite)
    if as_json:
        print_json(result)
        return
    console = stdout()
    console.print(
        f"{result['output']}: {result['compressed_linears']} linears, {size(result['compressed_bytes'])}, "
        f"{result['bits_per_weight']:.3f} bits per weight, {result['seconds']:.1f} s",
        markup=False,
    )
    for warning in _warnings(result["report"]):
        console.print(f"  {warning}", markup=False)
    console.print(f"next: prism eval {result['output']} --against {source}", markup=False)


def _warnings(report: Any) -> list[str]:
    """Of the linears: where less was done than asked, and where factors are larger than their matrix."""
    noted = [(x["fqn"], note) for x in (report or {}).get("linears", []) for note in x["notes"]]
    found = [f"{fqn}: {note}" for fqn, note in noted if note.startswith("fallback") or " are larger than " in note]
    rest = [f"and {len(found) - _MOST_WARNINGS} more such notes in the report"] if len(found) > _MOST_WARNINGS else []
    return found[:_MOST_WARNINGS] + rest


def _recipe(path: Path | None, method: str | None, changes: dict[str, Any]) -> Any:
    from prism_llm.pipeline import Recipe

    if path is None:
        return Recipe.from_preset(method or "prism", **changes)
    if method is not None:
        raise UsageError(f"--method: must not go with --recipe, whose file names its method, got {method!r}")
    loaded = Recipe.load(path)
    return loaded.replace(**changes) if changes else loaded


def _check_output(output: Path, overwrite: bool) -> None:
    from prism_llm.checkpoint import check_output

    check_output(output, overwrite=overwrite)


def run(source: str, output: Path, recipe: Any, *, data_dir: Path | None, overwrite: bool) -> dict[str, Any]:
    """Compresses `source` into `output`; returns the facts that `--json` prints."""
    from prism_llm.checkpoint import compress_to_checkpoint, is_checkpoint

    if is_checkpoint(source):
        raise UsageError(f"MODEL: must be a dense model, got the compressed checkpoint {source!r}")
    start = time.perf_counter()
    quiet_transformers()
    with progress("compressing") as task, usage_errors():
        saved = compress_to_checkpoint(source, output, recipe, data_dir=data_dir, overwrite=overwrite, progress=task)
    return facts(source, output, saved, recipe, time.perf_counter() - start)


def facts(source: str, output: Path, saved: Path, recipe: Any, seconds: float) -> dict[str, Any]:
    """What `--json` prints about a checkpoint that was written."""
    from prism_llm.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(saved)
    return {
        "output": str(output),
        "model": source,
        "run_id": checkpoint.run_id,
        "compressed_linears": len(checkpoint.modules),
        "compressed_bytes": checkpoint.compressed_nbytes,
        "compressed_weights": checkpoint.compressed_weights,
        "bits_per_weight": checkpoint.bits_per_weight,
        "seconds": seconds,
        "recipe": recipe.to_dict(),
        "report": checkpoint.report,
    }


def register(app: typer.Typer) -> None:
    app.command("compress")(compress)
