"""Paths of the tests of prism_llm, and a checkpoint to read and to spoil."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    from checkpoints import RECIPE, make

    from prism_llm.checkpoint import save

    out = tmp_path_factory.mktemp("original") / "model"
    return save(make(), out, recipe=RECIPE, report={"seconds": 1.0, "error": float("nan")})


@pytest.fixture
def stored(original, tmp_path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(original, tmp_path / "model"))
