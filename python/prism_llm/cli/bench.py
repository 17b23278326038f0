"""`prism bench`: how fast each storage format would run a model's linears on this machine."""

from typing import Annotated, Any

import typer

from .exits import UsageError, usage_errors
from .models import JsonOption, ModelArgument, resolve_model
from .output import print_json, progress, quiet_transformers, size, stdout


def bench(
    model: ModelArgument = None,
    tokens: Annotated[str, typer.Option("--tokens", help="Numbers of tokens, with commas.")] = "1,4,16",
    formats: Annotated[
        str | None,
        typer.Option("--formats", help="Some of the formats, with commas; all without it. a8: 8-bit activations."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Timed calls of each format, shape and number.")] = 15,
    as_json: JsonOption = False,
) -> None:
    """Times the linears of a model at its own shapes, dense and in each format; reads its configuration only."""
    from prism_llm.evaluation import FORMATS, linear_shapes, model_speed
    from prism_llm.models import load_skeleton

    from .env import facts

    numbers = _numbers(tokens)
    chosen = list(FORMATS) if formats is None else [name.strip() for name in formats.split(",")]
    for name in chosen:
        if name not in FORMATS:
            raise UsageError(f"--formats: must be some of {', '.join(FORMATS)}, got {name!r}")
    if rounds < 1:
        raise UsageError(f"--rounds: must be at least 1, got {rounds}")
    source = resolve_model(model)
    quiet_transformers()
    with usage_errors():
        shapes = linear_shapes(load_skeleton(source))
    with progress("timing linears") as report:
        speed = model_speed(shapes, formats=chosen, m=numbers, rounds=rounds, on_progress=report)
    if as_json:
        print_json({"model": source, **speed.to_dict(), "environment": facts()})
        return
    console = stdout()
    for m in numbers:
        console.print(_table(speed, m, [shape.names for shape in shapes]))
    console.print(f"{source}: {speed.protocol}.", style="dim", markup=False)


def _numbers(tokens: str) -> list[int]:
    try:
        numbers = [int(part) for part in tokens.split(",")]
    except ValueError:
        raise UsageError(f"--tokens: must be whole numbers with commas between them, got {tokens!r}") from None
    if min(numbers) < 1:
        raise UsageError(f"--tokens: must be at least 1, got {min(numbers)}")
    return list(dict.fromkeys(numbers))


def _table(speed: Any, m: int, names: list[tuple[str, ...]]) -> Any:
    """One line per shape, and the sum over a forward pass; columns are formats."""
    from rich.table import Table

    from prism_llm.evaluation.model_speed import DENSE

    rows = [row for row in speed.rows if row.m == m]
    sums = [row for row in speed.sums if row.m == m]
    columns = list(dict.fromkeys(row.format for row in rows))
    table = Table("linears", "shape", title=f"{m} token{'s' if m > 1 else ''}: ms, and times as fast as dense")
    table.add_column("count", justify="right")
    for column in columns:
        table.add_column(column, justify="right")
    for index in range(0, len(rows), len(columns)):
        line = rows[index : index + len(columns)]
        cells = [f"{row.ms:.3f}" + ("" if row.format == DENSE else f"  {row.ratio:.2f}x") for row in line]
        table.add_row(", ".join(names[index // len(columns)]), f"{line[0].n}x{line[0].k}", str(line[0].count), *cells)
    table.add_section()
    cells = [f"{row.ms:.2f}" + ("" if row.format == DENSE else f"  {row.ratio:.2f}x") for row in sums]
    table.add_row("all linears, one pass", "", "", *cells, style="bold")
    table.add_row("bytes", "", "", *(size(row.nbytes) for row in sums))
    return table


def register(app: typer.Typer) -> None:
    app.command("bench")(bench)
