"""Promises of the project as a whole: what importing costs, what every module has, that names and versions agree."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import wholereel

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "src").rglob("*.py"))
TEXTS = sorted(
    path
    for pattern in (
        "src/**/*.py",
        "tests/**/*.py",
        "benchmarks/**/*",
        "docs/*.md",
        "docs/*.py",
        "*.md",
        "Makefile",
        "*.toml",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix in ("", ".py", ".md", ".toml", ".json", ".csv", ".sh")
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh Python has loaded after some code."""
    script = f"import sys\n{code}\nprint('\\nLOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_importing_the_package_loads_neither_torch_nor_recipes():
    loaded = modules_after("import wholereel; dir(wholereel); wholereel.__version__")
    assert not {"torch", "numpy", "av", "wholereel.recipes", "wholereel.cli"} & loaded


def test_help_loads_neither_torch_nor_the_parser():
    loaded = modules_after("from wholereel.cli.main import main; main(['--help'])")
    assert not {"torch", "numpy", "tyro", "yaml"} & loaded


def test_settings_recipes_and_overrides_are_free_of_torch():
    loaded = modules_after(
        "from wholereel.recipes import RECIPES, load_recipe\n"
        "import wholereel.recipes.overrides\n"
        "for name in RECIPES: load_recipe(name)"
    )
    assert not {"torch", "numpy", "av"} & loaded


@pytest.mark.parametrize("name", wholereel.__all__)
def test_every_public_name_loads(name):
    value = getattr(wholereel, name)
    assert value is getattr(wholereel, name)
    assert name.startswith("__") or value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'wholereel' has no attribute 'Predicter'"):
        wholereel.Predicter  # noqa: B018


def test_the_lazy_table_agrees_with_what_type_checkers_see():
    tree = ast.parse((ROOT / "src/wholereel/__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.name: (node.module or "").removeprefix("wholereel.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wholereel.")
        for alias in node.names
    }
    assert seen == wholereel._HOME
    assert {*seen, "__version__"} == set(wholereel.__all__)


def test_the_version_is_the_same_everywhere():
    assert importlib.metadata.version("wholereel") == wholereel.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", wholereel.__version__)
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_module_says_what_it_is():
    silent = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        postponed = path.name == "__init__.py" or "from __future__ import annotations" in text
        if not (ast.get_docstring(ast.parse(text)) and postponed):
            silent.append(relative(path))
    assert not silent, f"without header docstring or `from __future__ import annotations`: {silent}"


def test_weights_are_never_unpickled_freely():
    unsafe = [
        f"{relative(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
        if "weights_only=True" not in ast.unparse(node)
    ]
    assert not unsafe, f"torch.load without weights_only=True: {unsafe}"


def test_the_project_speaks_of_itself_alone():
    found = {}
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        places = re.findall(r"(?<![\w.])/(?:home|root|Users|work|mnt)/\w+", text)
        unfinished = re.findall(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b", text)
        if places or unfinished:
            found[relative(path)] = places + unfinished
    assert len(TEXTS) > 50
    assert not found, f"places of one machine, or marks of unfinished work: {found}"


def test_there_is_no_drawer_for_everything():
    assert not [relative(path) for path in MODULES if path.stem in ("utils", "util", "helpers", "misc", "common")]


def test_what_a_fresh_clone_needs_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("setup", "demo", "test", "lint", "bench", "docs"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
