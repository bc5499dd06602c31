"""Recipes for containers and conda: that their steps lead to the engine, without a container."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from Testing.engine.helpers import ROOT
from Testing.engine.test_packaging import PROJECT

FOLDER = ROOT / "Utilities" / "container"
DOCKER = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
APPTAINER = (FOLDER / "diffusionmbir.def").read_text(encoding="utf-8")


def section(name: str) -> list[str]:
    """The lines of a section of the Apptainer recipe."""
    found = re.search(rf"^%{name}\n((?:    .*\n)+)", APPTAINER, re.M)
    assert found, name
    return [line.strip() for line in found[1].splitlines()]


def copied() -> list[tuple[list[str], str]]:
    """What the Dockerfile copies, and where to."""
    lines = [line.split()[1:] for line in DOCKER.splitlines() if line.startswith("COPY ")]
    return [(line[:-1], line[-1]) for line in lines]


def test_both_recipes_take_the_same_steps():
    assert [" ".join([*names, where]) for names, where in copied()] == section("files")
    steps = [line.removeprefix("RUN ") for line in DOCKER.splitlines() if line.startswith("RUN ")]
    assert [step.replace("$TORCH", "{{ TORCH }}") for step in steps] == section("post")
    assert f"ARG {section('arguments')[0]}" in DOCKER
    assert re.findall(r"^FROM (\S+)", DOCKER, re.M) == re.findall(r"^From: (\S+)", APPTAINER, re.M)
    extras = re.findall(r"/src\[(.+)\]", DOCKER)[0].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_what_the_recipes_copy_is_enough_to_build_the_package(tmp_path):
    """In a folder that holds nothing else the wheel is built as from the checkout, and the command starts."""
    source = tmp_path / "src"
    source.mkdir()
    for names, where in copied():
        for name in names:
            target = tmp_path / where.strip("/")
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, target)
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, env=alone, capture_output=True, text=True, timeout=600, check=True
    )
    wheel = zipfile.ZipFile(tmp_path / done.stdout.splitlines()[-1])
    expected = {p.relative_to(ROOT).as_posix() for p in (ROOT / "DiffusionMBIRLib").rglob("*.py")}
    assert expected <= set(wheel.namelist())
    wheel.extractall(tmp_path / "site")
    shown = subprocess.run(
        [sys.executable, "-m", "DiffusionMBIRLib", "models", "--json"],
        cwd=tmp_path, env=alone | {"PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True, timeout=600,
        check=True,
    )  # fmt: skip
    assert "ct-compact-v1" in shown.stdout


def test_the_conda_environment_has_what_the_package_asks_for():
    text = (FOLDER / "environment.yml").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^  - ([\w-]+)(?: (.*))?$", text, re.M))
    names = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    extras = [entry for extra in ("report", "cone", "ct") for entry in PROJECT["optional-dependencies"][extra]]
    for entry in [*PROJECT["dependencies"], *extras]:
        name, version = re.match(r"([\w-]+)(>=[\d.]+)", entry).groups()
        if name == "tomli":  # of older Pythons
            continue
        assert listed[names.get(name, name.lower())] == version, entry
