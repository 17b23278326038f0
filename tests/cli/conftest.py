"""A tiny dense model, a text and a checkpoint on disk, and the command run in this process."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "prism_llm"))

from tiny_text import tiny_folder, tiny_text


@pytest.fixture(scope="session")
def dense(tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("cli") / "dense")


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(tiny_text(), "utf-8")
    return path


@pytest.fixture(scope="session")
def prism():
    """Runs `prism` with the given arguments; the result has exit_code, stdout and stderr."""
    from prism_llm.cli.main import app

    def run(*arguments: object):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def compressed(prism, dense, text, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("compressed") / "model"
    result = prism(
        "compress", dense, "-o", out, "--method", "prism", "--bits", 4, "--sparsity", 0.5, "--group-size", 16,
        "--dataset", text, "--num-samples", 4, "--seqlen", 32, "--seed", 3,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return out
