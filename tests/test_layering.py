"""Imports run downwards only, and the GUI process never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import napari_msseg

PACKAGE = "napari_msseg"
ROOT = Path(napari_msseg.__file__).parent
GUI = {"napari", "qtpy", "magicgui", "superqt", "pyqtgraph", "PyQt5", "PyQt6", "PySide2", "PySide6"}
TENSORS = {
    "model",
    "grid",
    "convolutions",
    "losses",
    "contrast",
    "objectives",
    "scribble2label",
    "scribble_objective",
    "scribbled",
    "trainer",
    "session",
    "checkpoint",
    "devices",
    "resources",
    "segmentation",
    "sampling",
    "tiling",
    "pseudo_labels",
    "augmentation",
    "averaging",
    "explain",
    "insight",
    "fused",
    "labelled",
    "prediction",
    "supervised",
    "training",
    "training_state",
}
BOTTOM = {"config", "volume", "scribbles", "events", "commands", "classes", "errors", "mailbox"}

KEEPING = {"saved_session", "autosave", "kept_folders"}
"""Files of the GUI process."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
CORE = [m for m in MODULES if not m.startswith(f"{PACKAGE}._napari") and "__main__" not in m]


def imports(module: str) -> set[str]:
    """Every name that a module imports anywhere in it; ``from a import b`` counts as a.b."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(module: str) -> set[str]:
    """Modules of this package that a module imports."""
    return {known(name) for name in imports(module)} - {"", PACKAGE}


def known(name: str) -> str:
    """Return the module of this package that a dotted name lies in, or nothing."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def reached(module: str) -> set[str]:
    """Modules of this package that importing a module may pull in, itself included."""
    seen, ahead = set(), [module]
    while ahead:
        here = ahead.pop()
        if here not in seen:
            seen.add(here)
            ahead += own(here)
    return seen


def inside(folder: str) -> list[str]:
    start = f"{PACKAGE}.{folder}"
    return [m for m in MODULES if m == start or m.startswith(f"{start}.")]


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_modules_are_found():
    assert {f"{PACKAGE}.{m}" for m in TENSORS | BOTTOM} <= MODULES.keys()
    assert "numpy" in roots(imports(f"{PACKAGE}.volume"))
    assert f"{PACKAGE}.trainer" in own(f"{PACKAGE}.session")


@pytest.mark.parametrize("module", CORE)
def test_below_the_widget_nothing_imports_a_gui(module):
    assert roots(imports(module)).isdisjoint(GUI)


@pytest.mark.parametrize("module", [*inside("_napari"), *inside("engine")])
def test_the_gui_process_imports_nothing_that_imports_torch(module):
    assert "torch" not in roots(imports(module))
    assert own(module).isdisjoint({f"{PACKAGE}.{m}" for m in TENSORS})
    torch_users = {m for m in reached(module) if "torch" in roots(imports(m))}
    assert torch_users == set()


@pytest.mark.parametrize(("one", "other"), [("cli", "_napari"), ("_napari", "cli")])
def test_command_line_and_widget_do_not_know_each_other(one, other):
    for module in inside(one):
        assert own(module).isdisjoint(inside(other)), module


@pytest.mark.parametrize("module", sorted(m for name in BOTTOM for m in inside(name)))
def test_the_bottom_layer_stands_on_numpy_alone(module):
    assert own(module) <= {m for name in BOTTOM for m in inside(name)}
    outside = roots(imports(module)) - {PACKAGE, "numpy"}
    assert outside <= sys.stdlib_module_names


@pytest.mark.parametrize("layer", ["engine", "io"])
def test_what_the_widget_stands_on_does_not_look_up(layer):
    upper = {*inside("cli"), *inside("_napari")}
    for module in inside(layer):
        assert own(module).isdisjoint(upper), module


BLOCKED = """
import importlib, sys

blocked = set(sys.argv[1].split(","))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")
        return None

sys.meta_path.insert(0, Blocker())
for module in sys.argv[2].split(","):
    importlib.import_module(module)
for name in blocked:
    assert name not in sys.modules, name
print("imported", len(sys.argv[2].split(",")))
"""


def import_all(modules: list[str], blocked: set[str]) -> str:
    command = [sys.executable, "-c", BLOCKED, ",".join(sorted(blocked)), ",".join(modules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout.strip() if done.returncode == 0 else done.stderr


def test_the_core_imports_where_napari_and_qt_are_missing():
    assert import_all(CORE, GUI) == f"imported {len(CORE)}"


def test_what_the_gui_process_uses_imports_where_torch_is_missing():
    modules = [f"{PACKAGE}.{m}" for m in sorted(BOTTOM | KEEPING)]
    modules += [*inside("engine"), *inside("io")]
    assert import_all(modules, {"torch"}) == f"imported {len(modules)}"


def test_the_blocker_blocks():
    assert "is blocked" in import_all(["json.decoder"], {"json"})
