"""What napari learns of us without importing us, and that it is true."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import npe2
import pytest
from npe2 import PluginManager, PluginManifest

import napari_msseg
from napari_msseg._napari.widget import ScribbleWidget

ROOT = Path(__file__).parents[2]
MANIFEST = Path(napari_msseg.__file__).with_name("napari.yaml")
COMMANDS = PluginManifest.from_file(MANIFEST).contributions.commands


@pytest.fixture
def manager():
    manager = PluginManager()
    manager.register(PluginManifest.from_distribution("napari-msseg"))
    yield manager
    manager.unregister("napari-msseg")


def test_the_manifest_at_the_root_is_a_copy():
    assert (ROOT / "napari.yaml").read_bytes() == MANIFEST.read_bytes()


def test_the_installed_package_has_this_manifest():
    installed = PluginManifest.from_distribution("napari-msseg")
    assert installed.contributions == PluginManifest.from_file(MANIFEST).contributions


def test_npe2_finds_no_fault():
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", "napari-msseg"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_are_of_the_length_that_npe2_wants():
    manifest = PluginManifest.from_file(MANIFEST)
    assert manifest.name == "napari-msseg"
    assert 3 <= len(manifest.display_name) <= 90
    assert all(command.id.startswith("napari-msseg.") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.id)
def test_every_command_leads_to_something_that_can_be_called(command):
    assert callable(npe2.manifest.utils.import_python_name(command.python_name))


def test_every_contribution_names_a_command_that_is_there():
    contributions = PluginManifest.from_file(MANIFEST).contributions
    used = [
        item.command
        for group in (
            contributions.widgets,
            contributions.readers,
            contributions.writers,
            contributions.sample_data,
            *contributions.menus.values(),
        )
        for item in group
    ]
    only_in_the_palette = {"napari-msseg.next_spot"}
    assert set(used) | only_in_the_palette == {command.id for command in COMMANDS}


def test_the_widget_is_found_through_npe2(manager):
    found = list(manager.iter_widgets())
    assert [w.display_name for w in found] == ["Scribble segmentation"]
    manager.activate("napari-msseg")
    assert manager.commands.get(found[0].command) is ScribbleWidget


@pytest.mark.parametrize("name", ["head.nii", "head.nii.gz", "cells.tif", "cells.tiff", "A.TIF"])
def test_the_reader_is_offered_for_what_it_reads(manager, name):
    assert [r.command for r in manager.iter_compatible_readers([name])] == ["napari-msseg.read"]


@pytest.mark.parametrize("name", ["cells.png", "head.mgz", "notes.txt"])
def test_the_reader_is_not_offered_for_what_it_does_not_read(manager, name):
    assert list(manager.iter_compatible_readers([name])) == []


def test_the_samples_are_listed(manager):
    listed = {s.key for _, samples in manager.iter_sample_data() for s in samples}
    assert listed == {"tissue", "brain"}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".tif", ".ome.tif"])
def test_the_writer_is_offered_for_label_layers(manager, suffix):
    writer, path = manager.get_writer(f"mask{suffix}", ["labels"])
    assert (writer.command, path) == ("napari-msseg.write_labels", f"mask{suffix}")


def test_the_writer_is_not_offered_for_images(manager):
    assert manager.get_writer("image.tif", ["image"]) == (None, "image.tif")
