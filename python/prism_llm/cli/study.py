"""`prism study`: a model dense, masked and with CSR linears."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .exits import UsageError, usage_errors
from .models import DataDirOption, DatasetOption, JsonOption, ModelArgument, load_any
from .output import print_json, progress, size, stdout


def study(
    model: ModelArgument = None,
    sparsity: Annotated[float, typer.Option(help="Share of the chosen weights to prune, in (0, 1).")] = 0.3,
    targets: Annotated[
        list[str] | None, typer.Option(help='Linears to prune (repeatable; "re:..." too); default all.')
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Linears to leave (repeatable); default lm_head.")] = None,
    csr: Annotated[
        list[str] | None, typer.Option(help="Pruned linears to run as CSR (repeatable); default all.")
    ] = None,
    dataset: DatasetOption = "stdlib",
    data_dir: DataDirOption = None,
    seqlen: Annotated[
        int | None, typer.Option(help="Tokens per window; default min(2048, the model's limit).", show_default=False)
    ] = None,
    max_windows: Annotated[int, typer.Option(help="Windows of the text.")] = 16,
    new_tokens: Annotated[int, typer.Option(help="Tokens to decode for the speed.")] = 32,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="JSON file to write.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Global magnitude pruning: what zeros change in quality, bytes and speed, masked and stored as CSR."""
    from prism_llm import checkpoint
    from prism_llm.data.sources import load_text
    from prism_llm.evaluation import evaluation_text
    from prism_llm.evaluation.study import sparsity_study

    with usage_errors():
        source = load_text(dataset, "test", data_dir)
    subject, tokenizer, name = load_any(model)
    if checkpoint.is_checkpoint(name):
        raise UsageError(f"MODEL: must be a dense model, got the compressed checkpoint {name!r}")
    with usage_errors(), progress("study") as task:
        text = evaluation_text(source, tokenizer, seqlen=seqlen, model=subject, max_windows=max_windows)
        found = sparsity_study(
            subject,
            text,
            sparsity=sparsity,
            targets=tuple(targets or ("Linear",)),
            ignore=tuple(ignore or ("lm_head",)),
            csr=tuple(csr or ("Linear",)),
            new_tokens=new_tokens,
            progress=task,
        )
    facts = {"model": name, **found.to_dict()}
    if output is not None:
        output.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    if as_json:
        print_json(facts)
        return
    stdout().print(_table(facts))
    groups = ", ".join(f"{group} {100 * share:.1f} %" for group, share in facts["groups"].items())
    lowest, highest = min(facts["layers"].values()), max(facts["layers"].values())
    stdout().print(
        f"zeros: {groups}; by linear {100 * lowest:.1f} to {100 * highest:.1f} %\n"
        + "\n".join(facts["protocols"].values()),
        markup=False,
    )


def _table(facts: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("variant", title=f"{facts['model']}: {100 * facts['sparsity']:g} % of the chosen weights pruned")
    for heading in ("linears", "model", "multiplications", "perplexity", "top-1", "tokens/s"):
        table.add_column(heading, justify="right")
    for row in facts["variants"]:
        table.add_row(
            row["name"],
            size(row["linear_bytes"]),
            size(row["model_bytes"]),
            f"{row['multiplications']:,}",
            f"{row['ppl']:.3f}",
            f"{100 * row['top1']:.2f} %",
            f"{row['tokens_per_second']:.1f}",
        )
    return table


def register(app: typer.Typer) -> None:
    app.command("study")(study)
