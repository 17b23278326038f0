"""The study of zeros: dense, masked and CSR, with the bytes that are really stored."""

import json

import pytest
import torch
from tiny_models import tiny_model, tokens

from prism_kernels.nn import CsrLinear
from prism_llm.evaluation.study import sparsity_study
from prism_llm.evaluation.windows import EvaluationText

TEXT = EvaluationText(tokens(4, 16), 4, "random tokens", "0" * 64, None)
FAST = {"new_tokens": 2, "prompt_tokens": 4, "budget_s": 0.5}


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "mixtral"])
def test_three_variants(architecture):
    model = tiny_model(architecture, layers=2)
    study = sparsity_study(model, TEXT, sparsity=0.4, **FAST)
    dense, masked, csr = study.variants
    assert [variant.name for variant in study.variants] == ["dense", "masked", "csr"]
    linears = {name: m for name, m in model.named_modules() if isinstance(m, CsrLinear)}
    assert set(linears) == set(study.layers)
    weights = sum(m.in_features * m.out_features for m in linears.values())
    assert dense.multiplications == weights and dense.top1 == 1
    assert masked.multiplications == csr.multiplications == weights - int(0.4 * weights)
    assert masked.linear_bytes == dense.linear_bytes == 4 * weights  # zeros in dense tensors save nothing
    assert masked.model_bytes == dense.model_bytes
    assert csr.linear_bytes == sum(m.nbytes for m in linears.values())
    assert csr.linear_bytes == sum(
        6 * int((m.to_dense() != 0).sum()) + 4 * (m.out_features + 1) for m in linears.values()
    )
    assert csr.ppl == pytest.approx(masked.ppl, rel=1e-4) and csr.top1 == pytest.approx(masked.top1, abs=0.02)
    assert masked.ppl != dense.ppl and masked.top1 < 1
    average = sum(study.layers[n] * m.in_features * m.out_features for n, m in linears.items()) / weights
    assert average == pytest.approx(0.4, abs=1e-3)
    assert set(study.groups) == {"attention", "mlp"}
    assert json.loads(json.dumps(study.to_dict()))["variants"][2]["name"] == "csr"


def test_chosen_linears_and_one_threshold_over_all():
    model = tiny_model("llama", layers=2)
    dense = {n: m.weight.detach().clone() for n, m in model.named_modules() if n.endswith(("up_proj", "down_proj"))}
    study = sparsity_study(model, TEXT, sparsity=0.3, targets=["up_proj", "down_proj"], csr=["re:.*1.*up_proj"], **FAST)
    assert set(study.layers) == set(dense)
    pruned = torch.cat([w[model.get_submodule(n).to_dense() == 0] if n.endswith("1.mlp.up_proj")
                        else w[model.get_submodule(n).weight == 0] for n, w in dense.items()])  # fmt: skip
    everything = torch.cat([w.flatten() for w in dense.values()]).abs().sort().values
    assert torch.equal(pruned.abs().sort().values, everything[: int(0.3 * everything.numel())])
    assert sum(isinstance(m, CsrLinear) for m in model.modules()) == 1


def test_wrong_arguments():
    for sparsity in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"sparsity must be in \(0, 1\)"):
            sparsity_study(tiny_model("llama", layers=1), TEXT, sparsity=sparsity)
    with pytest.raises(ValueError, match="csr must name a pruned linear"):
        sparsity_study(tiny_model("llama", layers=1), TEXT, targets=["up_proj"], csr=["q_proj"], **FAST)
