"""The bundled model: what ships, that it is trained, and that its card tells the truth."""

import hashlib
import itertools
import json
import math
import re

import pytest
import torch

from prism_llm import assets
from prism_llm.assets import bundled_model_path, train
from prism_llm.assets.model_card import checked_windows
from prism_llm.assets.training_state import load_training_state, save_training_state
from prism_llm.data.stdlib import stdlib_text

PERPLEXITY_BOUND = 25.0


@pytest.fixture(scope="module")
def folder():
    return bundled_model_path()


@pytest.fixture(scope="module")
def tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def model(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


@pytest.fixture(scope="module")
def card(folder):
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", (folder / "README.md").read_text(), re.MULTILINE)
    return {name.strip(): value.strip() for name, value in rows}


def test_missing_model_is_an_error_that_tells_how_to_build_it(monkeypatch):
    monkeypatch.setattr(assets, "BUNDLED_MODEL_NAME", "no-such-model")
    with pytest.raises(FileNotFoundError, match=r"no-such-model.*prism_llm\.assets\.train"):
        bundled_model_path()


def test_folder_is_small_and_complete(folder):
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_log.jsonl",
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 9_000_000


def test_no_file_names_the_machine_that_trained_it(folder):
    for path in folder.iterdir():
        if path.suffix in {".json", ".jsonl", ".md"}:
            content = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w.])/(root|home|work|tmp|usr)/", content), path.name


def test_architecture_and_stored_type(folder, model):
    from safetensors import safe_open

    assert 4_000_000 < model.num_parameters() < 4_400_000
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with safe_open(folder / "model.safetensors", "pt") as stored:
        assert {stored.get_slice(key).get_dtype() for key in stored.keys()} == {"BF16"}  # noqa: SIM118


@pytest.mark.parametrize("text", ["def f(x):\n\treturn x  # é 漢 \U0001f600\n", "  leading", "</s> literal", ""])
def test_tokenizer_is_lossless_and_adds_no_special_tokens(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.bos_token_id not in ids
    assert len(tokenizer) == train.VOCABULARY_SIZE


def test_held_out_perplexity_is_what_the_card_records(model, tokenizer, card):
    windows, bytes_per_token = train.held_out_windows(tokenizer)
    perplexity = math.exp(train.held_out_loss(model, checked_windows(windows)))
    # Random weights give about 4096; another Python version holds another text.
    assert perplexity < PERPLEXITY_BOUND
    if hashlib.sha256(stdlib_text("test").encode()).hexdigest() != card["held-out sha256"]:
        pytest.skip("this Python's standard library is not the one that the card was measured on")
    assert windows.shape[0] == int(card["held-out windows"])
    assert bytes_per_token == pytest.approx(float(card["held-out bytes per token"]), abs=1e-3)
    assert perplexity == pytest.approx(float(card["perplexity on 8 windows"]), rel=2e-3)


def test_bits_per_byte_follows_from_perplexity(card):
    bits = math.log2(float(card["held-out perplexity per token"]))
    expected = bits / float(card["held-out bytes per token"])
    assert float(card["held-out bits per byte"]) == pytest.approx(expected, abs=2e-4)


def test_log_tells_of_a_finished_run(folder, card):
    lines = (folder / "training_log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert set(entries[0]) == {"step", "tokens", "train_loss", "held_out_loss", "lr", "seconds"}
    assert entries[-1]["step"] == int(card["steps"])
    assert entries[-1]["held_out_loss"] == min(entry["held_out_loss"] for entry in entries)


def test_generation_goes_on_with_code(model, tokenizer):
    ids = tokenizer("import os\nimport sys\n\ndef ", return_tensors="pt")
    text = tokenizer.decode(model.generate(**ids, max_new_tokens=16, do_sample=False)[0])
    assert "(" in text and ":" in text


def test_schedule_warms_up_stays_and_decays_to_zero():
    options = train.TrainingOptions(warmup=10, decay=100)
    scale = [train.learning_rate_scale(step, 500, options) for step in range(601)]
    assert scale[0] == pytest.approx(0.1) and scale[10] == scale[500] == 1.0 and scale[600] == 0.0
    assert all(later <= earlier for earlier, later in itertools.pairwise(scale[500:]))


def test_epochs_are_reproducible_and_differ():
    documents = [torch.arange(700, dtype=torch.int32) + 1000 * index for index in range(9)]
    first = train.pack_epoch(documents, epoch=0, seed=3)
    assert first.shape[1] == train.SEQUENCE_LENGTH + 1
    assert torch.equal(first, train.pack_epoch(documents, epoch=0, seed=3))
    assert not torch.equal(first[0], train.pack_epoch(documents, epoch=1, seed=3)[0])


def test_batches_depend_on_the_step_alone():
    documents = [torch.arange(900, dtype=torch.int32) for _ in range(12)]
    options = train.TrainingOptions(batch_size=2)
    walked, resumed = train.Batches(documents, options), train.Batches(documents, options)
    steps = range(2 * walked.steps_per_epoch + 1)
    seen = [walked[step] for step in steps]
    assert all(batch.shape == (2, train.SEQUENCE_LENGTH + 1) for batch in seen)
    assert torch.equal(resumed[steps[-1]], seen[-1])


def test_training_state_survives_a_kill(tmp_path):
    def fresh():
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model, optimizer):
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = fresh()
    step(model, optimizer)
    save_training_state(tmp_path / "state.safetensors", model, [optimizer], {"step": 1})
    resumed, resumed_optimizer = fresh()
    assert load_training_state(tmp_path / "state.safetensors", resumed, [resumed_optimizer]) == {"step": 1}
    step(model, optimizer)
    step(resumed, resumed_optimizer)
    for expected, actual in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, actual)


def test_slow_start_does_not_bring_the_decay_forward(monkeypatch):
    options = train.TrainingOptions(warmup=100, decay=900, max_minutes=30.0)
    now = [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    progress = train.Progress(step=1000)
    clock = train._Clock(progress)
    for seconds in (100.0, *[10.0] * 8):  # compilation, then half a second per step
        now[0] += seconds
        progress.step += 20
        clock.update(progress)
        assert not train._must_decay(progress, clock, options)
    progress.seconds = 60 * 30.0 - 400.0
    assert train._must_decay(progress, clock, options)
