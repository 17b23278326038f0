"""Access to transformers models: loading them, and running their decoder blocks one by one."""

from .adapter import BlockCall, CapturedInputs, DecoderAdapter, evaluation_mode, find_blocks
from .linears import ExposedLinears, expose_linears
from .loading import load_model, load_network, load_tokenizer
from .skeleton import load_skeleton

__all__ = [
    "BlockCall",
    "CapturedInputs",
    "DecoderAdapter",
    "ExposedLinears",
    "evaluation_mode",
    "expose_linears",
    "find_blocks",
    "load_model",
    "load_network",
    "load_skeleton",
    "load_tokenizer",
]
