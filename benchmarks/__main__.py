"""Entry point: `python -m benchmarks NAME … --json FILE`."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

NAMES = ("segment", "latency")


def main() -> int:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in NAMES
               if Path(__file__).with_name(f"{name}.py").exists()}
    for name, module in modules.items():
        command = commands.add_parser(name, help=module.__doc__)
        command.add_argument("--json", type=Path, default=None, help="append results here")
        module.add_arguments(command)
    options = parser.parse_args()
    code: int = modules[options.name].run(options)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
