"""The checkpoint directory: what is stored, how it is written atomically, and how it is read from an untrusted disk.

`save(model, out)` writes, `load(path)` reads, `open_checkpoint(path)` judges a directory without reading its weights, and
`CheckpointWriter` streams a model that never is in memory as a whole.
"""

from ._errors import CheckpointError, OutputError
from ._layout import is_checkpoint
from .loader import load, load_tokenizer
from .reader import Checkpoint, open_checkpoint, verify
from .saver import save
from .writer import CheckpointWriter, check_output

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointWriter",
    "OutputError",
    "check_output",
    "is_checkpoint",
    "load",
    "load_tokenizer",
    "open_checkpoint",
    "save",
    "verify",
]
