"""`python -m bench.gpu_backends FOLDER`: writes `gpu_backends` of crossovers.json from results of `bench.gpu`.

Where a compiled kernel and the Triton kernel of an op ran in the same cases, the one that is faster in the geometric
mean serves from then on; Triton has to win by MARGIN, and a Triton kernel that was refused in a case loses. Cases in
which the dispatcher decoded and called a dense product say nothing about kernels. An op that was not measured keeps its
entry.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from .crossovers import TABLE
from .targets import ON_TRITON

HERE = Path(__file__).parent
MARGIN = 1.05


def ratios(results: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Time of the compiled kernel over Triton's, by op, in every case that has both; 0 where Triton's was refused."""
    found = defaultdict(list)
    for result in results:
        rows = {(row["contender"], json.dumps(row["problem"], sort_keys=True)): row for row in result["rows"]}
        for (name, problem), row in rows.items():
            beside = rows.get((name + ON_TRITON, problem))
            fused = row["served_by"].startswith("CUDA C++") and "GEMM" not in row["served_by"]
            if beside is not None and fused and not row["error"]:
                found[row["op"]].append(0.0 if beside["error"] else row["median_ms"] / beside["median_ms"])
    return dict(found)


def choose(found: Mapping[str, list[float]]) -> dict[str, str]:
    """ "triton" or "cuda" by op."""
    return {op: "triton" if min(r) > 0 and geometric_mean(r) > MARGIN else "cuda" for op, r in found.items()}


def main(folder: Path) -> int:
    results = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    found = ratios(result for result in results if "rows" in result)
    table = json.loads(TABLE.read_text("utf-8"))
    table["gpu_backends"] |= choose(found)
    TABLE.write_text(json.dumps(table, indent=2) + "\n", "utf-8")
    for op, values in found.items():
        print(
            f"{op:<28} {table['gpu_backends'][op]:<7} Triton {min(values):.2f} to {max(values):.2f} of CUDA C++'s speed"
        )
    return 0 if found else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bench.gpu_backends bench/results/<device>")
    sys.exit(main(Path(sys.argv[1])))
