"""The MODEL argument: a dense model, a compressed checkpoint, or nothing for the bundled model."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from .exits import UsageError, usage_errors
from .output import quiet_transformers

logger = logging.getLogger("prism_llm.cli")

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A checkpoint of prism, a model folder, or a hub name. Without it: the bundled model.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
DatasetOption = Annotated[
    str, typer.Option("--dataset", help="stdlib (offline), wikitext2, c4, ptb, or the path of a text file.")
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder with a local copy of the data set.", show_default=False)
]


def resolve_model(model: str | None) -> str:
    """The folder or hub name that MODEL means. Raises UsageError where it looks like a path that does not exist."""
    if model is None:
        from prism_llm.assets import bundled_model_path

        with usage_errors():
            return str(bundled_model_path())
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    looks_like_a_path = path.exists() or path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1
    if looks_like_a_path:
        kind = "a file" if path.exists() else "nothing there"
        raise UsageError(f"MODEL: must be a model folder or a hub name such as org/name, got {model!r} ({kind})")
    return model


def load_any(model: str | None) -> tuple[Any, Any, str]:
    """(model, tokenizer, source) of a dense model or a checkpoint."""
    from prism_llm import checkpoint
    from prism_llm.models import load_model

    source = resolve_model(model)
    quiet_transformers()
    logger.info("loading %s", source)
    if checkpoint.is_checkpoint(source):
        loaded = checkpoint.load(source)
        return loaded, checkpoint.load_tokenizer(source), source
    with usage_errors():
        loaded, tokenizer = load_model(source)
    return loaded, tokenizer, source


def require_device(option: str, name: str) -> None:
    """Raises UsageError where `name` is no device of this machine."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch asserts that it was built with CUDA
        raise UsageError(f"{option}: must be a device of this machine, such as cpu, got {name!r}") from error
