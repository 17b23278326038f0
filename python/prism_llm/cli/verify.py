"""`prism verify`: every byte of a checkpoint against its manifest and its formats."""

from typing import Annotated

import typer

from .exits import UsageError
from .models import JsonOption, resolve_model
from .output import print_json, quiet_transformers, size, stdout


def verify(
    model: Annotated[str, typer.Argument(help="A checkpoint of prism.")],
    as_json: JsonOption = False,
) -> None:
    """Checks digests, names, shapes and the content of every packed tensor; exit code 4 if anything is wrong."""
    from prism_llm import checkpoint

    source = resolve_model(model)
    if not checkpoint.is_checkpoint(source):
        raise UsageError(f"MODEL: must be a checkpoint of prism, got {source!r}")
    quiet_transformers()
    verified = checkpoint.verify(source)
    checkpoint.load(source)
    total = sum(entry["bytes"] for entry in verified.files.values())
    if as_json:
        print_json({"model": source, "run_id": verified.run_id, "files": len(verified.files), "bytes": total})
    else:
        stdout().print(f"{source}: {len(verified.files)} files, {size(total)}, all as written by run {verified.run_id}")


def register(app: typer.Typer) -> None:
    app.command("verify")(verify)
