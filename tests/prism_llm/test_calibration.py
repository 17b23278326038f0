"""Statistics: exact sums, shared inputs found, nothing disturbed, and no silent emptiness."""

import pytest
import torch
from tiny_models import tiny_model, tokens
from torch import nn

from prism_llm.calibration import CalibrationError, InputStatistics, StatisticsCollector
from prism_llm.models import DecoderAdapter


def block_linears(adapter, index=0):
    return {name: m for name, m in adapter.blocks[index].named_modules() if isinstance(m, nn.Linear)}


def collect(adapter, batches, index=0, **options):
    captured = adapter.capture(batches)
    collector = StatisticsCollector(block_linears(adapter, index), **options)
    forwards = [
        lambda h=h, c=c: adapter.run_block(index, h, c[index])
        for h, c in zip(captured.hidden, captured.calls, strict=True)
    ]
    return collector, collector.run(forwards)


def test_sums_are_exact(generator):
    x = torch.randn(3, 5, 7, generator=generator)
    statistics = InputStatistics(7, hessian=True)
    for part in x.to(torch.bfloat16).split(1):
        statistics.add(part)
    rows = x.to(torch.bfloat16).double().reshape(-1, 7)
    assert statistics.tokens == 15
    torch.testing.assert_close(statistics.sum_squares, rows.square().sum(0), rtol=1e-7, atol=0)
    torch.testing.assert_close(statistics.gram.double(), rows.T @ rows, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(statistics.norms, rows.norm(dim=0).float())


def test_max_tokens_takes_the_first(generator):
    x = torch.randn(4, 6, 5, generator=generator)
    statistics = InputStatistics(5, hessian=True, max_tokens=10)
    for part in x:
        statistics.add(part)
    rows = x.reshape(-1, 5)[:10]
    assert statistics.tokens == 10
    torch.testing.assert_close(statistics.gram, rows.T @ rows)


def test_linears_with_one_input_share_statistics():
    adapter = DecoderAdapter(tiny_model("llama"))
    collector, statistics = collect(adapter, tokens(4, 16).split(2), hessian=True)
    assert [[name.rsplit(".", 1)[-1] for name in group] for group in collector.groups()] == [
        ["q_proj", "k_proj", "v_proj"],
        ["o_proj"],
        ["gate_proj", "up_proj"],
        ["down_proj"],
    ]
    assert statistics["self_attn.q_proj"] is statistics["self_attn.v_proj"]
    assert len({id(s) for s in statistics.values()}) == 4
    assert all(s.tokens == 64 for s in statistics.values())


@pytest.mark.parametrize("architecture", ["llama", "opt", "qwen3", "gemma3"])
def test_statistics_do_not_depend_on_the_batch_size(architecture):
    ids = tokens(6, 24)
    adapter = DecoderAdapter(tiny_model(architecture))
    for index in (0, 1):
        results = [collect(adapter, ids.split(size), index, hessian=True)[1] for size in (1, 2, 6)]
        for other in results[1:]:
            for name, expected in results[0].items():
                torch.testing.assert_close(other[name].sum_squares, expected.sum_squares, rtol=1e-5, atol=1e-7)
                torch.testing.assert_close(other[name].gram, expected.gram, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_a_hooked_forward_equals_an_unhooked_one_bitwise(architecture):
    adapter = DecoderAdapter(tiny_model(architecture))
    captured = adapter.capture([tokens(2, 16)])
    hidden, call = captured.hidden[0], captured.calls[0][0]
    plain = adapter.run_block(0, hidden, call)
    outputs = []
    StatisticsCollector(block_linears(adapter), hessian=True).run(
        [lambda: outputs.append(adapter.run_block(0, hidden, call))]
    )
    assert torch.equal(outputs[0], plain)
    assert torch.equal(adapter.run_block(0, hidden, call), plain)
    assert all(not linear._forward_pre_hooks for linear in block_linears(adapter).values())


class TwoLinears(nn.Module):
    def __init__(self, share):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
        self.share = share

    def forward(self, x, batch):
        return self.a(x) + self.b(x if self.share(batch) else x.clone())


def run_two(share, batches=2, **options):
    model = TwoLinears(share)
    collector = StatisticsCollector({"a": model.a, "b": model.b}, **options)
    forwards = [lambda i=i: model(torch.ones(2, 4) * (i + 1), i) for i in range(batches)]
    return collector, collector.run(forwards)


def test_equal_values_in_different_tensors_are_not_shared():
    _, statistics = run_two(lambda batch: False)
    assert statistics["a"] is not statistics["b"]
    assert torch.equal(statistics["a"].sum_squares, statistics["b"].sum_squares)


def test_a_reused_address_is_not_a_shared_input():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.b(self.a(x * 2) * 3)

    model = Chain()
    collector = StatisticsCollector({"a": model.a, "b": model.b})
    collector.run([lambda: model(torch.ones(2, 4))] * 3)
    assert collector.groups() == [["a"], ["b"]]


def test_an_input_changed_in_place_is_not_shared():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            out = self.a(x)
            x.mul_(2)
            return out + self.b(x)

    model = InPlace()
    statistics = StatisticsCollector({"a": model.a, "b": model.b}).run([lambda: model(torch.ones(2, 4))])
    assert statistics["b"].sum_squares[0] == 4 * statistics["a"].sum_squares[0]


def test_sharing_that_stops_is_an_error():
    with pytest.raises(RuntimeError, match="b must read the input of a in every batch"):
        run_two(lambda batch: batch == 0)


def test_a_linear_that_starts_late_has_its_own_statistics():
    class Expert(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x, batch):
            return self.a(x), self.b(x if batch else x[:0])

    model = Expert()
    collector = StatisticsCollector({"a": model.a, "b": model.b})
    statistics = collector.run([lambda i=i: model(torch.ones(2, 4), i) for i in range(3)])
    assert (statistics["a"].tokens, statistics["b"].tokens) == (6, 4)


def test_a_linear_without_tokens_is_named():
    model = TwoLinears(lambda batch: True)
    collector = StatisticsCollector({"model.a": model.a, "model.b": model.b})
    with pytest.raises(CalibrationError, match=r"calibration never reached model\.b: it saw 0 tokens"):
        collector.run([lambda: model.a(torch.ones(2, 4))])
    with pytest.raises(CalibrationError, match=r"calibration never reached model\.b"):
        StatisticsCollector({"model.b": model.b}).run([lambda: model.b(torch.ones(0, 4))])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_values_that_are_not_finite_are_named(value):
    model = TwoLinears(lambda batch: True)
    inputs = torch.ones(2, 4)
    inputs[1, 2] = value
    with pytest.raises(CalibrationError, match=r"calibration of a: activations must be finite, got .* at input 2"):
        StatisticsCollector({"a": model.a}).run([lambda: model.a(inputs)])
