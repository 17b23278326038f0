"""Times contenders on a GPU: CUDA graphs over rotated weights, replayed in turns, timed by device events.

One graph holds at least `_CALLS` calls of a contender, each on the next copy of its weight, so that launches cost what
they cost inside a captured model and no weight is found in the cache. What a contender computes inside its calls
(decoding, column scales, activation rounding) is all timed.
"""

import gc
from collections.abc import Sequence
from typing import Any

import torch

from .harness import Contender

_CALLS = 24
_WARM_UP = 3
#: Replays are repeated until one timing has run so long: events tick in half microseconds.
_SHORTEST_MS = 0.5


def capture(contender: Contender) -> tuple[Any, int]:
    """A graph of the contender's calls, and how many there are."""
    count = -(-_CALLS // len(contender.calls)) * len(contender.calls)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # lazy initialization, autotuning and compilation happen here, not in the graph
        for _ in range(_WARM_UP):
            contender.calls[0]()
        contender.calls[-1]()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(count):
            contender.calls[index % len(contender.calls)]()
    return graph, count


def _replay_ms(graph: Any, replays: int) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / replays


def _eager_ms(contender: Contender, index: int) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    contender.calls[index % len(contender.calls)]()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def race_graphs(racing: Sequence[Contender], rounds: int, budget_s: float) -> dict[str, list[float]]:
    """Seconds of one call, `rounds` of them for each contender, in turns; `eager` contenders run without a graph."""
    share_ms = 1e3 * budget_s / max(len(racing), 1)
    graphs: dict[str, tuple[Any, int]] = {c.name: capture(c) for c in racing if not c.eager}
    replays, wanted = {}, {}
    for contender in racing:
        if contender.eager:
            contender.calls[0]()
            once = _eager_ms(contender, 0)
        else:
            graph = graphs[contender.name][0]
            _replay_ms(graph, 1)
            once = _replay_ms(graph, 1)
            replays[contender.name] = max(1, int(_SHORTEST_MS / max(once, 1e-6)))
            once *= replays[contender.name]
        wanted[contender.name] = min(rounds, max(3, int(share_ms / max(once, 1e-6))))
    times: dict[str, list[float]] = {c.name: [] for c in racing}
    gc.collect()
    for index in range(rounds):
        for contender in racing:
            own = times[contender.name]
            if len(own) > index * wanted[contender.name] // rounds:
                continue
            if contender.eager:
                own.append(_eager_ms(contender, len(own)) / 1e3)
            else:
                graph, count = graphs[contender.name]
                own.append(_replay_ms(graph, replays[contender.name]) / count / 1e3)
    del graphs
    torch.cuda.synchronize()
    return times
