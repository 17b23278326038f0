"""Access to transformers models: loading them, and running their decoder blocks one by one."""

from .adapter import BlockCall, CapturedInputs, DecoderAdapter, evaluation_mode, find_blocks
from .loading import load_model, load_network, load_tokenizer
from .skeleton import load_skeleton

__all__ = [
    "BlockCall",
    "CapturedInputs",
    "DecoderAdapter",
    "evaluation_mode",
    "find_blocks",
    "load_model",
    "load_network",
    "load_skeleton",
    "load_tokenizer",
]
