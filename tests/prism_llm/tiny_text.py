"""A text, a tokenizer trained on it, and a folder with a tiny dense model, for tests that need words."""

from pathlib import Path

import torch
from tiny_models import tiny_config

_LINE = "The {a} kernel packs {b} weights, so that row {c} decodes to exactly zero — naïvely or not.\n"


def tiny_text(lines: int = 400) -> str:
    words = ("sparse", "dense", "small", "fast", "tiled", "quiet")
    return "".join(_LINE.format(a=words[i % 6], b=words[i * 7 % 5], c=i) for i in range(lines))


def tiny_tokenizer(text: str, vocabulary: int = 320):
    """A byte-level BPE tokenizer: lossless on any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def tiny_folder(folder: Path, *, architecture: str = "llama", seed: int = 0, **options) -> Path:
    """A dense random model of two blocks with its tokenizer, in the transformers layout."""
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer(tiny_text())
    config = tiny_config(architecture, layers=2, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
