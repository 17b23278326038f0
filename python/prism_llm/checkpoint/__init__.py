"""The checkpoint directory: what is stored, how it is written atomically, and how an untrusted one is read.

`save(model, out)` writes, `load(path)` reads, `open_checkpoint(path)` judges a directory without reading its weights.
`compress_to_checkpoint` goes from a dense checkpoint to a compressed one block by block, over `CheckpointWriter`.
"""

from ._errors import CheckpointError, OutputError
from ._layout import is_checkpoint
from .loader import load, load_tokenizer
from .reader import Checkpoint, open_checkpoint, verify
from .saver import save
from .streaming import compress_to_checkpoint
from .writer import CheckpointWriter, check_output

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointWriter",
    "OutputError",
    "check_output",
    "compress_to_checkpoint",
    "is_checkpoint",
    "load",
    "load_tokenizer",
    "open_checkpoint",
    "save",
    "verify",
]
