"""Every score and mask against an oracle in Python floats (float64), on 200 small matrices each: equal masks.

The matrices are full of what breaks scores: equal weights, rows and columns of zeros, inputs that never fire, widths
that no pattern divides. Scores are compared in float32 by contract, so an oracle rounds its float64 score once.
"""

import math
import random

import pytest
import torch
from small_matrices import counted

from prism_llm.calibration import InputStatistics
from prism_llm.pipeline.recipe import Recipe
from prism_llm.pipeline.selection import choose_mask
from prism_llm.pruning import HessianSolver, Pattern, obs_sweep, select_mask, wanda_variant_score

CASES = 200
PATTERNS = ("1:4", "2:4", "3:4", "4:8", "2:3", "5:7", "1:2")


def cases(seed, count=CASES, smallest=1):
    """(weight [n, k], statistics of its inputs, a random generator)."""
    for case in range(count):
        draw = random.Random(f"{seed}-{case}")
        generator = torch.Generator().manual_seed(draw.randrange(2**31))
        n, k = draw.randint(smallest, 9), draw.randint(smallest, 25)
        weight, x = torch.randn(n, k, generator=generator), torch.randn(17, k, generator=generator)
        if draw.random() < 0.5:
            weight = (weight * 2).round() / 2  # many ties and zeros
        if draw.random() < 0.5:
            x = x.sign() * draw.choice([0.5, 1.0, 3.0])  # equal norms
        if draw.random() < 0.4:
            weight[draw.randrange(n)] = 0
        if draw.random() < 0.4:
            weight[:, draw.randrange(k)] = 0
        if draw.random() < 0.4:
            x[:, draw.randrange(k)] = 0
        if draw.random() < 0.3:
            weight[:, draw.randrange(k)] = weight[:, draw.randrange(k)]
        statistics = InputStatistics(k, hessian=True)
        statistics.add(x)
        yield weight, statistics, draw


def single(value: float) -> float:
    """The value in float32."""
    return torch.tensor(value, dtype=torch.float64).float().item()


def prune_smallest(scores: dict, count: int, into: set) -> None:
    """Adds the `count` smallest of {position: score} to `into`; among equals the lower position goes first."""
    into |= set(sorted(scores, key=lambda position: (scores[position], position))[:count])


def oracle_mask(score: list[list[float]], recipe: Recipe) -> torch.Tensor:
    n, k = len(score), len(score[0])
    rounded = {(i, j): single(score[i][j]) for i in range(n) for j in range(k)}
    pruned: set = set()
    if recipe.pattern != "unstructured":
        keep, m = map(int, recipe.pattern.split(":"))
        for i in range(n):
            for begin in range(0, k, m):
                group = {(i, j): rounded[i, j] for j in range(begin, min(begin + m, k))}
                prune_smallest(group, len(group) - math.ceil(keep * len(group) / m), pruned)
    elif recipe.scope == "row":
        for i in range(n):
            prune_smallest({(i, j): rounded[i, j] for j in range(k)}, counted(k, recipe.sparsity), pruned)
    else:
        prune_smallest(rounded, counted(n * k, recipe.sparsity), pruned)
    return torch.tensor([[(i, j) not in pruned for j in range(k)] for i in range(n)])


def divided(value: float, by: float) -> float:
    return value / by if by else 0.0


def oracle_score(method: str, weight: torch.Tensor, statistics: InputStatistics, exponent: float) -> list[list[float]]:
    w = [[abs(value) for value in row] for row in weight.tolist()]
    norms, tokens = statistics.norms.tolist(), statistics.tokens
    squares = [value / tokens for value in statistics.sum_squares.tolist()]
    rows, columns = [math.fsum(row) for row in w], [math.fsum(column) for column in zip(*w, strict=True)]

    def one(i: int, j: int) -> float:
        value = w[i][j]
        if method == "magnitude":
            return value
        if method == "wanda":
            return value * norms[j]
        if method == "ri":
            return divided(value, columns[j]) + divided(value, rows[i])
        if method == "ria":
            return (divided(value, columns[j]) + divided(value, rows[i])) * norms[j] ** exponent
        row, column = rows[i] + 1e-8, columns[j] + 1e-8
        interaction = 0.1 * value * value / (row * column)
        return (value / column + value / row + interaction) * math.sqrt(squares[j] + 1e-8) ** exponent

    return [[one(i, j) for j in range(len(norms))] for i in range(len(w))]


