"""The model that ships with the package, so that everything runs offline."""

from __future__ import annotations

from pathlib import Path

BUNDLED_MODEL_NAME = "tiny-llama"


def bundled_model_path() -> Path:
    """Return the folder of the bundled trained model (transformers layout, bfloat16).

    Raises:
        FileNotFoundError: the installation lacks the model's files.
    """
    path = Path(__file__).parent / BUNDLED_MODEL_NAME
    if not (path / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"bundled_model_path: {path} must hold model.safetensors; the installation is "
            "incomplete (python -m prism_llm.assets.train builds the model anew)"
        )
    return path
