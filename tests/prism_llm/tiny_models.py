"""Tiny random models of every supported architecture, and random tokens for them."""

import torch

VOCABULARY = 256
ARCHITECTURES = ("llama", "mistral", "opt", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gpt_neox", "phi3")
#: Whose linears are not (all) nn.Linear: Conv1D, and fused experts.
OTHER_LAYOUTS = ("gpt2", "mixtral", "qwen3_moe")


def tiny_config(architecture: str, *, hidden: int = 64, inner: int = 96, layers: int = 3, **extra):
    import transformers

    common = dict(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    grouped = dict(num_key_value_heads=2, head_dim=16, intermediate_size=inner)
    sliding = dict(sliding_window=8)
    own = {
        "llama": ("LlamaConfig", grouped),
        "mistral": ("MistralConfig", grouped | sliding),
        "opt": ("OPTConfig", dict(ffn_dim=inner, word_embed_proj_dim=hidden)),
        "qwen2": ("Qwen2Config", grouped | sliding | dict(use_sliding_window=True, max_window_layers=1)),
        "qwen3": ("Qwen3Config", grouped),
        "gemma": ("GemmaConfig", grouped),
        "gemma2": ("Gemma2Config", grouped | sliding | dict(query_pre_attn_scalar=16)),
        "gemma3": (
            "Gemma3TextConfig",
            grouped
            | sliding
            | dict(
                query_pre_attn_scalar=16,
                layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"][:layers],
            ),
        ),
        "gpt2": ("GPT2Config", dict(n_inner=inner)),
        "mixtral": ("MixtralConfig", grouped | dict(num_local_experts=4, num_experts_per_tok=2)),
        "qwen3_moe": (
            "Qwen3MoeConfig",
            grouped | dict(moe_intermediate_size=48, num_experts=4, num_experts_per_tok=2, mlp_only_layers=[1]),
        ),
        "gpt_neox": ("GPTNeoXConfig", dict(intermediate_size=inner)),
        "phi3": ("Phi3Config", dict(num_key_value_heads=2, intermediate_size=inner)),
    }
    class_name, specific = own[architecture]
    return getattr(transformers, class_name)(**(common | specific | extra))


def tiny_model(architecture: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **options):
    """A random model whose biases and norms are random too, so that nothing cancels by accident."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(architecture, **options), dtype=dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def tokens(num: int = 6, length: int = 24, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (num, length), generator=torch.Generator().manual_seed(seed))
