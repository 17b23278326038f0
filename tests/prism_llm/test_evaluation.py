"""Measurements: the numbers against their definitions, and the protocol beside each number."""

import json
import math

import pytest
import torch
from tiny_models import tiny_model
from tiny_text import tiny_folder, tiny_text, tiny_tokenizer

from prism_kernels.formats import BitmapWeight
from prism_llm.data.sources import TextSource
from prism_llm.evaluation import (
    FORMATS,
    LinearShape,
    agreement,
    block_speed,
    decode_speed,
    evaluation_text,
    greedy_tokens,
    linear_shapes,
    model_speed,
    perplexity,
    top1_tokens,
)
from prism_llm.evaluation.block_speed import CONTENDERS, DENSE, _packed

SMALL = {"up": (512, 128), "down": (256, 512)}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(tiny_text())


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_model("llama", layers=2, vocab_size=len(tokenizer))


def test_perplexity_is_its_definition(model, tokenizer):
    text = evaluation_text(tiny_text(40), tokenizer, seqlen=16)
    ids = torch.tensor(tokenizer(tiny_text(40))["input_ids"])
    assert torch.equal(text.windows.flatten(), ids[: ids.numel() // 16 * 16])
    total = 0.0
    with torch.no_grad():
        for window in text.windows:
            log_p = model(input_ids=window[None]).logits[0].double().log_softmax(-1)
            total -= sum(float(log_p[t, window[t + 1]]) for t in range(15))
    measured = perplexity(model, text)
    count = text.windows.shape[0]
    assert measured.tokens == 15 * count and measured.windows == count and measured.seqlen == 16
    assert measured.nll == pytest.approx(total, rel=1e-5)
    assert measured.ppl == pytest.approx(math.exp(total / measured.tokens), rel=1e-4)
    spelled = tokenizer.decode(text.windows.flatten())
    per_byte = total / measured.tokens * text.windows.numel() / math.log(2) / len(spelled.rstrip("\ufffd").encode())
    assert measured.bits_per_byte == pytest.approx(per_byte, rel=1e-4)
    assert json.loads(json.dumps(measured.to_dict()))["text_sha256"] == text.sha256


def test_protocol_is_printed_with_the_number(model, tokenizer):
    whole = evaluation_text(tiny_text(40), tokenizer, seqlen=16)
    part = evaluation_text(tiny_text(40), tokenizer, seqlen=16, max_windows=3)
    assert part.windows.shape == (3, 16) and part.available == whole.windows.shape[0]
    assert f"all {whole.available} non-overlapping windows of 16 tokens" in str(perplexity(model, whole))
    assert f"the first 3 of {whole.available} non-overlapping" in str(perplexity(model, part))
    named = TextSource("wikitext2", "test", ["a b", "c d"] * 200, "\n\n", "", "0" * 64)
    protocol = evaluation_text(named, tokenizer, seqlen=8).protocol
    assert "wikitext2 test split, 400 documents joined by '\\n\\n'" in protocol and "sha256" in protocol


def test_default_seqlen_is_the_limit_of_the_model(model, tokenizer):
    assert evaluation_text(tiny_text(), tokenizer, model=model).seqlen == 128
    for arguments, message in (
        ({"seqlen": 129}, "seqlen must be at most the model's limit of 128, got 129"),
        ({"seqlen": 1}, "seqlen must be at least 2, got 1"),
        ({"max_windows": 0}, "max_windows must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluation_text(tiny_text(), tokenizer, model=model, **arguments)
    with pytest.raises(ValueError, match="text must hold at least one sequence"):
        evaluation_text("short", tokenizer, model=model)


def test_text_bytes_are_unknown_where_tokens_do_not_spell_the_text(tokenizer):
    text = tiny_text(40)
    known = evaluation_text(text, tokenizer, seqlen=7)
    assert known.text_bytes == pytest.approx(len(text.encode()), abs=200)

    class Lossy:
        def __call__(self, text, **options):
            return tokenizer(text, **options)

        def decode(self, ids, **options):
            return tokenizer.decode(ids, **options).lower()

    assert evaluation_text(text, Lossy(), seqlen=7).text_bytes is None


def test_agreement(model, tokenizer):
    text = evaluation_text(tiny_text(40), tokenizer, seqlen=16)
    itself = agreement(model, model, text, kl=True)
    assert itself.top1 == 1 and itself.mean_kl == pytest.approx(0, abs=1e-6)
    other = tiny_model("llama", seed=5, layers=2, vocab_size=len(tokenizer))
    measured = agreement(other, model, text, kl=True)
    ppl, ours = top1_tokens(other, text)
    _, theirs = top1_tokens(model, text)
    assert measured.top1 == float((ours == theirs).double().mean()) < 0.5
    assert ppl == perplexity(other, text)
    with torch.no_grad():
        p, q = (m(input_ids=text.windows).logits.double().log_softmax(-1) for m in (model, other))
    assert measured.mean_kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
    assert agreement(other, model, text).mean_kl is None


def test_logits_that_are_not_finite_are_no_perplexity(tokenizer):
    broken = tiny_model("llama", layers=1, vocab_size=len(tokenizer))
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="logits must be finite"):
        perplexity(broken, evaluation_text(tiny_text(40), tokenizer, seqlen=16))


@pytest.mark.parametrize("architecture", ["llama", "opt", "gemma", "qwen3"])
def test_greedy_tokens_are_those_of_generate(architecture):
    model = tiny_model(architecture, layers=2)
    prompt = torch.tensor([3, 14, 15, 92])
    expected = model.generate(
        prompt[None], max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True
    )[0, 4:]
    assert list(greedy_tokens(model, prompt, 12)) == expected.tolist()


def test_decode_speed(model):
    speed = decode_speed(model, torch.tensor([3, 14, 15]), new_tokens=4, runs=2)
    assert len(speed.runs) == 2 and speed.tokens_per_second > 0
    assert len(decode_speed(model, torch.tensor([3, 14, 15]), new_tokens=4, runs=9, budget_s=0).runs) == 1
    for part in ("batch 1", "3 prompt tokens", "4 new tokens", "median of 2 runs", "threads"):
        assert part in str(speed)
    for call in (
        lambda: decode_speed(model, torch.tensor([1]), new_tokens=0),
        lambda: greedy_tokens(model, torch.tensor([], dtype=torch.int64), 4),
        lambda: greedy_tokens(model, torch.tensor([1]), 0),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_block_speed():
    speed = block_speed(shapes=SMALL, m=(1, 3), rounds=4, budget_s=60)
    weights = 512 * 128 + 256 * 512
    assert [(row.name, row.m) for row in speed.rows] == [(n, m) for m in (1, 3) for n in (DENSE, *_names())]
    assert {row.rounds for row in speed.rows} == {4}
    dense = speed.rows[0]
    assert dense.ratio == 1 and dense.nbytes == 2 * weights and dense.bits_per_weight == 16
    for row in speed.rows:
        assert row.ms > 0 and row.low_ms <= row.ms <= row.high_ms
    bits = {row.name: row.bits_per_weight for row in speed.rows}
    assert bits["dual_shift 4-bit g64"] == pytest.approx(4.4, abs=0.2)
    assert bits["bitmap 50 % bf16"] == pytest.approx(9, abs=0.1)
    assert bits["bitmap_dual_shift 50 % + 4-bit g64"] == pytest.approx(3.4, abs=0.2)
    assert speed.ratio(DENSE, 3) == 1 and "4 rounds" in speed.protocol
    json.dumps(speed.to_dict())
    hurried = block_speed(shapes=SMALL, rounds=9, budget_s=0)
    assert [row.rounds for row in hurried.rows] == [3, 1, 1, 1] and "more than one pass: bitmap" in hurried.protocol
    with pytest.raises(KeyError):
        speed.ratio("nothing")


def _names():
    return tuple(contender.name for contender in CONTENDERS)


def test_repeated_rows_are_a_valid_weight():
    for contender in CONTENDERS:
        layer = _packed(contender, 512, 128, torch.Generator().manual_seed(0))
        weight = layer.packed_weight()
        weight.validate()
        dense = weight.to_dense(torch.float32)
        assert dense.shape == (512, 128) and torch.equal(dense[:64], dense[448:])
        kept = float((dense != 0).double().mean())
        assert kept == pytest.approx(contender.density, abs=0.15)
        if contender.weight is BitmapWeight:
            assert weight.tensors()["values"].dtype == torch.bfloat16


def test_comparison_keeps_partial_results(tmp_path, monkeypatch):
    from prism_llm.evaluation import comparison
    from prism_llm.evaluation.comparison import Comparison, Method, Settings

    source = tiny_folder(tmp_path / "dense")
    text = tmp_path / "text.txt"
    text.write_text(tiny_text(), "utf-8")
    methods = (
        Method("dense", "dense"),
        Method("broken", "broken", "sinq", {"targets": ("no_such_module",)}),
        Method("sinq", "sinq", "sinq", {"group_size": 16}, CONTENDERS[0].name),
        Method("wanda", "wanda", "wanda", {"sparsity": 0.5}, CONTENDERS[1].name),
    )
    settings = Settings(
        dataset=str(text), max_windows=4, num_samples=4, seqlen=32, prompt_tokens=4, new_tokens=4, decode_runs=1,
        block_m=(1,), block_rounds=3,
    )  # fmt: skip
    monkeypatch.setattr(comparison, "block_speed", lambda **options: block_speed(shapes=SMALL, **options))
    seen = []
    run = Comparison(
        tmp_path / "out",
        str(source),
        methods=methods,
        settings=settings,
        on_change=lambda r: seen.append(json.dumps(r)),
    )
    results = run.run()
    assert [len(json.loads(text)["methods"]) for text in seen] == [1, 2, 3, 4, 4]
    dense, broken, sinq, wanda = results["methods"]
    assert dense["top1_agreement"] == 1 and dense["bits_per_weight"] == 16 and dense["perplexity_ratio"] == 1
    assert broken["status"] == "failed" and "no_such_module" in broken["error"]
    assert sinq["bits_per_weight"] < 7 and wanda["bits_per_weight"] == pytest.approx(9, abs=0.5)
    assert sinq["block_ratio"] > 0 and dense["block_ratio"] is None
    assert sinq["recipe"]["method"] == "sinq" and len(sinq["layers"]) == 14
    assert sinq["layers"][0]["relative_error"] > 0
    assert (tmp_path / "out/checkpoints/sinq/MANIFEST.json").exists()
    assert not (tmp_path / "out/checkpoints/broken").exists()


def test_model_speed():
    shapes = [LinearShape(80, 96, 3, ("up_proj",)), LinearShape(33, 70, 1, ("odd",))]
    seen = []
    speed = model_speed(shapes, m=(1, 2), rounds=3, on_progress=lambda *progress: seen.append(progress))
    assert [(row.n, row.m, row.format) for row in speed.rows] == [
        (n, m, name) for n in (80, 33) for m in (1, 2) for name in ("dense", *FORMATS)
    ]
    assert [step[:2] for step in seen] == [(0, 2), (1, 2), (2, 2)]
    assert {row.rounds for row in speed.rows} == {3} and all(row.low_ms <= row.ms <= row.high_ms for row in speed.rows)
    assert [total.m for total in speed.sums] == [1] * (1 + len(FORMATS)) + [2] * (1 + len(FORMATS))
    json.dumps(speed.to_dict())
    for options in ({"m": ()}, {"m": (0,)}, {"formats": ("zip",)}, {"formats": ()}, {"rounds": 0}):
        with pytest.raises(ValueError, match=r"model_speed: .* must be"):
            model_speed(shapes, **options)
    with pytest.raises(ValueError, match="shapes must not be empty"):
        model_speed([])
    with pytest.raises(ValueError, match=r"must have an nn\.Linear, got LayerNorm"):
        linear_shapes(torch.nn.LayerNorm(4))
