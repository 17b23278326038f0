"""Training under masks, and progressive three-tier pruning over checkpoints: zeros stay, runs go on, maps must fit."""

import json
import random
from dataclasses import replace

import numpy
import pytest
import torch
from tiny_models import tiny_model, tokens
from tiny_text import tiny_folder, tiny_text

from prism_kernels.nn import PackedLinear, TieredLinear
from prism_llm import Recipe, compress_
from prism_llm.checkpoint import compress_to_checkpoint, load, open_checkpoint, verify
from prism_llm.pipeline.schedule import Schedule
from prism_llm.pipeline.tier_maps import FILE, TierMaps
from prism_llm.pruning.tiers import shrink_tiers, tier_counts
from prism_llm.recovery import Training, expand_, finetune, prune_iteration, repack_, run_schedule, train
from prism_llm.recovery import training as training_module
from prism_llm.recovery.training import make_trainer, preserved_global_state

RECIPE = Recipe.from_preset("three-tier", num_calibration_samples=4, max_seq_length=32)
QUICK = Training(max_steps=3, batch_size=2, accumulation=2, seqlen=32, learning_rate=1e-3, eval_steps=1)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(tiny_text(120), "utf-8")
    return path


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("dense") / "model")


@pytest.fixture(scope="module")
def schedule(tmp_path_factory):
    path = tmp_path_factory.mktemp("schedule") / "schedule.csv"
    path.write_text("iteration,dense,mid_2_4,topk,epochs\n1,0.8,0.2,0,1\n2,0.5,0.3,0.2,1\n3,0.35,0.45,0.2,0\n")
    return Schedule.load(path)


def packed(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}


def pruned_model(changes, dtype=torch.float32):
    model = tiny_model("llama", layers=1, dtype=dtype)
    compress_(model, Recipe(**changes), tokens())
    return model


LOSSLESS = [
    {"method": "wanda"},
    {"method": "wanda", "pattern": "2:4"},
    {"method": "three-tier"},
    {"method": "ria", "pattern": "2:4", "permute": "heuristic"},
]


