"""A `Recipe` says what compression does to which modules; it is validated, frozen, and saved with every default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from ..lowrank import Rank
from ..pruning.masks import Pattern
from ..pruning.permutation import Permute
from ..pruning.tiers import TILE, tier_sparsity
from .presets import PRESETS

BITS = (2, 3, 4, 5, 6, 8)
CODEBOOK_BITS = {"nf4": 4, "nf3": 3}
_FOLDABLE = ("rms", "sinq", "prism")
_SWEEPS = ("obs_sweep", "least_squares")
DATA_FREE_SCORES = ("magnitude", "ri")
Score = Literal["magnitude", "wanda", "wanda_variant", "ri", "ria", "clearcut", "prism", "prism_masked", "sparsegpt"]


class Recipe(BaseModel):
    """What happens to the linears of a model.

    `method` names a preset (`prism_llm.pipeline.PRESETS`), which fills every field that is not given; "custom" fills
    them with the plain defaults below. `Recipe.from_preset("prism", sparsity=0.6)` and YAML files with a method and a
    few fields therefore mean the same.

    Attributes:
        format_version: of this schema.
        method: a preset, or "custom".
        sparsity: fraction of weights to prune, in [0, 1); 0 prunes nothing. An n:m pattern implies it. Counts are
            exact and rounded down in each unit (`prism_llm.pipeline.promise`): a row of 3 loses 1 at 50 %.
        pattern: "unstructured", or "n:m" with n KEPT of every m consecutive weights of a row.
        scope: unstructured counts hold per output "row", per "matrix", or "global": one threshold over all chosen
            linears, for the score "magnitude". The score "sparsegpt" has its own rule.
        permute: order of the input channels in which an n:m pattern is sought: "none", "heuristic" (RIA's reallocation)
            or "lsa" (linear sum assignment, from there; needs scipy). Made by the producing linears where they can,
            else by an index that is stored with the weight.
        ratios: "uniform", or "owl": blocks with more outliers stay denser (arXiv 2310.05175), and the mean over all
            chosen weights stays `sparsity`; experts that no token reached follow their block. Unstructured only.
        owl_threshold: M, times the mean score of a block: what is above is an outlier.
        owl_lambda: half the range of the blocks' sparsities.
        score: what ranks weights: "magnitude", "wanda", "wanda_variant" (shares of a row's sum, which imply the scope
            "matrix"), "ri", "ria", "clearcut", "prism" (its Sinkhorn factors with zeros inside, as the original),
            "prism_masked" (its factors over survivors), or "sparsegpt" (adaptive, inside the sweep).
        ria_exponent: of the input's norm in the scores "ria" and "clearcut".
        compensate: update of the kept weights: "none", "obs_one_shot" (PRISM), "obs_sweep" (SparseGPT; with any other
            score it reconstructs on that score's mask), or "least_squares" (the exact optimum on the mask; the sweep
            where calibration tokens are too few for it).
        bits: 2, 3, 4, 5, 6 or 8 per code; None = no quantization.
        group_size: columns per group scale; None = one group per row.
        codebook: "uniform", "nf4" (4 bits) or "nf3" (3 bits).
        scale: column scale: "none", "rms" (closed form), "sinq", "sinq_2d" (square tiles), "prism" or "asinq" (the
            best of 20 by the layer's outputs); over survivors where a mask is known. "sinq_with_zeros" counts pruned
            weights, to compare with.
        fold: fold column scales into the norms and linears that produce a linear's input, where that is exact (found
            from the dense weights); those linears then need no column scale.
        search_error: outputs' error that "asinq" minimizes: "l1" or "l2".
        round: "rtn" (after everything else), "hqq" (the same with better zeros) or "joint" (inside a sweep, which
            compensates rounding too; after "least_squares", a sweep over its solution).
        low_rank: factors b @ a of a weight: their rank (an integer), a share of the smaller side (a float in (0, 1]),
            or "kmif" (the rank from the spectrum, as LS-PRISM); None = none.
        low_rank_of: the "weight" itself, which is then neither pruned nor quantized; "pruned", what pruning left of it
            (ClearCut: the zeros are lost); or "residual", what pruning and quantization lost, added to the result.
        low_rank_targets: patterns, as `targets`, of those of the chosen linears that get factors.
        low_rank_weighting: the norm in which factors are best: "none" (of the weight) or "activations" (of the
            layer's outputs).
        percdamp: damping of the Hessian, relative to its mean diagonal.
        block_size: columns that the sweep handles at a time.
        max_tokens: statistics over the first so many tokens only; None = all.
        tiers: shares (dense, 2:4, top-k) of the blocks of every matrix, which sum to 1 (three-tier pruning; they imply
            `sparsity`), or None.
        topk_per_block: weights that a top-k block keeps.
        tier_block_size: side of a block, a multiple of 16.
        targets, ignore: names, last name parts, class names or "re:<regex>"; a pattern that matches nothing is an
            error. Only linears inside the decoder blocks are compressed.
        dataset: calibration text: a source of `prism_llm.data.load_text` or a file.
        num_calibration_samples: sequences.
        max_seq_length: tokens per sequence; the model's context bounds it.
        seed: of the choice of calibration sequences, the only random step.

    Raises:
        ValueError: (pydantic's ValidationError) naming field, rule and value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    method: str = "custom"
    sparsity: float = 0.0
    pattern: str = "unstructured"
    scope: Literal["row", "matrix", "global"] = "row"
    permute: Permute = "none"
    ratios: Literal["uniform", "owl"] = "uniform"
    owl_threshold: float = 5.0
    owl_lambda: float = 0.08
    score: Score = "wanda"
    ria_exponent: float = 0.5
    compensate: Literal["none", "obs_one_shot", "obs_sweep", "least_squares"] = "none"
    bits: int | None = None
    group_size: int | None = 64
    codebook: Literal["uniform", "nf4", "nf3"] = "uniform"
    scale: Literal["none", "rms", "sinq", "sinq_2d", "sinq_with_zeros", "prism", "asinq"] = "rms"
    fold: bool = False
    search_error: Literal["l1", "l2"] = "l1"
    round: Literal["rtn", "hqq", "joint"] = "rtn"
    low_rank: Rank | None = None
    low_rank_of: Literal["weight", "pruned", "residual"] = "weight"
    low_rank_targets: tuple[str, ...] = ("Linear",)
    low_rank_weighting: Literal["none", "activations"] = "none"
    percdamp: float = 0.01
    block_size: int = 128
    max_tokens: int | None = None
    tiers: tuple[float, float, float] | None = None
    topk_per_block: int = 10
    tier_block_size: int = TILE
    targets: tuple[str, ...] = ("Linear",)
    ignore: tuple[str, ...] = ("lm_head",)
    dataset: str = "stdlib"
    num_calibration_samples: int = 128
    max_seq_length: int = 2048
    seed: int = 0

    @classmethod
    def from_preset(cls, method: str, **changes: Any) -> Recipe:
        """The preset `method` with some fields changed; raises ValueError."""
        return cls(method=method, **changes)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Reads a YAML file; fields that it lacks are those of its `method`."""
        import yaml

        if not Path(path).is_file():
            raise FileNotFoundError(f"Recipe: {path} must be a YAML file, not found")
        try:
            values = yaml.safe_load(Path(path).read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"Recipe: {path} must be a YAML file, got: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"Recipe: {path} must hold a mapping of fields, got {type(values).__name__}")
        return cls(**values)

    def save(self, path: str | Path) -> None:
        """Writes a YAML file with every field."""
        import yaml

        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), "utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON values."""
        return self.model_dump(mode="json")

    def replace(self, **changes: Any) -> Recipe:
        """A validated copy with some fields changed; a new pattern, or new tiers, bring their own sparsity."""
        fields = self.to_dict()
        implying = {"pattern"}
        if "tiers" in changes or self.tiers is not None:
            implying |= {"tiers", "topk_per_block", "tier_block_size"}
        if implying & changes.keys() and "sparsity" not in changes:
            del fields["sparsity"]
        return type(self)(**(fields | changes))

    @property
    def prunes(self) -> bool:
        return self.sparsity > 0

    @property
    def ranking(self) -> str:
        """The score, and what is compared with what if not one matrix by itself: "global magnitude", "owl wanda"."""
        wide = ["global"] if self.scope == "global" else [] if self.ratios == "uniform" else [self.ratios]
        return " ".join([*wide, self.score])

    @property
    def compensates(self) -> bool:
        """Whether kept weights are updated."""
        return self.compensate != "none" and (self.prunes or self.round == "joint")

    @property
    def needs_gram(self) -> bool:
        """Whether X^T X of the inputs is needed."""
        weighted = self.low_rank is not None and self.low_rank_weighting == "activations"
        return self.compensates or (self.bits is not None and self.scale == "asinq") or weighted

    @property
    def needs_calibration(self) -> bool:
        """Whether any statistics of the inputs are needed; otherwise the recipe is data-free."""
        return self.needs_gram or (self.prunes and (self.score not in DATA_FREE_SCORES or self.ratios == "owl"))

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        method = values.get("method", "custom")
        if method == "custom":
            preset: dict[str, Any] = {}
        elif isinstance(method, str) and method in PRESETS:
            preset = PRESETS[method]()
        else:
            raise ValueError(f"Recipe: method must be one of {', '.join([*PRESETS, 'custom'])}, got {method!r}")
        filled = preset | dict(values)
        if "sparsity" not in values and filled.get("pattern", "unstructured") != "unstructured":
            filled["sparsity"] = Pattern.parse(filled["pattern"]).sparsity
        if "scope" not in values and filled.get("score") == "wanda_variant":
            filled["scope"] = "matrix"
        if "sparsity" not in values and _are_shares(filled.get("tiers")):
            side, top_k = filled.get("tier_block_size", TILE), filled.get("topk_per_block", 10)
            if side:  # a block without a side is refused below
                filled["sparsity"] = tier_sparsity(filled["tiers"], top_k, side)
        return filled

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        self._check_numbers()
        self._check_patterns()
        self._check_tiers()
        self._check_pruning()
        self._check_quantization()
        self._check_low_rank()
        asks = self.prunes or self.bits is not None or self.low_rank is not None
        _require(asks, "sparsity or bits", "ask for something", "sparsity=0, bits=None")
        return self

    def _check_numbers(self) -> None:
        _require(0 <= self.sparsity < 1, "sparsity", "be in [0, 1)", self.sparsity)
        _require(0 < self.percdamp < float("inf"), "percdamp", "be positive and finite", self.percdamp)
        exponent = self.ria_exponent
        _require(0 <= exponent < float("inf"), "ria_exponent", "be finite and not negative", exponent)
        threshold = self.owl_threshold
        _require(0 < threshold < float("inf"), "owl_threshold", "be positive and finite", threshold)
        _require(0 <= self.owl_lambda < 0.5, "owl_lambda", "be in [0, 0.5)", self.owl_lambda)
        for name in ("block_size", "num_calibration_samples", "max_seq_length"):
            _require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        _require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "be at least 1", self.max_tokens)

    def _check_patterns(self) -> None:
        for name in ("targets", "ignore", "low_rank_targets"):
            patterns = getattr(self, name)
            _require(bool(patterns) or name == "ignore", name, "name at least one pattern", patterns)
            for pattern in patterns:
                try:
                    re.compile(pattern.removeprefix("re:") if pattern.startswith("re:") else "")
                except re.error as error:
                    raise ValueError(
                        f"Recipe: {name} must hold regular expressions, got {pattern!r}: {error}"
                    ) from error

    def _check_pruning(self) -> None:
        pattern = Pattern.parse(self.pattern)
        if pattern.is_structured:
            implied = pattern.sparsity
            rule = f"be {implied:g}, which the pattern {self.pattern} implies"
            _require(abs(self.sparsity - implied) < 1e-9, "sparsity", rule, self.sparsity)
        if self.permute != "none" and self.prunes:
            _require(pattern.is_structured, "pattern", "be n:m for a permutation", self.pattern)
            fixed = "be known before the sweep for a permutation (wanda, ria, ...)"
            _require(self.score != "sparsegpt", "score", fixed, self.score)
            grouped = self.bits is not None and self.round == "joint" and self.group_size is not None
            rule = "be None for joint rounding with a permutation (groups would be swept in another order)"
            _require(not grouped, "group_size", rule, self.group_size)
        if self.ratios != "uniform":
            _require(not pattern.is_structured, "ratios", f"be uniform for the pattern {self.pattern}", self.ratios)
        if self.scope == "global" and self.prunes:
            _require(self.score == "magnitude", "score", "be magnitude for scope global", self.score)
            _require(not pattern.is_structured, "pattern", "be unstructured for scope global", self.pattern)
            _require(self.ratios == "uniform", "ratios", "be uniform for scope global", self.ratios)
        if self.score == "wanda_variant" and self.prunes:
            free = "be unstructured for score wanda_variant (n:m keeps the same weights by wanda)"
            _require(not pattern.is_structured, "pattern", free, self.pattern)
            _require(self.scope == "matrix", "scope", "be matrix for score wanda_variant", self.scope)
        if self.score == "sparsegpt" and self.prunes:
            rule = "be obs_sweep or least_squares for score sparsegpt"
            _require(self.compensate in _SWEEPS, "compensate", rule, self.compensate)
            fits = not pattern.is_structured or self.block_size % pattern.m == 0
            _require(fits, "block_size", f"be a multiple of m in the pattern {self.pattern}", self.block_size)

    def _check_quantization(self) -> None:
        if self.bits is not None:
            _require(self.bits in BITS, "bits", f"be one of {', '.join(map(str, BITS))} or None", self.bits)
            wanted = CODEBOOK_BITS.get(self.codebook, self.bits)
            _require(self.bits == wanted, "bits", f"be {wanted} for codebook {self.codebook}", self.bits)
        if self.round == "hqq" and self.bits is not None:
            _require(self.codebook == "uniform", "codebook", "be uniform for hqq rounding", self.codebook)
        if self.fold:
            _require(self.bits is not None, "fold", "be False where nothing is quantized", self.fold)
            rule = f"be one of {', '.join(_FOLDABLE)} with fold"
            _require(self.scale in _FOLDABLE, "scale", rule, self.scale)
        group_size = self.group_size
        _require(group_size is None or group_size >= 1, "group_size", "be at least 1 or None", group_size)
        if self.round == "joint" and self.bits is not None:
            rule = "be obs_sweep or least_squares for joint rounding"
            _require(self.compensate in _SWEEPS, "compensate", rule, self.compensate)
            _require(self.codebook == "uniform", "codebook", "be uniform for joint rounding", self.codebook)
            fits = group_size is None or self.block_size % group_size == 0
            rule = f"be a multiple of group_size {group_size} for joint rounding"
            _require(fits, "block_size", rule, self.block_size)

    def _check_low_rank(self) -> None:
        rank = self.low_rank
        if rank is None:
            return
        if rank != "kmif":
            fits = 0 < rank <= 1 if isinstance(rank, float) else rank >= 1
            _require(fits, "low_rank", 'be an integer >= 1, a share in (0, 1] or "kmif"', rank)
        _require(self.tiers is None, "low_rank", "be None with tiers", rank)
        part, compressed = self.low_rank_of, self.prunes or self.bits is not None
        _require(part != "pruned" or self.prunes, "low_rank_of", "be weight where nothing is pruned", part)
        rule = "be weight where nothing is pruned or quantized"
        _require(part != "residual" or compressed, "low_rank_of", rule, part)

    def _check_tiers(self) -> None:
        side, top_k = self.tier_block_size, self.topk_per_block
        rule = f"be a positive multiple of {TILE}, the side of the tiles in which weights are stored"
        _require(side >= TILE and side % TILE == 0, "tier_block_size", rule, side)
        _require(0 <= top_k <= side * side, "topk_per_block", f"be between 0 and {side * side}", top_k)
        if self.tiers is None:
            return
        fits = min(self.tiers) >= 0 and abs(sum(self.tiers) - 1) < 1e-9
        _require(fits, "tiers", "be three shares that sum to 1", self.tiers)
        implied = tier_sparsity(self.tiers, top_k, side)
        _require(abs(self.sparsity - implied) < 1e-9, "sparsity", f"be {implied:g}, which tiers imply", self.sparsity)
        _require(self.score in ("wanda", "magnitude"), "score", "be wanda or magnitude with tiers", self.score)
        fixed = {"pattern": "unstructured", "permute": "none", "ratios": "uniform", "compensate": "none", "bits": None}
        for name, wanted in fixed.items():
            _require(getattr(self, name) == wanted, name, f"be {wanted} with tiers", getattr(self, name))


def _are_shares(values: object) -> bool:
    """Whether `values` are three numbers; what else is wrong with them is said after the fields are typed."""
    if not isinstance(values, list | tuple) or len(values) != 3:
        return False
    return all(isinstance(share, int | float) for share in values)


def as_recipe(recipe: Recipe | str | Mapping[str, Any], **changes: Any) -> Recipe:
    """A recipe from a recipe, the name of a preset, or a mapping of fields, with some fields changed."""
    if isinstance(recipe, Recipe):
        return recipe.replace(**changes) if changes else recipe
    if isinstance(recipe, str):
        return Recipe.from_preset(recipe, **changes)
    if isinstance(recipe, Mapping):
        return Recipe(**(dict(recipe) | changes))
    raise TypeError(f"Recipe: recipe must be a Recipe, a preset's name or a mapping, got {type(recipe).__name__}")


def _require(condition: bool, field: str, rule: str, got: object) -> None:
    if not condition:
        raise ValueError(f"Recipe: {field} must {rule}, got {got}")
