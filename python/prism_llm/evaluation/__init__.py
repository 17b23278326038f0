"""Measurements whose protocol is part of the result: quality of a model, and speed of a model and of its layers."""

from .block_speed import BlockSpeed, ContenderSpeed, block_speed
from .decode_speed import DecodeSpeed, decode_speed, greedy_tokens
from .model_speed import FORMATS, LinearShape, ModelSpeed, linear_shapes, model_speed
from .quality import Agreement, Perplexity, agreement, perplexity, top1_tokens
from .windows import EvaluationText, evaluation_text

__all__ = [
    "FORMATS",
    "Agreement",
    "BlockSpeed",
    "ContenderSpeed",
    "DecodeSpeed",
    "EvaluationText",
    "LinearShape",
    "ModelSpeed",
    "Perplexity",
    "agreement",
    "block_speed",
    "decode_speed",
    "evaluation_text",
    "greedy_tokens",
    "linear_shapes",
    "model_speed",
    "perplexity",
    "top1_tokens",
]
