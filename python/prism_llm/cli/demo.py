"""`prism demo`: the methods side by side on the bundled model, offline, with a report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .exits import FAILURE, UsageError
from .models import JsonOption
from .output import print_json, quiet_transformers, size, stdout

_NONE = "\u2013"


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the report and the checkpoints.")] = Path(
        "demo-output"
    ),
    fast: Annotated[bool, typer.Option("--fast", help="Fewer windows, samples and runs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compresses the bundled model five ways, loads each result from disk, measures it, and writes report.html."""
    from prism_llm.evaluation.comparison import Comparison, Settings
    from prism_llm.report import write_report

    from .env import facts
    from .models import resolve_model

    if output.exists() and not output.is_dir():
        raise UsageError(f"--output: must be a folder, got the file {str(output)!r}")
    quiet_transformers()
    comparison = Comparison(
        output,
        resolve_model(None),
        settings=Settings.fast() if fast else Settings(),
        environment=facts(),
        on_change=lambda results: _keep(results, output),
    )
    results = comparison.run()
    path = write_report(results, output)
    if as_json:
        print_json(results | {"report": str(path)})
    else:
        console = stdout()
        console.print(summary_table(results))
        if results["block_speed"]:
            console.print(block_table(results["block_speed"]))
            console.print(results["block_speed"]["protocol"] + ".", style="dim", markup=False)
        for note in results["notes"]:
            console.print(f"note: {note}", style="bold", markup=False)
        console.print(f"perplexity: {results['protocols']['perplexity']}", style="dim", markup=False)
        console.print(f"{results['seconds']:.0f} s, report: {path}", markup=False)
    if results["block_speed"] is None or any(method["status"] != "done" for method in results["methods"]):
        raise typer.Exit(FAILURE)


def _keep(results: dict[str, Any], output: Path) -> None:
    from prism_llm.report import write_report

    write_report(results, output)


def summary_table(results: dict[str, Any]) -> Any:
    """The main table of the report, for a terminal."""
    from rich.table import Table

    table = Table("method", title=f"{results['model']['name']}: measured after saving and loading again")
    headings = ("linears on disk", "bits/weight", "perplexity", "same token", "tokens/s", "8B block", "compress")
    for heading in headings:
        table.add_column(heading, justify="right")
    for method in results["methods"]:
        if method["status"] != "done":
            table.add_row(method["title"], "failed")
            continue
        ratio, took = method["block_ratio"], method["seconds"]["compress"]
        table.add_row(
            method["title"],
            size(method["disk_bytes"]),
            f"{method['bits_per_weight']:.3f}",
            f"{method['perplexity']['ppl']:.3f}",
            f"{100 * method['top1_agreement']:.1f} %",
            f"{method['decode']['tokens_per_second']:.1f}",
            _NONE if ratio is None else f"{ratio:.2f}x",
            _NONE if took is None else f"{took:.1f} s",
        )
    return table


def block_table(block: dict[str, Any]) -> Any:
    """Speed of the formats on one block of Llama-3.1-8B."""
    from rich.table import Table

    table = Table("weights", title="One block of Llama-3.1-8B against dense bfloat16")
    for heading in ("tokens", "ms", "dense / own", "MB", "bits/weight"):
        table.add_column(heading, justify="right")
    for row in block["rows"]:
        table.add_row(
            row["name"],
            str(row["m"]),
            f"{row['ms']:.2f}",
            f"{row['ratio']:.2f}x",
            f"{row['nbytes'] / 1e6:.0f}",
            f"{row['bits_per_weight']:.3f}",
        )
    return table


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)