@pytest.mark.parametrize("changes", LOSSLESS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_expanded_and_repacked_is_the_same(changes, dtype):
    model = pruned_model(changes, dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = model(input_ids=tokens(2, 8)).logits
    sparse = expand_(model)
    assert not packed(model) and all(how.dtype == dtype for how in sparse.values())
    torch.testing.assert_close(model(input_ids=tokens(2, 8)).logits, logits, rtol=0.05, atol=0.05)
    repack_(model, sparse)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_csr_is_lossless_too():
    from prism_kernels.nn import CsrLinear
    from prism_kernels.swap import swap_linears

    model = tiny_model("llama", layers=1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight[module.weight.abs() < 0.05] = 0
    swap_linears(model, CsrLinear)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    repack_(model, expand_(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("changes", LOSSLESS)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_gradients_weights_and_moments_of_pruned_weights_stay_zero(changes, weight_decay, tmp_path):
    model = pruned_model(changes)
    sparse = expand_(model, torch.float32)
    settings = replace(QUICK, weight_decay=weight_decay)
    start = {name: model.get_parameter(f"{name}.weight").detach().clone() for name in sparse}
    seen = []
    with preserved_global_state():
        trainer = make_trainer(model, sparse, tokens(8, 16), tokens(2, 16), settings, tmp_path)

        class Spy(training_module_callback()):
            def on_pre_optimizer_step(self, args, state, control, **_):
                for name, how in sparse.items():
                    gradient = model.get_parameter(f"{name}.weight").grad
                    assert bool((gradient[~how.mask] == 0).all())
                    assert bool((gradient[how.mask] != 0).any())
                seen.append(state.global_step)

        trainer.add_callback(Spy)
        trainer.train()
    assert len(seen) == 3
    for name, how in sparse.items():
        weight = model.get_parameter(f"{name}.weight")
        assert bool((weight[~how.mask] == 0).all()) and not torch.equal(weight, start[name])
        state = trainer.optimizer.optimizer.state[weight]
        for moment in ("exp_avg", "exp_avg_sq"):
            assert bool((state[moment][~how.mask] == 0).all()) and bool((state[moment] != 0).any())


def training_module_callback():
    from transformers import TrainerCallback

    return TrainerCallback


def test_gradients_that_are_not_finite_do_not_reach_pruned_weights():
    model = pruned_model({"method": "wanda"})
    sparse = expand_(model, torch.float32)
    training_module.mask_gradients(model, sparse)
    name, how = next(iter(sparse.items()))
    weight = model.get_parameter(f"{name}.weight")
    (weight * float("inf")).sum().backward()
    assert bool((weight.grad[~how.mask] == 0).all()) and bool(weight.grad[how.mask].isinf().all())


def test_quantized_and_dense_models_are_refused(dense, text, tmp_path):
    with pytest.raises(ValueError, match=r"expand_: model must hold compressed linears, got none"):
        expand_(tiny_model("llama", layers=1))
    recipe = Recipe.from_preset("sinq", group_size=16)
    quantized = compress_to_checkpoint(dense, tmp_path / "sinq", recipe)
    with pytest.raises(ValueError, match=r"got dual_shift in model\.layers\.0\..*cannot be trained"):
        finetune(quantized, tmp_path / "out", replace(QUICK, dataset=str(text)))
    assert not (tmp_path / "out.training").exists()


def test_settings_are_checked():
    for name, value in (("epochs", 0), ("learning_rate", float("inf")), ("batch_size", 0), ("validation_share", 1)):
        with pytest.raises(ValueError, match=f"Training: {name} must"):
            Training(**{name: value})


@pytest.fixture(scope="module")
def wanda(dense, text, tmp_path_factory):
    recipe = Recipe.from_preset("wanda", dataset=str(text), num_calibration_samples=4, max_seq_length=32)
    return compress_to_checkpoint(dense, tmp_path_factory.mktemp("wanda") / "model", recipe)


def test_finetune_lowers_the_loss_and_leaves_no_trace(wanda, text, tmp_path):
    random.seed(5), numpy.random.seed(5)
    states = random.getstate(), numpy.random.get_state()[1].copy(), torch.get_rng_state()
    steps = []
    settings = replace(QUICK, dataset=str(text), max_steps=8, eval_steps=2)
    out = finetune(wanda, tmp_path / "out", settings, progress=lambda *step: steps.append(step))
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[2])
    assert (numpy.random.get_state()[1] == states[1]).all()
    assert [done for done, _, _ in steps] == list(range(1, 9)) and "loss" in steps[-1][2]
    checkpoint, source = verify(out), open_checkpoint(wanda)
    done = checkpoint.report["finetune"][0]
    assert done["loss_after"] < done["loss_before"] and done["steps"] == 8 and done["best_step"] in (2, 4, 6, 8)
    assert checkpoint.modules == source.modules and checkpoint.config == source.config
    assert checkpoint.recipe == source.recipe and checkpoint.compressed_nbytes == source.compressed_nbytes
    before, after = packed(load(wanda)), packed(load(out))
    for name, module in before.items():
        assert bool((after[name].to_dense()[module.to_dense() == 0] == 0).all())
        assert not torch.equal(after[name].to_dense(), module.to_dense())
    assert not (tmp_path / "out.training").exists()
    again = finetune(wanda, tmp_path / "again", settings)
    assert open_checkpoint(again).run_id == checkpoint.run_id  # the same tensors


def test_products_in_bfloat16(wanda, text, tmp_path):
    out = finetune(wanda, tmp_path / "out", replace(QUICK, dataset=str(text), autocast=True))
    done = open_checkpoint(out).report["finetune"][0]
    assert done["loss_after"] < done["loss_before"] and done["settings"]["autocast"]
    before, after = packed(load(wanda)), packed(load(out))
    assert all(bool((after[n].to_dense()[m.to_dense() == 0] == 0).all()) for n, m in before.items())


def test_a_training_that_does_not_help_keeps_the_start(wanda, text, tmp_path):
    settings = replace(QUICK, dataset=str(text), learning_rate=50.0, patience=1, max_steps=6)
    out = finetune(wanda, tmp_path / "out", settings)
    done = open_checkpoint(out).report["finetune"][0]
    assert done["best_step"] == 0 and done["loss_after"] == done["loss_before"]
    assert done["stopped_early"] and done["steps"] < 6
    before, after = load(wanda).state_dict(), load(out).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_training_that_died_goes_on(wanda, text, tmp_path, monkeypatch):
    settings = replace(QUICK, dataset=str(text), max_steps=6, eval_steps=2)
    expected = open_checkpoint(finetune(wanda, tmp_path / "whole", settings)).run_id

    class Killed(BaseException):
        pass

    def die(done, total, note):
        if done == 5:
            raise Killed

    out = tmp_path / "out"
    with pytest.raises(Killed):
        finetune(wanda, out, settings, progress=die)
    folder = tmp_path / "out.training"
    assert not out.exists() and (folder / "checkpoint-4").is_dir()
    (folder / "checkpoint-9").mkdir()  # half-written
    with pytest.raises(ValueError, match="must be those of the run to go on with"):
        finetune(wanda, out, replace(settings, seed=1))
    steps = []
    finetune(wanda, out, settings, progress=lambda *step: steps.append(step[0]))
    assert steps == [5, 6] and open_checkpoint(out).run_id == expected


def test_iterations_one_by_one(dense, text, schedule, tmp_path):
    recipe = RECIPE.replace(dataset=str(text))
    first = prune_iteration(dense, tmp_path / "1", schedule.row(1), recipe)
    trained = finetune(first, tmp_path / "1t", replace(QUICK, dataset=str(text)))
    second = prune_iteration(None, tmp_path / "2", schedule.row(2), recipe, previous=trained)
    checkpoint = verify(second)
    assert FILE in checkpoint.files and (trained / FILE).read_bytes() == (first / FILE).read_bytes()
    one, two = TierMaps.load(first), TierMaps.load(second)
    assert (one.iteration, two.iteration) == (1, 2)
    model, before = load(second), packed(load(trained))
    for name, module in packed(model).items():
        assert type(module) is TieredLinear
        assert torch.equal(shrink_tiers(module.tiers, 16), two.maps[name])
        counts = [int((two.maps[name] == tier).sum()) for tier in range(3)]
        assert tuple(counts) == tier_counts(sum(counts), schedule.row(2).shares)
        assert bool((two.maps[name] >= one.maps[name]).all())
        weight, old = module.to_dense(), before[name].to_dense()
        assert bool((weight[old == 0] == 0).all())
        assert torch.equal(weight[weight != 0], old[weight != 0])
    assert bool(model(input_ids=tokens(2, 8)).logits.isfinite().all())


def test_maps_that_do_not_fit_are_refused(dense, text, schedule, tmp_path):
    recipe = RECIPE.replace(dataset=str(text))
    first = prune_iteration(dense, tmp_path / "1", schedule.row(1), recipe)

    second = schedule.row(2)

    def attempt(message, kind=ValueError, row=second, recipe=recipe, previous=first):
        with pytest.raises(kind, match=message):
            prune_iteration(None, tmp_path / "2", row, recipe, previous=previous)
        assert not (tmp_path / "2").exists()

    attempt("previous must be given for iteration 2, got None", previous=None)
    attempt("previous must not be given for iteration 1", row=schedule.row(1))
    attempt("must have iteration 2, got 1", row=schedule.row(3))
    attempt("must have topk_per_block 15, got 10", recipe=recipe.replace(topk_per_block=15))
    attempt("must have tier_block_size 32, got 16", recipe=recipe.replace(tier_block_size=32))
    attempt("previous must be a checkpoint of an iteration", previous=dense)
    content = (first / FILE).read_bytes()
    maps = TierMaps.load(first)
    (first / FILE).unlink()
    attempt(r"tier_maps\.safetensors must exist", FileNotFoundError)
    name = next(iter(maps.maps))
    foreign = dict(maps.maps) | {name: 1 - maps.maps[name].clamp(max=1)}
    spoiled = TierMaps(1, 16, 10, foreign).to_bytes()
    assert len(spoiled) == len(content)
    (first / FILE).write_bytes(spoiled)
    attempt(f"tier map of {name} in .* must be that of its weight, got a foreign one")


def test_a_checkpoint_without_maps_is_refused(wanda, text, schedule, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tier_maps\.safetensors must exist"):
        prune_iteration(None, tmp_path / "2", schedule.row(2), RECIPE, previous=wanda)


def test_a_schedule_runs_and_goes_on_where_it_died(dense, text, schedule, tmp_path, monkeypatch):
    recipe, settings = RECIPE.replace(dataset=str(text)), replace(QUICK, dataset=str(text))
    whole = run_schedule(dense, tmp_path / "whole", schedule, recipe, settings)
    checkpoint = verify(whole)
    assert TierMaps.load(whole).iteration == 3 and len(packed(load(whole))) == 14
    work = tmp_path / "whole.iterations"
    assert sorted(p.relative_to(work).as_posix() for p in work.glob("*/*")) == [
        "iteration-1/finetuned", "iteration-1/pruned", "iteration-2/finetuned", "iteration-2/pruned",
        "iteration-3/pruned",
    ]  # fmt: skip

    from prism_llm.recovery import progressive

    real, calls = progressive.finetune, []

    def dies_in_the_second(*args, **kwargs):
        calls.append(args[1].parent.name)
        if len(calls) == 2:
            raise RuntimeError("killed")
        return real(*args, **kwargs)

    monkeypatch.setattr(progressive, "finetune", dies_in_the_second)
    out, titles = tmp_path / "out", []
    with pytest.raises(RuntimeError, match="killed"):
        run_schedule(dense, out, schedule, recipe, settings)
    with pytest.raises(ValueError, match="recipe must be that of the run to go on with"):
        run_schedule(dense, out, schedule, recipe.replace(seed=1), settings)

    def stages(title):
        titles.append(title)
        return lambda *step: None

    run_schedule(dense, out, schedule, recipe, settings, stages=stages)
    assert titles == ["iteration 2 of 3, training", "iteration 3 of 3, pruning"]
    assert calls == ["iteration-1", "iteration-2", "iteration-2"]
    assert open_checkpoint(out).run_id == checkpoint.run_id
    report = json.loads((out / "report.json").read_text())
    assert report["recipe"]["tiers"] == [0.35, 0.45, 0.2]


def test_train_refuses_a_loss_that_is_not_finite(tmp_path):
    model = pruned_model({"method": "wanda"})
    sparse = expand_(model, torch.float32)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="loss must be finite, got nan before training"):
        train(model, sparse, tokens(4, 16), tokens(2, 16), QUICK, tmp_path)