@pytest.mark.parametrize("method", ["magnitude", "wanda", "ri", "ria", "clearcut"])
def test_scores_and_patterns(method, monkeypatch):
    for weight, statistics, draw in cases(method):
        pattern = draw.choice(["unstructured", "unstructured", *PATTERNS])
        implied = {} if pattern != "unstructured" else {"sparsity": draw.choice([0.1, 0.29, 0.5, 0.7, 0.95])}
        exponent = draw.choice([0.0, 0.5, 1.0])
        scope = draw.choice(["row", "matrix"])
        monkeypatch.setattr("prism_llm.pruning.scores._CHUNK_ELEMENTS", draw.choice([1, 40, 1 << 17]))
        recipe = Recipe(score=method, pattern=pattern, scope=scope, ria_exponent=exponent, **implied)
        expected = oracle_mask(oracle_score(method, weight, statistics, exponent), recipe)
        assert torch.equal(choose_mask(weight, recipe, statistics).mask, expected), recipe


def test_clearcut_is_ria_by_row_but_for_near_ties(generator):
    weight, x = torch.randn(64, 128, generator=generator), torch.randn(40, 128, generator=generator)
    statistics = InputStatistics(128, hessian=False)
    statistics.add(x)
    clearcut = choose_mask(weight, Recipe.from_preset("clearcut"), statistics).mask
    ria = choose_mask(weight, Recipe.from_preset("ria", scope="row"), statistics).mask
    assert float((clearcut != ria).float().mean()) < 2e-3


def wanda_shares(weight, norms):
    """Per row: the share of the summed score that each weight and all smaller ones hold."""
    shares = []
    for row in weight.tolist():
        score = [single(abs(w) * norm) for w, norm in zip(row, norms, strict=True)]
        total, done, share = math.fsum(score), 0.0, [0.0] * len(row)
        for j in sorted(range(len(row)), key=lambda j: (score[j], j)):
            done += score[j]
            share[j] = divided(done, total)
        shares.append(share)
    return shares


def test_wanda_variant():
    for weight, statistics, draw in cases("variant"):
        recipe = Recipe(score="wanda_variant", sparsity=draw.choice([0.1, 0.5, 0.8]))
        expected = oracle_mask(wanda_shares(weight, statistics.norms.tolist()), recipe)
        assert torch.equal(choose_mask(weight, recipe, statistics).mask, expected)


def test_wanda_variant_holds_every_mask_of_the_original_search():
    """The source's search over alpha, as published: whatever sparsity it ends with, ours is the same mask."""
    searched = 0
    for seed in range(CASES):
        generator = torch.Generator().manual_seed(seed)
        metric = torch.rand(8, 40, generator=generator, dtype=torch.float64)
        ordered, target = metric.sort(dim=1).values, 0.3 + 0.4 * seed / CASES

        def masked(alpha, ordered=ordered, metric=metric):
            below = ordered.cumsum(1) <= metric.sum(1, keepdim=True) * alpha
            counts = below.sum(1, keepdim=True)
            threshold = torch.where(counts > 0, ordered.gather(1, (counts - 1).clamp(min=0)), -1.0)
            return metric <= threshold

        alpha, low, high = 0.4, 0.0, 0.8
        pruned = masked(alpha)
        while abs(float(pruned.double().mean()) - target) > 0.001 and high - low >= 0.001:
            if float(pruned.double().mean()) > target:
                alpha, high = (alpha + low) / 2, alpha
            else:
                alpha, low = (alpha + high) / 2, alpha
            pruned = masked(alpha)
        score = wanda_variant_score(metric.float(), torch.ones(40))
        ours = ~select_mask(score, Pattern(), 0.0, "matrix", int(pruned.sum()))
        searched += torch.equal(ours, pruned)
    assert searched == CASES


class Undecided(Exception):
    """Two scores at the threshold differ by less than float32 can tell after an iteration."""


