"""Regenerates the pages that are drawn from code and data; `--check` only compares.

`docs/measured.md`, `docs/reproduction.md` and the benchmark pages from their JSON, and the picture
of the README from the demo, where it has been run. Built beside them, and not kept, is
`docs/reference`: commands from their help, public names from their docstrings, rules, and fields of
every document; and the JSON Schema of these in `docs/schema`.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bilens
from bench import (
    conversion_ordinary,
    decomposition,
    ground_truth,
    guarantees,
    installation,
    language_throughput,
    polynomial_language,
    pretrained,
    quadratic_fit,
    sae_steps,
    startup,
    tables,
    training,
    two_layers,
    wires,
)
from bench.adapters import page as adapters
from bench.real_models_page import page as real_models
from bilens.cli.app import app
from bilens.cli.command_group import build_all_commands
from tools import measured, reproduction
from tools.page_parts import anchor, split_page
from tools.schema import field_pages, rule_page, schema_files

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs/reference"
PLATE = Path("runs/demo/eigenvectors.svg")
BENCHMARKS = {
    "training": training.page,
    "decomposition": decomposition.page,
    "guarantees": guarantees.page,
    "quadratic_fit": quadratic_fit.page,
    "language_throughput": language_throughput.page,
    "sae_steps": sae_steps.page,
    "installation": installation.page,
    "startup": startup.page,
    "tables": tables.page,
    "smollm2": pretrained.page,
    "conversion_ordinary": conversion_ordinary.page,
    "adapters": adapters.page,
    "ground_truth": ground_truth.page,
    "polynomial_language": polynomial_language.page,
    "real_models": real_models,
    "two_layers": two_layers.page,
    "wires": wires.page,
}


def command_pages() -> dict[Path, str]:
    """Return a page of each command, and one that lists them."""
    group = build_all_commands(app)
    rows = ["| command | what it does |", "|---|---|"]
    found = {}
    for name, command in commands(group):
        path = REFERENCE / f"command_{name.replace(' ', '_')}.md"
        first = inspect.cleandoc(command.help).partition("\n")[0]
        rows.append(f"| [`bilens {name}`]({path.name}) | {first} |")
        found[path] = command_section(f"bilens {name}", command)
    parts = [
        command_section("bilens", group),
        "Each prints its help with `--help`. `bilens reproduce` comes with "
        "[bilens-studies](../../studies/README.md), `bilens serve` with "
        "[bilens-explorer](../../explorer/README.md); how another distribution adds a command "
        "stands in [adding.md](../adding.md#a-command-of-your-own).",
        "\n".join(rows),
    ]
    return {REFERENCE / "commands.md": "\n\n".join(parts) + "\n", **found}


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def command_section(name: str, command: Any) -> str:
    """Return what a command does and its options, as a table."""
    rows = ["| argument or option | meaning | default |", "|---|---|---|"]
    for parameter in command.params:
        spelling = ", ".join(f"`{text}`" for text in (*parameter.opts, *parameter.secondary_opts))
        if parameter.param_type_name == "argument":
            spelling = f"`{parameter.name.upper()}`"
        default = parameter.default
        plain = default is None or default is False or callable(default) or parameter.required
        meaning = (parameter.help or "").replace("|", "\\|")
        rows.append(f"| {spelling} | {meaning} | {'' if plain else f'`{default}`'} |")
    return f"# `{name}`\n\n{inspect.cleandoc(command.help)}\n\n" + "\n".join(rows) + "\n"


def python_pages() -> dict[Path, str]:
    """Return a page of the public names of each package of the library, and one that lists all."""
    modules = "callbacks", "certify", "nn", "plot", "sklearn"
    folders = {name: getattr(bilens, name) for name in modules}
    objects = {name: getattr(bilens, name) for name in bilens.__all__ if name not in folders}
    for folder, module in folders.items():
        objects |= {f"{folder}.{name}": getattr(module, name) for name in module.__all__}
    packages: dict[str, dict[str, Any]] = {}
    for name, value in objects.items():
        packages.setdefault(value.__module__.split(".")[1], {})[name] = value
    listed, found = ["# Public names", "`import bilens as bl`."], dict[Path, str]()
    for package, values in sorted(packages.items()):
        sections = [python_section(name, value) for name, value in values.items()]
        text = "\n\n".join([f"# Public names of `bilens.{package}`", *sections]) + "\n"
        parts = split_page(REFERENCE / f"python_{package}.md", text)
        rows = ["| name | what it is |", "|---|---|"]
        for name, value in values.items():
            where = next(path for path, part in parts.items() if f"## `bl.{name}`\n" in part)
            first = (inspect.getdoc(value) or "").partition("\n")[0].replace("|", "\\|")
            rows.append(f"| [`bl.{name}`]({where.name}#{anchor(f'bl.{name}')}) | {first} |")
        listed += [f"## `bilens.{package}`", "\n".join(rows)]
        found |= parts
    return {**split_page(REFERENCE / "python.md", "\n\n".join(listed) + "\n"), **found}


def python_section(name: str, value: Any) -> str:
    """Return what the docstrings say of a public name, and of its methods."""
    signature = str(inspect.signature(value)).replace("'", "")
    signature = re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", signature)
    parts = [f"## `bl.{name}`", f"```text\n{name}{signature}\n```"]
    parts.append(f"```text\n{inspect.getdoc(value)}\n```")
    if inspect.isclass(value):
        parts += [
            f"### `{name}.{method}`\n\n```text\n{inspect.getdoc(member)}\n```"
            for method, member in members(value).items()
            if not method.startswith("_")
            and (callable(member) or isinstance(member, property | classmethod))
        ]
    return "\n\n".join(parts)


def members(kind: type) -> dict[str, Any]:
    """Return what a class and those of ours that it extends define, the extended ones first."""
    ours = [base for base in reversed(kind.__mro__) if base.__module__.startswith("bilens")]
    return {name: member for base in ours for name, member in vars(base).items()}


def benchmark_pages() -> dict[Path, str]:
    """Return the pages of the benchmarks, each drawn from its result."""
    folder = ROOT / "docs/benchmarks"
    return {
        folder / f"{name}.md": page(json.loads((folder / f"{name}.json").read_text()))
        for name, page in BENCHMARKS.items()
    }


def pages() -> dict[Path, str]:
    """Return every generated page that is kept, with its content."""
    whole = {
        ROOT / "docs/measured.md": measured.page(),
        ROOT / "docs/reproduction.md": reproduction.page(),
        **benchmark_pages(),
    }
    return {part: text for page in whole.items() for part, text in split_page(*page).items()}


def built() -> dict[Path, str]:
    """Return what follows from the code alone, with its content."""
    return {
        **command_pages(),
        **python_pages(),
        REFERENCE / "rules.md": rule_page(),
        **field_pages(REFERENCE),
        **schema_files(ROOT),
    }


def main() -> None:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    content = pages()
    stale = [
        path for path, text in content.items() if not path.exists() or path.read_text() != text
    ]
    if check and stale:
        sys.exit(
            "stale: " + ", ".join(str(path.relative_to(ROOT)) for path in stale) + ": make docs"
        )
    if check:
        return
    for path, text in {**content, **built()}.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    if (ROOT / PLATE).exists():
        (ROOT / "docs/images/eigenvectors.svg").write_bytes((ROOT / PLATE).read_bytes())


if __name__ == "__main__":
    main()
