"""The presets: published methods as choices of `Recipe` fields, and where each departs from its original.

Section numbers are those of the sources' descriptions; a deviation has a name, so that reports can refer to it. Common
to all calibrated presets: every linear of a block sees the inputs that the compressed blocks before it give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def sinq() -> dict[str, Any]:
    """SINQ (huawei-csl/SINQ; arXiv 2509.22944): Sinkhorn column scale per strip of 64 columns, then 4-bit rounding.

    Data-free, no pruning. Reproduces `sinkhorn_log` (16 iterations) and 1D tiling. Its row factor changes no code under
    a scale per (row, group), so it is not stored. Its other modes: `fold=True` (pre-SINQ), `scale="sinq_2d"` (2D
    tiling), `codebook="nf4"` or "nf3", `round="hqq"`. Its symmetric mode ("noz"), which wastes 3 of 16 levels, is left
    out.

    Deviations:
        in-range zero: the hull of a group contains 0 and the zero point is a code, so 0 is exact (the original's zero
            can lie outside the codes).
        no kurtosis gate: the original silently rounds heavy-tailed matrices without the scale.
        no quantized scales: scales are bfloat16 and zeros integer codes (the original's 8-bit zeros are fractional).
        shared columns: 2D tiles share one column scale, the geometric mean of theirs (the original stores one vector
            for every row of tiles).
        centred codebooks: nf4 and nf3 have no shift (the original subtracts the mean of a group first).
        best zeros of hqq: integers, with codes that belong to them (`refine_zeros`).
        any group size: a short last group instead of halving the group until it divides the row.
    """
    return {"bits": 4, "group_size": 64, "scale": "sinq", "round": "rtn", "sparsity": 0.0}


def asinq() -> dict[str, Any]:
    """A-SINQ (huawei-csl/SINQ, `method="asinq"`): SINQ whose column scale is the best of 20 by the layer's outputs.

    Each scale mu1 / a_alpha blends mean |x| and mean |w| by alpha; errors are L1 (`search_error="l2"` for L2).

    Those of `sinq` and these Deviations:
        errors from X^T X: the L1 error of outputs is taken from their variances (`searched_column_scale`).
        calibration: the recipe's dataset (the original has five prompts in its source), and inputs from the compressed
            blocks before (the original's come from the dense model).
    """
    return sinq() | {"scale": "asinq", "search_error": "l1"}


def magnitude() -> dict[str, Any]:
    """Magnitude pruning, the baseline of Wanda (locuslab/wanda): the smallest |W| of each matrix, 50 %. Data-free.

    `scope="global"` is Edu-Sparsify's (TaharHERRI/Edu-Sparsify-LLMs): one threshold over all chosen linears, found in
    two passes over the weights that hold one block at a time (the original concatenates the whole model).

    Deviations:
        exact count: share_of(numel, sparsity) by index; the original's threshold prunes ties too.
    """
    return {"sparsity": 0.5, "score": "magnitude", "scope": "matrix", "scale": "none"}


def wanda() -> dict[str, Any]:
    """Wanda (locuslab/wanda; arXiv 2306.11695): |W_ij| ||X_j||, the smallest int(k * 0.5) of every output row.

    With `bits`, the pruned weight is then rounded to nearest in groups of 64. `score="wanda_variant"` is its
    `--use_variant`.

    Deviations:
        kept n of n:m: the original counts the pruned weights in n (2:4 and 4:8 mean the same in both).
        bounded sequences: 2048 tokens, not the model's whole context.
        no cache: a shared key-value cache would let each calibration sequence attend to those before it.
    """
    return {"sparsity": 0.5, "score": "wanda", "scope": "row", "scale": "none", "group_size": 64}


def sparsegpt() -> dict[str, Any]:
    """SparseGPT (IST-DASLab/sparsegpt; arXiv 2301.00774): the sweep with adaptive masks in blocks of 128 columns, 50 %.

    With `bits`, rounding happens inside the sweep, on one grid per output row found on the dense weights; `group_size`
    finds a grid per group instead, on the current weights (GPTQ's variant). `sparsity=0` with `bits` is GPTQ.

    Deviations:
        exact count: share_of(numel, sparsity) per block; the original's `<=` prunes at least one more.
        kept n of n:m: the original counts the pruned weights in n.
        damping ladder: 0.01, 0.1, 1, each also in float64; if all fail, the linear is pruned by Wanda and rounded
            without compensation, which the report says (the original stops with an error).
        mean of the living: damping is relative to the mean diagonal of inputs that are not dead.
        plain row grid: an all-zero row has scale 1 (the original's range is then -1 to 1); scales are bfloat16.
    """
    return {
        "sparsity": 0.5,
        "score": "sparsegpt",
        "compensate": "obs_sweep",
        "round": "joint",
        "group_size": None,
        "scale": "none",
    }


def prism() -> dict[str, Any]:
    """PRISM (SDMuhsin/PRISM, `sparse_with_prism`): 50 % pruned, 4 bits in groups of 64.

    Importance |W_ij| ||X_j|| / (mu1_j mu2_i + 1e-6) in two rounds, the smallest of the whole matrix pruned; one-shot
    OBS; sparse-aware Sinkhorn column scale; rounding of the survivors.

    Deviations:
        all tokens: the original keeps the first 256 tokens of its calibration, so X^T X is singular for any layer
            with more inputs; `max_tokens=256` restores that.
        no noise: pruned entries are not replaced by 1e-8 noise; rows and columns without survivors are left out of the
            statistics instead.
        survivors' hull: group ranges are those of the kept weights and 0, with an in-range zero (the original lets
            zeros, and in some modes pruned values, into the ranges and decodes through a dense mask).
        no hidden precision: the original switches to 5 bits where many rows are flat.
        one path: OPT is treated like all models (the original gives it Wanda's importance: `score="wanda"`).
        sequential: inputs of a block come from the compressed blocks before it (the original uses dense ones).
    """
    return {
        "sparsity": 0.5,
        "scope": "matrix",
        "score": "prism",
        "compensate": "obs_one_shot",
        "bits": 4,
        "group_size": 64,
        "scale": "prism",
        "round": "rtn",
    }


def ria() -> dict[str, Any]:
    """RIA (biomedical-cybernetics/Relative-importance-and-activation-pruning; ICLR 2024): 50 % of each matrix.

    (|W_ij| / column sum + |W_ij| / row sum) * ||X_j||^a with a = 0.5 (`ria_exponent`); its "RI" is `score="ri"`, its
    `--per_outneuron` is `scope="row"`, its `--reconstruction` is `compensate="obs_sweep"`.

    Deviations:
        exact count: share_of(numel, sparsity); the original's `<=` prunes at least one more.
        kept n of n:m: the original counts the pruned weights in n, so its 1:4 is 3:4 here.
        dead lines: a row or column of zeros scores 0 (the original divides 0 by 0).
        float32 scores: computed in float64 and rounded once; the original's are float16, where many weights tie.
        calibration is never empty: the original's wikitext2 loader gives no text, hence activations of zero.
    """
    return {"sparsity": 0.5, "score": "ria", "scope": "matrix", "scale": "none", "group_size": 64}


def clearcut() -> dict[str, Any]:
    """ClearCut (cRED-f/ClearCut-Pruning): RIA's score plus 0.1 W^2 / (row sum * column sum), 50 % of each row.

    Its low rank (`low_rank=0.5`, `low_rank_targets`) factorizes what pruning left, so that the zeros are lost;
    `low_rank_of="weight"` or "residual" keeps more of the weight in the same factors.

    The added term is too small to change a mask beyond near ties: this is RIA with `scope="row"`, kept as a method of
    its own because its source names it so.

    Deviations:
        n:m is n:m: the original keeps int(k n / m) per row wherever they lie, which no n:m kernel can run. n counts the
            kept weights, as in the original.
        unstructured works: the original divides by zero, and ignores its sparsity, permutation and acceleration flags.
        float32 scores: computed in float64 and rounded once; the original's float16 rounds the added term to 0.
        mean over tokens: inside the activation factor, where the original's epsilon meets a mean over sequences.
    """
    base = {"sparsity": 0.5, "score": "clearcut", "scope": "row", "scale": "none", "group_size": 64}
    return base | {"low_rank_of": "pruned"}


#: The two levels of LS-PRISM's README, as sparsities.
LS_PRISM_LEVELS = {"conservative": 0.3, "aggressive": 0.5}


def ls_prism() -> dict[str, Any]:
    """LS-PRISM (AamirAyoub123/Optimization-and-Compression-of-LLMs-LS-PRISM-): Wanda on the MLP, SVD on attention.

    MLP: |W_ij| ||X_j||, the smallest of the whole matrix, 50 % ("aggressive"; "conservative" is 30 %: LS_PRISM_LEVELS).
    Attention: a truncated SVD with its singular values halved between the factors, and the rank of KMIF.

    Deviations:
        options work: the original's command line ignores its arguments and always prunes 50 %.
        rank: exact clusters and an own isolation forest instead of scikit-learn's (`kmif_rank`).
        reloadable: factors are a storage format, and sizes are those of its bytes (the original's modules cannot be
            loaded again, and it counts non-zeros).
        sequential: inputs of a block come from the compressed blocks before it (the original uses dense ones).
    """
    return {
        "sparsity": LS_PRISM_LEVELS["aggressive"],
        "score": "wanda",
        "scope": "matrix",
        "scale": "none",
        "group_size": 64,
        "low_rank": "kmif",
        "low_rank_of": "weight",
        "low_rank_targets": (r"re:(?:.*\.)?(?:self_attn|self_attention|attention|attn)\..*",),
    }


def three_tier() -> dict[str, Any]:
    """Three-tier pruning (Jiajun-Ji/wanda): of the 16x16 blocks of every matrix 35 % stay dense, 45 % become 2:4 and
    20 % keep their 10 largest weights, by Wanda's scores; about 42 % pruned. Lossless tiles, no rounding.

    This preset does it in one shot; `prism compress --method three-tier --schedule FILE` in iterations with training in
    between (`prism_llm.recovery.progressive`).

    Deviations:
        exact counts: blocks are counted by rounding decimals (the original's `int` of a float difference is a block
            short where 1.0 - 0.9 is).
        border: blocks at the border are those of the weight padded with zeros, so that 2:4 always lies along inputs
            (the original flattens the cut block).
        ties: exactly 2 of 4 and k of a block, the lower index pruned first (the original keeps ties).
    """
    return {"tiers": (0.35, 0.45, 0.20), "topk_per_block": 10, "score": "wanda", "scale": "none", "group_size": None}


PRESETS: dict[str, Callable[[], dict[str, Any]]] = {
    "sinq": sinq,
    "asinq": asinq,
    "magnitude": magnitude,
    "wanda": wanda,
    "ria": ria,
    "clearcut": clearcut,
    "sparsegpt": sparsegpt,
    "prism": prism,
    "ls-prism": ls_prism,
    "three-tier": three_tier,
}
