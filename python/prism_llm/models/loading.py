"""Loading of dense models and tokenizers, with errors that say what was looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def load_model(name_or_path: str | Path | None = None, dtype: torch.dtype | str = "auto") -> tuple[Any, Any]:
    """A dense causal language model in evaluation mode, and its tokenizer.

    Args:
        name_or_path: a folder in the transformers layout, a repository of the Hugging Face hub, or None for the model
            that ships with the package.
        dtype: a torch dtype, or "auto" for that of the checkpoint.

    Raises:
        FileNotFoundError: no such folder, and no such repository could be downloaded.
    """
    source = resolve_source(name_or_path)
    return load_network(source, dtype), load_tokenizer(source)


def load_network(name_or_path: str | Path | None = None, dtype: torch.dtype | str = "auto") -> Any:
    """The model alone; arguments and errors as `load_model`."""
    from transformers import AutoModelForCausalLM

    source = resolve_source(name_or_path)
    try:
        return AutoModelForCausalLM.from_pretrained(source, dtype=dtype).eval()
    except (OSError, ValueError) as error:
        # A folder without a configuration raises either, by what it holds.
        raise not_found("load_model", source, error) from error


def load_tokenizer(name_or_path: str | Path | None = None) -> Any:
    """The tokenizer of a model; arguments and errors as `load_model`."""
    from transformers import AutoTokenizer

    source = resolve_source(name_or_path)
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        # A folder without tokenizer files raises either, by model type.
        raise not_found("load_tokenizer", source, error) from error


def resolve_source(name_or_path: str | Path | None) -> str:
    """The folder or hub name to load from; None means the bundled model."""
    if name_or_path is not None:
        return str(name_or_path)
    from ..assets import bundled_model_path

    return str(bundled_model_path())


def not_found(function: str, source: str, error: Exception) -> FileNotFoundError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(source).is_dir():
        return FileNotFoundError(f"{function}: {source} must hold a complete model folder, got: {reason}")
    return FileNotFoundError(
        f"{function}: name_or_path must be a model folder or a reachable repository of the hub, got {source!r}: no "
        f"such folder, and the download from the hub failed or is switched off (offline): {reason}"
    )
