"""`prism eval`: perplexity, and agreement with a dense model."""

from typing import Annotated

import typer

from .exits import usage_errors
from .models import DataDirOption, DatasetOption, JsonOption, ModelArgument, load_any
from .output import logger, print_json, progress, stdout


def evaluate(
    model: ModelArgument = None,
    dataset: DatasetOption = "stdlib",
    data_dir: DataDirOption = None,
    seqlen: Annotated[
        int | None, typer.Option(help="Tokens per window; default min(2048, the model's limit).", show_default=False)
    ] = None,
    max_windows: Annotated[
        int | None, typer.Option(help="Evaluate only the first windows; default all.", show_default=False)
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Model to compare the choices of next tokens with.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Perplexity on the test split (whole text, non-overlapping windows), and agreement with another model."""
    from prism_llm.data.sources import load_text
    from prism_llm.evaluation import agreement, evaluation_text, perplexity

    with usage_errors():
        source = load_text(dataset, "test", data_dir)
    subject, tokenizer, name = load_any(model)
    with usage_errors():
        text = evaluation_text(source, tokenizer, seqlen=seqlen, model=subject, max_windows=max_windows)
    logger.info("%s", source.description)
    with progress("perplexity") as task:
        measured = perplexity(subject, text, progress=task)
    result = {"model": name, "perplexity": measured.to_dict(), "agreement": None}
    lines = [str(measured)]
    if against is not None:
        other, _, other_name = load_any(against)
        with progress("agreement") as task:
            compared = agreement(subject, other, text, kl=True, progress=task)
        result["agreement"] = {"against": other_name, **compared.to_dict()}
        lines.append(f"{compared} against {other_name}")
    if as_json:
        print_json(result)
    else:
        for line in lines:
            stdout().print(line, markup=False)


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate)
