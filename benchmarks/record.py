"""Results as lines of JSON: appended one unit of work at a time, skipped when already there."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari_msseg
from napari_msseg.scheduling import usable_processors

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "numpy", "scikit-image", "scikit-learn", "napari",
            "monai", "segmentation-models-pytorch")  # fmt: skip

RESULTS = "benchmarks/results"
COMMIT = "NAPARI_MSSEG_COMMIT"
"""Environment variable that says which commit a copy without a repository is of."""


def commit() -> str:
    """Return the commit of the working tree, marked where files differ from it.

    Results themselves do not count: they differ as soon as there is one.
    """
    described = _git("describe", "--always", "--abbrev=12", "--exclude=*")
    if not described:
        return os.environ.get(COMMIT, "")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":!/{RESULTS}")
    return described + "-dirty" * bool(changed)


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def digest(modules: tuple[str, ...]) -> str:
    """Return a fingerprint of modules: results outlive commits that spare them.

    Names stand for modules of the package, those that begin with ``benchmarks.`` for ours.
    """
    paths = [Path(f"{name.replace('.', '/')}.py") for name in modules]
    homes = {True: Path(__file__).parents[1], False: Path(napari_msseg.__file__).parent}
    files = [homes[path.parts[0] == "benchmarks"] / path for path in paths]
    sources = (ast.dump(_meaning(ast.parse(file.read_text()))) for file in files)
    return hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]


def _meaning(module: ast.Module) -> ast.Module:
    """Leave out what does not change a result: documentation, and where things come from.

    What an imported thing is stands in the module that holds it.
    """
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [x for x in node.body if not _is_words(x)]
    return module


def _is_words(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.Import | ast.ImportFrom)


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, Python and package versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "cpu": model,
        "cores": len(usable_processors()),
        "python": platform.python_version(),
        **versions,
    }


def on_device(device: torch.device) -> dict[str, str]:
    """Return what the rows of a device other than the processor are told apart by."""
    if device.type == "cpu":
        return {}
    from napari_msseg.devices import describe  # torch has no place in a window that is measured

    return {"device": describe(device)}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Record:
    """A file of results.

    Parameters
    ----------
    path : Path or None
        JSON lines; None keeps nothing.
    configuration : dict
        What, beside the item, a result depends on.
    code : str, optional
        `digest` of what a result depends on. Default: the commit, so every change counts.
    """

    path: Path | None
    configuration: dict[str, Any]
    code: str | None = None

    def find(self, **unit: Any) -> dict[str, Any] | None:
        """Return the result of this unit of work with this code, if it was done before."""
        if self.path is None or not self.path.exists():
            return None
        key = self._key(unit)
        for line in self.path.read_text().splitlines():
            entry: dict[str, Any] = json.loads(line)
            if all(entry.get(k) == v for k, v in key.items()):
                return entry
        return None

    def append(self, unit: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        """Write one result and return its whole line."""
        command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
        about = {"machine": machine(), "command": command}
        entry = {**self._key(unit), "commit": commit(), **result, **about}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        return entry

    def _key(self, unit: dict[str, Any]) -> dict[str, Any]:
        code = {"commit": commit()} if self.code is None else {"code": self.code}
        entry = {**code, "configuration": self.configuration, **unit}
        plain: dict[str, Any] = json.loads(json.dumps(entry))  # tuples become lists, as on file
        return plain
