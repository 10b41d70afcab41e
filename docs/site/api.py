"""Pages of the reference: every public class of the arithmetic, by package, and the face of `twinlens`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FACE = """# `twinlens`

What `import twinlens` gives. How it is used stands in [In Python](../python.md). A mistake of the caller is a
{py:class}`~twinlens.attribution.errors.UserError`, `twinlens.UserError`.

```{eval-rst}
.. autofunction:: twinlens.explaining.explain
.. autofunction:: twinlens.runs.open_run
```
"""
FACES = ("twinlens.tasks.Task", "twinlens.answers.Answer", "twinlens.runs.Run")
TITLES = {
    "attribution": "What methods share: targets, readouts, protocols",
    "attribution/instance": "Training instances",
    "attribution/neuron": "Neurons",
    "attribution/gradients": "Gradients of linear layers",
    "attribution/bridge": "Bridges",
    "attribution/evaluation": "Evaluations",
    "attribution/evaluation/ground_truth": "Ground truth",
    "attribution/evaluation/neuron_level": "Evaluations of the second paper",
    "attribution/example_models": "Example models",
}


def pages() -> dict[str, str]:
    """File name → text: an index, the face, and a page for each package of attribution/."""
    found = {"twinlens.md": FACE + "".join(block(name) for name in FACES)}
    folders = [
        folder for folder in sorted((REPOSITORY / "attribution").rglob("")) if (folder / "__init__.py").is_file()
    ]
    for folder in folders:
        path = folder.relative_to(REPOSITORY).as_posix()
        title = TITLES[path]  # a new package needs its title here
        parts = [part for file in sorted(folder.glob("*.py")) for part in of_module(file)]
        found[f"{path.replace('/', '.')}.md"] = "\n".join(
            [f"# {title}\n", f"`twinlens.{path.replace('/', '.')}`\n", *parts]
        )
    contents = "\n".join(["```{toctree}", *(name.removesuffix(".md") for name in found), "```"])
    found["index.md"] = (
        "# Reference of the classes\n\nMade of docstrings: what each class computes, shapes, units, sign, errors, and"
        " an example that runs\n(`pytest --doctest-modules attribution`).\n\n" + contents + "\n"
    )
    return found


def of_module(file: Path) -> Iterator[str]:
    """A module's name, what it is, and its public classes."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    if classes:
        module = "twinlens." + file.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", ".")
        yield f"## `{module.rsplit('.', 1)[1]}`\n"
        yield from (block(f"{module}.{name}") for name in classes)


def block(name: str) -> str:
    """Directive that shows one class with its public methods."""
    return f"```{{eval-rst}}\n.. autoclass:: {name}\n   :members:\n```\n"
