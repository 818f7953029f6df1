"""What the architecture promises."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(file for package in ("service", "training") for file in (ROOT / package).rglob("*.py"))
ALL_FILES = CODE + sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 500  # a file is one subject, however long; beyond this it is two
TOP_LEVEL_MAKE_VERBS = 12


def test_the_service_loads_nothing_that_only_training_needs() -> None:
    """Importing the whole service loads neither torch nor any other library of training."""
    heavy = {"torch", "datasets", "matplotlib", "pandas", "pyarrow", "onnx", "lightning_fabric", "training"}
    program = (
        "import pkgutil, sys, importlib, service\n"
        "for module in pkgutil.walk_packages(service.__path__, 'service.'): importlib.import_module(module.name)\n"
        "print(*sys.modules, sep='\\n')"
    )
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(loaded.stdout.split())
    assert {"service.__main__", "service.supervisor", "service.v2.routes"} <= modules
    assert not heavy & modules


def test_training_takes_the_contract_alone_from_the_service() -> None:
    """Of the service, training imports how a seed becomes a latent and what a file says of itself."""
    imported = {
        module
        for file in (ROOT / "training").rglob("*.py")
        for module in re.findall(r"^(?:from|import) (service\S*)", file.read_text(), re.MULTILINE)
    }
    assert imported == {"service.latents", "service.metadata"}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_no_code_is_ignored() -> None:
    """What .gitignore names is missing in commits and in wheels, and no folder of the code is called so."""
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *map(str, CODE)], cwd=ROOT, capture_output=True, text=True
    )
    assert ignored.stdout == ""
    assert ignored.returncode == 1, ignored.stderr  # as git says that there are none


@pytest.mark.parametrize("file", ALL_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_stay_short(file: Path) -> None:
    """No file has more than 500 lines."""
    assert len(file.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("file", CODE, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_branches_on_the_number_of_domains(file: Path) -> None:
    """No code compares a count of domains with a number: any number of domains takes the same path."""
    assert _counts_domains(ast.parse(file.read_text())) == []


def test_the_search_for_counted_domains_finds_them() -> None:
    """The test above can fail: it recognises the branches that it forbids."""
    for branch in ("len(domains) == 2", "len(experiment.domains) > 1", "len(self.domain_names) != 2"):
        assert _counts_domains(ast.parse(f"if {branch}: pass"))


def test_make_has_few_verbs() -> None:
    """The Makefile offers at most 12 verbs, and `make help` lists every one."""
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    verbs = phony.split()[1:]
    help_ = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(help_, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(verbs) <= TOP_LEVEL_MAKE_VERBS
    assert sorted(line.split("\t")[0] for line in listed.splitlines()) == sorted(verbs)


def _counts_domains(tree: ast.AST) -> list[str]:
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(_is_count_of_domains(side) for side in (node.left, *node.comparators))
        and any(isinstance(side, ast.Constant) for side in (node.left, *node.comparators))
    ]


def _is_count_of_domains(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "len"):
        return False
    counted = node.args[0]
    return isinstance(counted, ast.Name | ast.Attribute) and "domain" in ast.unparse(counted)
