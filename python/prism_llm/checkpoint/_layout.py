"""Names inside a checkpoint directory.

The weights are deliberately not called ``model.safetensors``: transformers without this package then refuses to load,
instead of returning randomly initialized weights.
"""

import hashlib
import json
import re
from pathlib import Path

CONFIG = "config.json"
INDEX = "compressed.safetensors.index.json"
MANIFEST = "MANIFEST.json"
RECIPE = "recipe.yaml"
REPORT = "report.json"
README = "README.md"
GENERATION_CONFIG = "generation_config.json"

QUANT_METHOD = "prism"
FORMAT_VERSION = 1
SHARD_PATTERN = re.compile(r"compressed-\d{5}-of-\d{5}\.safetensors")


def shard_name(index: int, count: int) -> str:
    """Name of shard `index` (from 0) of `count`."""
    return f"compressed-{index + 1:05d}-of-{count:05d}.safetensors"


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_checkpoint(path: str | Path) -> bool:
    """Whether `path` claims to be a checkpoint of this package (valid or not): the question which loader to ask."""
    folder = Path(path)
    if not folder.is_dir():
        return False
    if (folder / INDEX).exists() or (folder / MANIFEST).exists() or any(folder.glob("compressed-*.safetensors")):
        return True
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        return config["quantization_config"]["quant_method"] == QUANT_METHOD
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False  # no readable claim: the transformers loader gives the better message
