"""`prism finetune`: the weights that pruning kept are trained; pruned ones stay zero."""

from pathlib import Path
from typing import Annotated

import typer

from .exits import UsageError, usage_errors
from .models import DataDirOption, JsonOption, require_device
from .output import print_json, progress, quiet_transformers, stdout


def finetune(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A compressed checkpoint: bitmap, 2:4, tiered or CSR.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write.")] = ...,  # type: ignore[assignment]
    epochs: Annotated[float, typer.Option(help="Passes over the text.")] = 1.0,
    max_steps: Annotated[
        int | None, typer.Option(help="Optimizer steps at most; default no limit.", show_default=False)
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Peak of AdamW's linear schedule.")] = 2e-5,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of AdamW.")] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Sequences at a time.")] = 4,
    gradient_accumulation_steps: Annotated[int, typer.Option(help="Batches per optimizer step.")] = 4,
    dataset: Annotated[
        str, typer.Option(help="Text to train on: stdlib (offline), wikitext2, c4, ptb, or a file.")
    ] = "stdlib",
    data_dir: DataDirOption = None,
    seqlen: Annotated[int, typer.Option(help="Tokens per sequence; the model's limit bounds it.")] = 1024,
    eval_steps: Annotated[int, typer.Option(help="Optimizer steps between evaluations.")] = 100,
    patience: Annotated[
        int, typer.Option(help="Stop after so many evaluations without a better loss; 0 never stops early.")
    ] = 3,
    bf16: Annotated[bool, typer.Option("--bf16", help="Products in bfloat16; weights stay float32.")] = False,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1, ...")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of the order of sequences.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint once the new one is complete.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Trains a pruned checkpoint under its masks; the same command again goes on with a run that died."""
    from prism_llm.checkpoint import is_checkpoint, open_checkpoint
    from prism_llm.recovery import Training
    from prism_llm.recovery import finetune as run

    if not is_checkpoint(checkpoint):
        raise UsageError(f"CHECKPOINT: must be a compressed checkpoint, got {str(checkpoint)!r}")
    with usage_errors():
        training = Training(
            epochs=epochs,
            max_steps=max_steps,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_size=batch_size,
            accumulation=gradient_accumulation_steps,
            dataset=dataset,
            seqlen=seqlen,
            eval_steps=eval_steps,
            patience=patience,
            seed=seed,
            autocast=bf16,
        )
    require_device("--device", device)
    quiet_transformers()
    with progress("training") as task, usage_errors():
        saved = run(checkpoint, output, training, data_dir=data_dir, device=device, overwrite=overwrite, progress=task)
    stored = open_checkpoint(saved)
    done = (stored.report or {})["finetune"][-1]
    if as_json:
        print_json({"output": str(output), "checkpoint": str(checkpoint), "run_id": stored.run_id, **done})
        return
    early = " (stopped early)" if done["stopped_early"] else ""
    stdout().print(
        f"{output}: loss {done['loss_before']:.4f} -> {done['loss_after']:.4f} at step {done['best_step']} of "
        f"{done['steps']}{early}; {done['text']}",
        markup=False,
    )


def register(app: typer.Typer) -> None:
    app.command("finetune")(finetune)