def decided_mask(score, counts_by_group):
    """Prunes by {group of positions: count} and raises where the order of different scores is in doubt."""
    pruned: set = set()
    for group, count in counts_by_group:
        ordered = sorted(group, key=lambda p: (score[p], p))
        if 0 < count < len(ordered):
            below, above = score[ordered[count - 1]], score[ordered[count]]
            if below != above and above - below < 1e-4 * abs(above):
                raise Undecided
            if below == above and below != 0:
                raise Undecided  # equal by its formula, but rounded on the way
        pruned |= set(ordered[:count])
    return pruned


def spread(values):
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def sinq_oracle(matrix, rows, columns):
    """SINQ's factors of a list of lists over the given rows and columns, zeros included. Lines whose entries are all
    equal have no spread to even out: they keep factor 1 and are left out of target and imbalance."""
    clip = lambda v, low, high: min(max(v, low), high)  # noqa: E731
    log_c, log_r = dict.fromkeys(columns, 0.0), dict.fromkeys(rows, 0.0)
    live_c = [j for j in columns if len({matrix[i][j] for i in rows}) > 1]
    live_r = [i for i in rows if len({matrix[i][j] for j in columns}) > 1]
    if not live_c and not live_r:
        return {}, {}

    def spreads():
        scaled = {(i, j): matrix[i][j] / math.exp(log_c[j] + log_r[i]) for i in rows for j in columns}
        by_column = {j: spread([scaled[i, j] for i in rows]) for j in live_c}
        return by_column, {i: spread([scaled[i, j] for j in columns]) for i in live_r}

    first_c, first_r = spreads()
    target = min(clip(v, 1e-3, 1e3) for v in (*first_c.values(), *first_r.values())) + 1e-6
    best, lowest, closed = None, math.inf, False
    for _ in range(16):
        by_column, by_row = spreads()
        all_spreads = (*by_column.values(), *by_row.values())
        imbalance = max(all_spreads) / max(min(all_spreads), 1e-12)
        if math.isfinite(lowest) and abs(imbalance - lowest) < 1e-5 * lowest:
            raise Undecided  # whether the iteration ends here depends on rounding
        if imbalance <= lowest:
            best, lowest = (dict(log_c), dict(log_r)), imbalance
        else:
            closed = True
        if not closed:
            for logs, found in ((log_c, by_column), (log_r, by_row)):
                for line, value in found.items():
                    step = math.log(clip(clip(value, 1e-3, 1e3) / target, 0.7, 2.0))
                    logs[line] = clip(logs[line] + step, -0.3, 10)
    return {j: math.exp(v) for j, v in best[0].items()}, {i: math.exp(v) for i, v in best[1].items()}


def masked_oracle(matrix, kept):
    """PRISM's sparse-aware factors: row, then column, by the spread of the survivors about their mean."""
    n, k = len(matrix), len(matrix[0])
    log_c, log_r = [0.0] * k, [0.0] * n

    def deviation(values):
        mean = math.fsum(values) / len(values)
        return math.sqrt(max(math.fsum(v * v for v in values) / len(values) - mean * mean, 1e-8))

    for _ in range(16):
        for i in range(n):
            line = [matrix[i][j] / math.exp(log_c[j] + log_r[i]) for j in range(k) if kept[i][j]]
            if line:
                log_r[i] = min(max(log_r[i] + math.log(deviation(line)), -10), 10)
        for j in range(k):
            line = [matrix[i][j] / math.exp(log_c[j] + log_r[i]) for i in range(n) if kept[i][j]]
            if line:
                log_c[j] = min(max(log_c[j] + math.log(deviation(line)), -10), 10)
    return dict(enumerate(map(math.exp, log_c))), dict(enumerate(map(math.exp, log_r)))


def prism_oracle(weight, norms, sparsity, factors):
    w, (n, k) = weight.tolist(), weight.shape
    kept = [[value != 0 for value in row] for row in w]
    for _ in range(2):
        masked = [[w[i][j] if kept[i][j] else 0.0 for j in range(k)] for i in range(n)]
        if factors == "sinq":
            rows = [i for i in range(n) if any(kept[i])]
            columns = [j for j in range(k) if any(kept[i][j] for i in range(n))]
            column, row = sinq_oracle(masked, rows, columns) if rows else ({}, {})
        else:
            column, row = masked_oracle(masked, kept)
        score = {
            (i, j): abs(w[i][j]) * norms[j] / (column.get(j, 1.0) * row.get(i, 1.0) + 1e-6)
            for i in range(n)
            for j in range(k)
        }
        pruned = decided_mask(score, [(list(score), counted(n * k, sparsity))])
        kept = [[(i, j) not in pruned for j in range(k)] for i in range(n)]
    return torch.tensor(kept)


