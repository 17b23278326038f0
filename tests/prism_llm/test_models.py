"""The adapter: running the blocks one by one is running the model."""

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model, tokens
from torch import nn

from prism_llm.models import DecoderAdapter, evaluation_mode, find_blocks, load_model, load_tokenizer


def block_outputs(adapter, ids):
    """The outputs of the blocks in the model's own forward (`output_hidden_states` norms the last one)."""
    seen = []
    handles = [
        block.register_forward_hook(lambda m, a, out: seen.append(out[0] if isinstance(out, tuple) else out))
        for block in adapter.blocks
    ]
    adapter.model(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_blocks_one_by_one_equal_the_model_bitwise(architecture, attention):
    model = tiny_model(architecture)
    if attention == "sdpa" and not model._supports_sdpa:
        pytest.skip(f"{architecture} has no sdpa")
    model.set_attn_implementation(attention)
    batches = tokens(6, 24).split(4)
    adapter = DecoderAdapter(model)
    before = [dict(vars(block)) for block in adapter.blocks]
    captured = adapter.capture(batches)
    assert [dict(vars(block)) for block in adapter.blocks] == before, "the recorder must leave no trace"
    for ids, hidden, calls in zip(batches, captured.hidden, captured.calls, strict=True):
        with torch.no_grad():
            seen = block_outputs(adapter, ids)
        for index, expected in enumerate(seen):
            hidden = adapter.run_block(index, hidden, calls[index])
            assert torch.equal(hidden, expected), f"block {index}"


def test_blocks_of_different_kinds_get_their_own_arguments():
    adapter = DecoderAdapter(tiny_model("gemma3"))
    captured = adapter.capture(tokens(4, 24).split(2))
    sliding, full, sliding_again = (call.kwargs for call in captured.calls[0])
    assert not torch.equal(sliding["position_embeddings"][0], full["position_embeddings"][0])
    assert sliding["position_embeddings"][0] is sliding_again["position_embeddings"][0]
    # Equal tensors of other batches are stored once.
    assert captured.calls[1][0].kwargs["position_embeddings"][0] is sliding["position_embeddings"][0]


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_no_cache_reaches_the_blocks(architecture):
    from transformers.cache_utils import Cache

    model = tiny_model(architecture)
    assert model.config.use_cache
    captured = DecoderAdapter(model).capture(tokens(4, 16).split(2))
    for call in (call for calls in captured.calls for call in calls):
        assert not any(isinstance(value, Cache) for value in (*call.args, *call.kwargs.values()))
        assert not call.kwargs.get("use_cache")


def test_dropout_is_off_and_training_flags_come_back():
    model = tiny_model("opt", attention_dropout=0.5, dropout=0.5)
    model.train()
    model.model.decoder.layers[1].eval()
    flags = [module.training for module in model.modules()]
    adapter = DecoderAdapter(model)
    a, b = adapter.capture([tokens(2, 8)]), adapter.capture([tokens(2, 8)])
    assert torch.equal(a.hidden[0], b.hidden[0])
    assert [module.training for module in model.modules()] == flags
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())


def test_find_blocks_says_what_it_looked_for():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.ModuleList([nn.Linear(2, 2)])
            self.right = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    with pytest.raises(ValueError, match=r"got 2 in Strange; its lists: left \(1 x Linear\), right \(2 x Linear\)"):
        find_blocks(Strange())
    with pytest.raises(ValueError, match="got 0 in Linear; its lists: none"):
        find_blocks(nn.Linear(2, 2))


def test_shared_mutable_state_is_refused():
    class Sharing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, input_ids, use_cache):
            state = {}
            hidden = input_ids.float()
            for layer in self.layers:
                hidden = layer(hidden, shared=state)

    with pytest.raises(NotImplementedError, match="got a dict as 'shared'"):
        DecoderAdapter(Sharing()).capture([torch.zeros(1, 4, dtype=torch.long)])


def test_a_forward_that_skips_a_block_is_refused():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, input_ids, use_cache):
            return self.layers[0](input_ids.float())

    with pytest.raises(RuntimeError, match="must call all 2 blocks, got 1 calls"):
        DecoderAdapter(Skipping()).capture([torch.zeros(1, 4, dtype=torch.long)])


def test_missing_models_are_named(tmp_path):
    missing = str(tmp_path / "nowhere")
    for function in (load_model, load_tokenizer):
        with pytest.raises(FileNotFoundError, match=r"nowhere.*no such folder.*offline"):
            function(missing)
    with pytest.raises(FileNotFoundError, match="must hold a complete model folder"):
        load_model(tmp_path)
