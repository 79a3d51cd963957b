"""Imports point strictly down, in no circle, and `import bilens` loads next to nothing."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bilens

SOURCE = Path(bilens.__file__).parent
# Low to high; parts of one row do not import each other.
ORDER = (
    "version,base,records,algebra,polynomial,certify,nn data,io,train,findings interp,"
    "report,api,sweep,cli sklearn plot callbacks reproduction pytest_plugin,__main__"
)
RANK = {part: rank for rank, row in enumerate(ORDER.split(",")) for part in row.split()}
RANK["__init__"] = len(RANK)  # the public list of names: may import everything
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = ("torch", "numpy", "scipy", "safetensors", "matplotlib", "transformers", "pandas")
HEAVY += ("sklearn", "torchvision", "mlxtend", "typer", "rich", "jinja2", "markdown_it")
HEAVY += ("tokenizers", "datasets")


def name_of(file: Path) -> str:
    """The path of a file below the package, for messages and test names."""
    return file.relative_to(SOURCE).as_posix()


def module_of(file: Path) -> str:
    """The name under which a file is imported."""
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file) for file in FILES}


def part_of(module: str) -> str:
    """The row entry that a module belongs to: its folder, or its own name."""
    return module.split(".")[1] if "." in module else "__init__"


def imported(file: Path) -> set[str]:
    """Everything that a file imports, inside functions too; imports are absolute (TID252).

    `from package import name` is the module `package.name` where there is one.
    """
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in MODULES else str(node.module))
    return names


def ours(file: Path) -> set[str]:
    """The modules of bilens that a file imports."""
    return {name for name in imported(file) if name.split(".")[0] == "bilens"}


def test_every_part_has_a_place_in_the_order() -> None:
    parts = {part_of(module) for module in MODULES}
    assert parts <= set(RANK), f"no place in ORDER: {sorted(parts - set(RANK))}"


def test_imports_point_strictly_down() -> None:
    for file in FILES:
        part = part_of(module_of(file))
        wrong = {
            module
            for module in ours(file)
            if part_of(module) != part and RANK[part_of(module)] >= RANK[part]
        }
        assert not wrong, f"{name_of(file)} is in {part!r} and may not import {sorted(wrong)}"


def test_nobody_imports_the_root() -> None:
    wrong = [name_of(file) for file in FILES if file.parent != SOURCE and "bilens" in ours(file)]
    assert not wrong, f"{wrong}: import the defining modules instead"


def test_there_is_no_circle_of_imports() -> None:
    graph = {module_of(file): ours(file) - {module_of(file)} for file in FILES}
    graph["bilens"] = set()
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


def test_there_are_no_star_imports() -> None:
    for file in FILES:
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        stars = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"]
        assert not stars, name_of(file)


# part: packages that it knows nothing of
IGNORANT = {
    "base": ("torch.nn",),
    "records": ("torch", "numpy", "pathlib"),
    "algebra": ("torch.nn", "pathlib", "json", "random", "numpy", "safetensors"),
    "certify": ("torch.nn", "pathlib", "json", "random", "safetensors"),
    "nn": ("pathlib", "json", "safetensors"),
    "report": (
        "torch",
        "numpy",
        "bilens.findings",
        "bilens.io.load",
        "bilens.nn",
        "bilens.algebra",
    ),
}

# A language model writes itself in the layout that others load: these files know what a file is.
EXPORT = {"nn/huggingface.py", "nn/transformer.py"}
EXPORT |= {"report/raster.py"}  # the pixels of an image are an array


@pytest.mark.parametrize("part", IGNORANT)
def test_a_part_knows_nothing_of_what_is_not_its_business(part: str) -> None:
    """Tensors in, records out; a report is drawn from its document and from nothing else."""
    for file in FILES:
        if part_of(module_of(file)) == part and name_of(file) not in EXPORT:
            known = {
                name
                for name in imported(file)
                for package in IGNORANT[part]
                if (name == package or name.startswith(f"{package}."))
                and not name.startswith("bilens.findings.rules.")  # without torch, a test says
            }
            assert not known, f"{name_of(file)} imports {sorted(known)}"


def loaded_by(code: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after some code."""
    return {name.split(".")[0] for name in modules_loaded_by(code)}


def modules_loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some code."""
    code += "; import sys; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import bilens; bilens.__version__; dir(bilens)").isdisjoint(HEAVY)


def test_a_public_name_is_loaded_when_it_is_used_and_only_what_it_needs() -> None:
    loaded = loaded_by("import bilens; bilens.QuadraticMap; bilens.nn.BilinearMLP")
    assert "torch" in loaded
    assert loaded.isdisjoint(
        {"matplotlib", "transformers", "pandas", "sklearn", "torchvision", "mlxtend", "typer"}
    )


def test_all_public_names_together_load_nothing_slow_beside_torch() -> None:
    every = "import bilens; [getattr(bilens, name) for name in bilens.__all__]"
    slow = {"matplotlib", "transformers", "pandas", "sklearn", "torchvision", "mlxtend", "typer"}
    slow |= {
        "scipy.stats",
        "scipy.cluster",
        "scipy.optimize",
        "datasets",
        "tokenizers",
        "gguf",
        "onnx",
        "h5py",
    }
    assert modules_loaded_by(every).isdisjoint(slow)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="quadratic_map"):
        _ = bilens.quadratic_map
