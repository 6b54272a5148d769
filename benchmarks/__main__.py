"""Entry point: `python -m benchmarks NAME … --json FILE`."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

NAMES = ("segment", "interactive", "latency", "supervised", "scribbles", "contrast", "ablation",
         "throughput", "tiling")  # fmt: skip


def main() -> int:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    chosen, rest = parser.parse_known_args(sys.argv[1:2])
    # Only the one: the latency benchmark plays the GUI process, which has no torch.
    module = importlib.import_module(f"benchmarks.{chosen.name}")
    command = argparse.ArgumentParser(
        prog=f"python -m benchmarks {chosen.name}", description=module.__doc__
    )
    command.add_argument("--json", type=Path, default=None, help="append results to this file")
    module.add_arguments(command)
    code: int = module.run(command.parse_args(rest + sys.argv[2:]))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
