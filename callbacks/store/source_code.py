"""Modules as far as they can change a number: their syntax trees, the modules they import, the libraries they use."""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from twinlens.attribution.errors import UserError

PROJECT = "twinlens"
INSTALLED = ("site-packages", "dist-packages")
"""Folders of packages that are known by their version."""


@dataclass(frozen=True)
class ModuleCode:
    """One module.

    Attributes:
        tree: sha256 of the syntax tree without comments, docstrings, positions and imports of followed modules.
        imports: followed modules, each with what is asked of it.
        libraries: top-level names of what else it imports, the standard library left out.
    """

    tree: str
    imports: tuple[tuple[str, str], ...]
    libraries: frozenset[str]


@cache  # a process imports its code once
def module_code(name: str) -> ModuleCode:
    """The code of a module.

    Raises:
        UserError: there is no file to read it from.
    """
    file = _file_of(name)
    if file is None:
        raise UserError(
            f"the source of the module {name} cannot be found, on which stored results depend; expected a file: move "
            "the class that the configuration names into a module of its own."
        )
    if file.suffix != ".py":  # compiled
        return ModuleCode(hashlib.sha256(file.read_bytes()).hexdigest(), (), frozenset())
    with _without_collections():
        tree = ast.parse(source_of(file))
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        return _Reader(name, package).read(tree)


def source_of(file: Path) -> str:
    """The text of a module's file."""
    return file.read_text(encoding="utf-8")


def module_of(target: str) -> str:
    """The module in the dotted name of a module or of something in it, empty where there is none."""
    name = target
    while name and not _exists(name):
        name = name.rpartition(".")[0]
    return name


def is_library(name: str) -> bool:
    """Whether a module that the configuration names is known by its version, or part of Python."""
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names or (top != PROJECT and _is_installed(top))


@cache  # finding out takes a noticeable time
def version_of(library: str) -> str:
    """Major and minor version of a library by its top-level name, empty where there is none."""
    if library in sys.stdlib_module_names:
        return ""
    return ".".join(installed_version(library).split(".")[:2])


def installed_version(library: str) -> str:
    """The whole version, empty where there is none."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(library, [])
        return metadata.version(names[0]) if names else ""


class _Reader:
    """Reads the tree of one module.

    Args:
        name: of the module.
        package: that it lies in.
    """

    def __init__(self, name: str, package: str) -> None:
        self.top = name.partition(".")[0]
        self.package = package
        self.imports: list[tuple[str, str]] = []
        self.libraries: set[str] = set()
        self.left_out: set[ast.AST] = set()
        self.bound: dict[str, str] = {}  # local names that stand for followed modules
        self.order: dict[str, str] = {}

    def read(self, tree: ast.Module) -> ModuleCode:
        """All that counts of the module."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
            elif isinstance(node, ast.Call):
                self._import_by_call(node)
        parts: list[str] = []
        self._describe(tree, parts)
        local = set(self.bound.values())
        asked = [(name, self.order.get(what, "module") if what in local else what) for name, what in self.imports]
        digest = hashlib.sha256("".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
        return ModuleCode(digest, tuple(sorted(set(asked))), frozenset(self.libraries))

    def _import(self, node: ast.Import) -> None:
        followed = [self._follow(alias.name, alias.asname) for alias in node.names]
        if all(followed):
            self.left_out.add(node)

    def _import_from(self, node: ast.ImportFrom) -> None:
        base = importlib.util.resolve_name("." * node.level + (node.module or ""), self.package)
        if not self._is_followed(base):
            return
        self.left_out.add(node)
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            if alias.name != "*" and _is_package(base) and _exists(inner):
                self._follow(inner, alias.asname or alias.name)
            else:
                self.imports.append((base, f"{alias.name} as {alias.asname or alias.name}"))

    def _import_by_call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            self._follow(str(node.args[0].value), None)

    def _follow(self, name: str, bound: str | None) -> bool:
        """Note the import of a module, `bound` to a local name; whether it is followed."""
        if not self._is_followed(name):
            return False
        self.imports.append((name, f"module {bound or ''}"))
        if bound:
            self.bound[bound] = f"module {bound}"
        return True

    def _is_followed(self, name: str) -> bool:
        top = name.partition(".")[0]
        if top in (self.top, PROJECT) or _is_followed_package(top):
            return True
        if top not in sys.stdlib_module_names:
            self.libraries.add(top)
        return False

    def _describe(self, node: ast.AST, parts: list[str]) -> None:
        """Write a node with all below it; fields without content are left out, as they differ between Pythons."""
        if isinstance(node, ast.Name) and node.id in self.bound:
            # a renamed module is called otherwise here, and is the same
            parts.append(self.order.setdefault(self.bound[node.id], f"module {len(self.order)}"))
            return
        parts.append(f"{type(node).__name__}(")
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, ast.AST):
                parts.append(f"{field}:")
                self._describe(value, parts)
            elif isinstance(value, list):
                self._describe_list(field, value, parts)
            elif value is not None or isinstance(node, ast.Constant):
                parts.append(f"{field}={value!r},")
        parts.append(")")

    def _describe_list(self, field: str, values: Sequence[object], parts: list[str]) -> None:
        kept = [value for value in values if not self._says_nothing(value)]
        if kept:
            parts.append(f"{field}[")
            for value in kept:
                if isinstance(value, ast.AST):
                    self._describe(value, parts)
                else:
                    parts.append(f"{value!r},")
            parts.append("]")

    def _says_nothing(self, value: object) -> bool:
        """Whether a statement is a docstring or an import of followed modules."""
        if isinstance(value, ast.Expr):
            return isinstance(value.value, ast.Constant) and isinstance(value.value.value, str)
        return isinstance(value, ast.AST) and value in self.left_out


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep the garbage collector out: it would look at every node of every tree, three times the time of parsing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@cache
def _file_of(name: str) -> Path | None:
    """The file of a module; modules that are not loaded yet stay so."""
    loaded = sys.modules.get(name)
    file = getattr(loaded, "__file__", None)
    if loaded is None:
        spec = _spec_of(name)
        file = spec.origin if spec is not None and spec.has_location else None
    return Path(file) if file else None


@cache
def _exists(name: str) -> bool:
    return name in sys.modules or _spec_of(name) is not None


def _spec_of(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # the parent is no package; a loaded module without a specification
        return None


def _is_package(name: str) -> bool:
    file = _file_of(name)
    return file is None or file.name == "__init__.py"


@cache
def _is_installed(top: str) -> bool:
    """Whether a top-level package lies where packages are installed."""
    file = _file_of(top)
    return file is not None and any(part in INSTALLED for part in file.parts)


@cache
def _is_followed_package(top: str) -> bool:
    """Whether a package is code of the user's own: it is there, not installed, and has no version."""
    if top in sys.stdlib_module_names or not _exists(top) or _is_installed(top):
        return False
    return not installed_version(top)
