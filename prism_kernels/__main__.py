"""`python -m prism_kernels`: what serves each op on this machine, and the facts a bug report needs."""

import argparse
import json
import sys
from dataclasses import asdict

import torch

from . import __version__, dispatch, huge_pages
from ._extension import STATUS, host


def environment() -> dict:
    build = host.build_info() if host else {}
    return {
        "prism_kernels": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_isa": dispatch.cpu_isa(),
        "supported_isas": host.supported_isas() if host else [],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "libraries": dict(STATUS),
        "huge_pages": huge_pages.status(),
        "build": build,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m prism_kernels", description=__doc__)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    as_json = parser.parse_args().json
    facts, rows = environment(), dispatch.explain()
    if as_json:
        json.dump(facts | {"ops": [asdict(row) for row in rows]}, sys.stdout, indent=2)
        print()
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for key, value in facts.items():
        console.print(f"{key:>15}: {value}", highlight=False)
    table = Table("op", "device", "served by", "why")
    for row in rows:
        table.add_row(row.op, row.device, row.backend, row.reason)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
