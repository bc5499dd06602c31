"""README and docs against the code: links, commands, names of options, settings, presets, files, and Python lines."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import inspect
import re
import shlex
import tarfile
from dataclasses import fields
from pathlib import Path

import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.cli import _parser
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.tasks import TASKS, task_info
from DiffusionMBIRLib.training.settings import TrainSettings
from Testing.engine.helpers import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
ELSEWHERE = {"--no-main-window", "--python-script"}  # options of Slicer
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SOURCES = sorted([*(ROOT / "DiffusionMBIRLib").rglob("*.py"), *(ROOT / "DiffusionMBIR").rglob("*.py")])


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    """What stands between backticks in the prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def module_at(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- links and files


@each_page
def test_links_lead_somewhere(page):
    for link in LINK.findall(text_of(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link} is not there"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link} has no such heading"


def test_every_page_is_reached_from_the_readme():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(text_of(PAGES[0]))}
    assert set(PAGES[1:]) <= linked


def test_the_readme_is_short_and_warns_at_its_top():
    lines = text_of(PAGES[0]).splitlines()
    assert len(lines) <= 130
    assert "Research use only, not for diagnosis." in "\n".join(lines[:4])


@each_page
def test_files_and_folders_that_are_named_exist(page):
    tops = ("DiffusionMBIR", "DiffusionMBIRLib", "Resources", "Testing", "Utilities", "docs")
    rooms = {path.name for path in (ROOT / "DiffusionMBIRLib").iterdir() if path.is_dir()}
    files = {path.name for path in SOURCES}
    for span in spans(page):
        word = span.rstrip("/")
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", word):
            continue
        first = word.split("/")[0]
        if "/" in word and (first in tops or first in rooms):
            assert (ROOT / word).exists() or (ROOT / "DiffusionMBIRLib" / word).exists(), f"{page.name}: {span}"
        elif word.endswith(".py") and not word.startswith("my_"):
            assert word in files, f"{page.name}: {span}"


def test_architecture_names_every_room_and_no_other():
    page = ROOT / "docs" / "architecture.md"
    rooms = {path.parent.name for path in (ROOT / "DiffusionMBIRLib").glob("*/__init__.py")}
    table = text_of(page).split("## Rooms of the engine")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)/`", "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    assert named == rooms


# --- the command line


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb."""
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(commands.choices)


def command_lines(page: Path) -> list[str]:
    lines = "".join(blocks(page, "sh")).splitlines()
    return [line.partition(" #")[0] for line in lines if line.startswith("diffusionmbir ")]


@each_page
def test_commands_are_understood(page):
    for line in command_lines(page):
        arguments = _parser().parse_args(shlex.split(line)[1:])
        if getattr(arguments, "preset", None):
            ReconSettings.preset(arguments.preset)


def test_commands_that_are_wrong_are_not_understood():
    with pytest.raises(SystemExit):
        _parser().parse_args(["reconstruct", "scan.h5", "-o", "recon.nrrd", "--softening", "1"])


@each_page
def test_options_and_verbs_that_are_named_exist(page):
    verbs = parsers()
    known = {option for verb in verbs.values() for action in verb._actions for option in action.option_strings}
    for span in spans(page):
        words = span.split()
        if words[0] == "diffusionmbir" and len(words) > 1:
            assert words[1] in verbs, f"{page.name}: {span}"
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option in known | ELSEWHERE, f"{page.name}: {option}"


@each_page
def test_targets_of_make_exist(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for span in spans(page):
        if span.startswith("make "):
            assert span.split()[1] in targets, f"{page.name}: {span}"


# --- settings, presets and other names


def defined(tree: ast.AST) -> set[str]:
    """Names of functions, classes, arguments, fields and variables, and texts, which may be keys of entries."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value.rpartition("/")[2])
    return names


@pytest.fixture(scope="module")
def names() -> set[str]:
    return set().union(*(defined(ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES))


@each_page
def test_names_with_an_underscore_exist(page, names):
    settings = {item.name for table in (ReconSettings, TrainSettings) for item in fields(table)}
    for span in spans(page):
        if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", span):
            assert span in settings | names, f"{page.name}: {span}"


def test_a_name_of_the_past_is_not_known(names):
    assert "slices_per_batch" in names
    assert not {"softening", "problem_ct", "carried_descent"} & names


@each_page
def test_presets_that_are_named_exist(page):
    presets = {name for task in TASKS for name in task_info(task).presets}
    kinds = "|".join(re.escape(task_info(task).preset) for task in TASKS)
    for span in spans(page):
        if span not in TASKS and re.fullmatch(rf"(published-)?({kinds})(-\w+)?", span):
            assert span in presets, f"{page.name}: {span}"


def test_every_preset_stands_in_the_tables():
    page = text_of(ROOT / "docs" / "methods.md")
    assert all(f"| `{path.stem}` |" in page for path in (ROOT / "Resources" / "Presets").glob("*.toml"))


def test_tables_are_those_of_the_engine():
    make_docs = module_at(ROOT / "Utilities" / "make_docs.py")
    written = {name for page in PAGES for _, name, _ in make_docs.PLACE.findall(text_of(page))}
    assert written == set(make_docs.TABLES)
    for page in PAGES:
        assert make_docs.with_tables(text_of(page)) == text_of(page), f"{page.name}: run Utilities/make_docs.py"


def test_what_the_panel_and_the_engine_say_is_what_they_say():
    """Each message of the page on troubles, but for the parts that change, stands in the code."""
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in SOURCES))
    rows = re.findall(r"^\| (.+?) \| .+\|$", text_of(ROOT / "docs" / "troubleshooting.md"), re.MULTILINE)
    messages = [row for row in rows if row not in ("---", "it says", "the panel says") and "unrecognized" not in row]
    assert len(messages) > 15
    for message in messages:
        for part in message.split("..."):
            assert part.strip(" ()") in code, f"{part!r} of {message!r}"


# --- Python


def snippets() -> list:
    found = [(page, block) for page in PAGES for block in blocks(page, "python")]
    return [pytest.param(block, id=f"{page.stem}-{k}") for k, (page, block) in enumerate(found)]


@pytest.mark.parametrize("snippet", snippets())
def test_python_lines_fit_the_interface(snippet):
    tree = ast.parse(snippet)
    compile(tree, "snippet", "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mbir":
            assert hasattr(mbir, node.attr)
        elif isinstance(node, ast.ImportFrom):
            require_import(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("mbir."):
            require_call(node)


def require_import(node: ast.ImportFrom) -> None:
    """The module is a file of ours that defines the names."""
    path = Path(*str(node.module).split("."))
    path = path if path.parts[0] == "DiffusionMBIRLib" else "DiffusionMBIR" / path
    tree = ast.parse((ROOT / path).with_suffix(".py").read_text(encoding="utf-8"))
    tops = {item.name for item in tree.body if isinstance(item, ast.FunctionDef | ast.ClassDef)}
    assert {alias.name for alias in node.names} <= tops


def require_call(node: ast.Call) -> None:
    """Its arguments are some of the function's; those of a preset are settings."""
    function: object = mbir
    for name in ast.unparse(node.func).split(".")[1:]:
        function = getattr(function, name)
    assert callable(function)
    given = {keyword.arg: None for keyword in node.keywords}
    inspect.signature(function).bind(*node.args, **given)
    if ast.unparse(node.func).endswith("ReconSettings.preset"):
        assert set(given) <= {item.name for item in fields(ReconSettings)}
        assert isinstance(node.args[0], ast.Constant)
        ReconSettings.preset(str(node.args[0].value))


@pytest.mark.slow
def test_the_lines_of_the_readme_run(tmp_path, monkeypatch, capsys):
    """With the fewest steps, of fewer slices."""
    (snippet,) = blocks(PAGES[0], "python")
    assert len([line for line in snippet.splitlines() if line and not line.startswith("import")]) == 6
    monkeypatch.chdir(tmp_path)
    chest = mbir.read_volume(mbir.sample_data())
    few = mbir.Volume(chest.array[18:22], mbir.Grid((4, 256, 256), chest.grid.spacing_mm), name="few")
    few.save(tmp_path / "few.nrrd")
    snippet = snippet.replace('mbir.sample_data("ct_chest.nrrd")', '"few.nrrd"')
    snippet = snippet.replace("seed=7", "seed=7, steps=2, start_sweeps=2")
    assert "steps=2" in snippet
    assert "few.nrrd" in snippet
    exec(compile(snippet, "README.md", "exec"), {})
    assert mbir.read_volume("recon.nrrd").grid.shape == (4, 128, 128)
    assert "psnr" in capsys.readouterr().out


# --- the package


def test_the_package_shows_a_readme_whose_links_are_addresses():
    package_readme = module_at(ROOT / "Utilities" / "package_readme.py")
    shown = package_readme.with_addresses(text_of(PAGES[0]), "https://example.org/home")
    links = LINK.findall(shown)
    assert len(links) == len(LINK.findall(text_of(PAGES[0])))
    assert all(link.startswith("https://") for link in links)
    for link in links:
        if link.startswith("https://example.org/home"):
            kind, branch, path = link.removeprefix("https://example.org/home/").split("/", 2)
            assert (kind, branch) == ("raw" if path.endswith(".png") else "blob", "main")
            assert (ROOT / path).exists()


@pytest.mark.slow
def test_source_distribution_holds_the_pages(tmp_path, monkeypatch):
    from hatchling.build import build_sdist

    monkeypatch.chdir(ROOT)
    name = build_sdist(str(tmp_path))
    with tarfile.open(tmp_path / name) as archive:
        held = {member.name.partition("/")[2]: member for member in archive.getmembers()}
        about = archive.extractfile(held["PKG-INFO"])
        assert about is not None
        described = about.read().decode("utf-8")
    assert {page.relative_to(ROOT).as_posix() for page in PAGES} <= set(held)
    assert "Utilities/package_readme.py" in held
    assert "Description-Content-Type: text/markdown" in described
    assert "/blob/main/docs/methods.md)" in described
    assert "](docs/" not in described