@pytest.mark.parametrize("score", ["prism", "prism_masked"])
def test_prism(score):
    decided = 0
    for weight, statistics, draw in cases(score, 400, smallest=4):
        sparsity = draw.choice([0.2, 0.35, 0.5])
        recipe = Recipe(score=score, sparsity=sparsity, scope="matrix")
        try:
            expected = prism_oracle(weight, statistics.norms.tolist(), sparsity, "sinq" if score == "prism" else "")
        except Undecided:
            continue
        decided += 1
        assert torch.equal(choose_mask(weight, recipe, statistics).mask, expected)
        if decided == CASES:
            return
    pytest.fail(f"only {decided} of the cases are decided")


def sweep_oracle(weight, factor, pattern, sparsity, block):
    """SparseGPT's adaptive mask in float64, column by column."""
    w, u, (n, k) = weight.double(), factor.double(), weight.shape
    pruned: set = set()
    for begin in range(0, k, block):
        stop = min(begin + block, k)
        for j in range(begin, stop):
            if j == begin if not pattern.is_structured else (j - begin) % pattern.m == 0:
                end = stop if not pattern.is_structured else min(j + pattern.m, stop)
                scores = (w[:, j:end] / u.diagonal()[j:end]) ** 2
                at = {(i, c): scores[i, c - j].item() for i in range(n) for c in range(j, end)}
                if pattern.is_structured:
                    count = end - j - math.ceil(pattern.n * (end - j) / pattern.m)
                    groups = [([(i, c) for c in range(j, end)], count) for i in range(n)]
                else:
                    groups = [(list(at), counted(len(at), sparsity))]
                pruned |= decided_mask(at, groups)
            error = (
                torch.tensor([w[i, j] if (i, j) in pruned else 0.0 for i in range(n)], dtype=torch.float64) / u[j, j]
            )
            w[:, j:] -= torch.outer(error, u[j, j:])
    return torch.tensor([[(i, j) not in pruned for j in range(k)] for i in range(n)])


def test_sparsegpt():
    decided = 0
    for weight, statistics, draw in cases("sparsegpt", 400):
        solver = HessianSolver(statistics)
        living = torch.where(solver.dead_inputs(), 0.0, weight)
        text = draw.choice(["unstructured", "1:4", "2:4", "4:8", "3:4"])
        pattern, sparsity = Pattern.parse(text), draw.choice([0.3, 0.5, 0.7])
        block = draw.choice([8, 16])
        try:
            expected = sweep_oracle(living, solver.sweep_factor().full(symmetric=False), pattern, sparsity, block)
        except Undecided:
            continue
        decided += 1
        ours = obs_sweep(living, solver.sweep_factor(), pattern=pattern, sparsity=sparsity, block_size=block)
        assert torch.equal(ours.mask, expected), (text, sparsity, block)
        if decided == CASES:
            return
    pytest.fail(f"only {decided} of the cases are decided")


def test_an_exact_count_is_kept_by_row_too():
    for weight, statistics, draw in cases("counts"):
        recipe = Recipe(score="wanda", sparsity=0.5)
        n, k = weight.shape
        count = draw.randint(0, n * k)
        mask = choose_mask(weight, recipe, statistics, count).mask
        each, more = divmod(count, n)
        rows = (~mask).sum(1).tolist()
        assert sum(rows) == count and sorted(set(rows)) in ([each], [each + 1], [each, each + 1])
        # A row that gives one more than the others gives a score that is no larger than what they would give next.
        score = weight.abs() * statistics.norms
        base = select_mask(score, Pattern(), 0.0, "row", n * each)
        nexts = torch.where(base, score, torch.inf).amin(1)
        chosen = torch.tensor(rows) > each
        if more:
            assert float(nexts[chosen].max()) <= float(nexts[~chosen].min())
