"""Signatures of classes and functions, read from their source without importing it.

Importing torch takes seconds; a typo in the configuration is reported before that. So the options of a
loss, a model, an optimizer or a Lightning Trainer are read with `ast` from the file that defines them.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

_TYPES_BY_NAME: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
    "dict": (dict,),
    "Mapping": (dict,),
    "list": (list,),
    "tuple": (list,),
    "Sequence": (list,),
    "Iterable": (list,),
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a callable.

    Attributes:
        annotation: source of its annotation, "" if it has none.
        default: source of its default, None if it has none.
    """

    annotation: str
    default: str | None

    def accepts(self, value: object) -> bool:
        """Return whether a plain value from YAML matches the annotation; True if that is unknown."""
        if value is None and self.default == "None":
            return True
        members = union_members(self.annotation)
        known = [m for m in members if m.partition("[")[0] in _TYPES_BY_NAME or m.startswith("Literal[")]
        if "Any" in members or not set(known) - {"None"}:
            return True
        return any(_matches(member, value) for member in known)


@dataclass(frozen=True)
class Signature:
    """The parameters of a callable.

    Attributes:
        parameters: by name, without self.
        accepts_kwargs: whether it has **kwargs.
    """

    parameters: dict[str, Parameter]
    accepts_kwargs: bool


@dataclass(frozen=True)
class Registration:
    """A function or class that a decorator registers by name.

    Attributes:
        options: its keyword-only parameters.
        arguments: keyword arguments of the decorator, of those that are literals.
    """

    options: Signature
    arguments: dict[str, Any]


@cache
def signature(target: str) -> Signature | None:
    """Return the signature of a dotted name, or None if it can't be read from the source."""
    definition = _find_definition(target)
    return _signature_of(*definition) if definition else None


@cache
def is_class_path(target: str) -> bool:
    """Return whether a dotted name is a class of its own package: not torch.os.system, nor a function."""
    package = _package_file(target.partition(".")[0])
    definition = _find_definition(target)
    if package is None or definition is None:
        return False
    file, node = definition
    return isinstance(node, ast.ClassDef) and file.is_relative_to(package.parent)


def describe_unknown(target: str) -> str | None:
    """Return what is wrong with a dotted name that can't exist; None for one that does, or may."""
    package, *rest = target.split(".")
    file = _package_file(package)
    if not rest:
        return "expected a dotted name, such as torch.optim.AdamW"
    if file is None:
        return None if PathFinder.find_spec(package) else f"unknown package {package}"
    while len(rest) > 1 and file.name == "__init__.py":
        submodule = _module_file(file.parent / rest[0])
        if submodule is None:
            break
        file, rest = submodule, rest[1:]
    names = _names_in(file)
    if not names or rest[0] in names or (file.parent / rest[0]).is_dir():
        return None
    matches = get_close_matches(
        rest[0], [name for name in names if not name.startswith("_")], n=1, cutoff=0.5
    )
    hint = f"; did you mean {matches[0]!r}?" if matches else ""
    return f"unknown name {rest[0]!r} in {target.removesuffix('.'.join(['', *rest]))}{hint}"


def ancestors(target: str) -> set[str] | None:
    """Return the names of a class and of all its base classes; None if they can't be read from the source."""
    definition = _find_definition(target)
    return _ancestors_of(*definition) if definition else None


def registrations(files: Iterable[Path], decorator: str) -> dict[str, Registration]:
    """Return the functions and classes that Python files register by a literal name.

    Args:
        files: the files.
        decorator: name of the decorator; its first argument is the registered name.
    """
    by_name = {}
    for file in files:
        for node in _parse(file).body:
            for call in getattr(node, "decorator_list", ()):
                if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == decorator:
                    literals = [k for k in call.keywords if isinstance(k.value, ast.Constant | ast.Tuple)]
                    arguments = {str(k.arg): ast.literal_eval(k.value) for k in literals}
                    options = _signature_of(file, node, keyword_only=True) or Signature({}, False)
                    by_name[ast.literal_eval(call.args[0])] = Registration(options, arguments)
    return by_name


def module_file(module: str) -> Path | None:
    """Return the Python file of a module's dotted name, None if there is none; nothing is imported."""
    package, *rest = module.split(".")
    file = _package_file(package)
    return file if file is None or not rest else _module_file(file.parent.joinpath(*rest))


def _names_in(file: Path) -> set[str]:
    """Return the names that a module defines or imports; empty if it may have more than its source shows."""
    names: set[str] = set()
    for node in _top_level(_parse(file)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {name.id for name in node.targets if isinstance(name, ast.Name)}
    return set() if names & {"*", "__getattr__"} else names


def _ancestors_of(file: Path, node: ast.stmt) -> set[str] | None:
    if not isinstance(node, ast.ClassDef):
        return None
    names = {node.name}
    for parent in node.bases:
        text = ast.unparse(parent).partition("[")[0]
        definition = _find(file, text.split("."))
        bases = {text} if text in {"object", "ABC", "Generic", "Protocol"} else None
        bases = _ancestors_of(*definition) if definition else bases
        if bases is None:
            return None
        names |= bases
    return names


def union_members(annotation: str) -> list[str]:
    """Return the members of an annotation that may be a union."""
    text = re.sub(
        r"^(typing\.|t\.)?Optional\[(.*)\]$", r"\2 | None", annotation.replace("collections.abc.", "")
    )
    text = re.sub(r"^(typing\.)?Union\[(.*)\]$", lambda m: " | ".join(_split(m[2], ",")), text)
    return [part.strip().replace("typing.", "") for part in _split(text, "|") if part.strip()]


def _split(text: str, separator: str) -> list[str]:
    parts, depth = [""], 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if char == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _matches(member: str, value: object) -> bool:
    if member.startswith("Literal["):
        return value in ast.literal_eval(f"({member[8:-1]},)")
    name = member.partition("[")[0]
    if isinstance(value, bool):
        return name == "bool"
    return isinstance(value, _TYPES_BY_NAME.get(name, ()))


def _package_file(package: str) -> Path | None:
    spec = PathFinder.find_spec(package)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _module_file(path: Path) -> Path | None:
    """Return the file of a package or module at a path without suffix."""
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.exists()), None)


def _find_definition(target: str) -> tuple[Path, ast.stmt] | None:
    """Return the file and the definition of a dotted name."""
    package, *rest = target.split(".")
    return _find(_package_file(package), rest) if rest else None


def _find(file: Path | None, names: list[str]) -> tuple[Path, ast.stmt] | None:
    """Follow names from a module's file to a definition, through re-exports."""
    if file is None or not names:
        return None
    head, rest = names[0], names[1:]
    if rest:
        return _find(_module_file(file.parent / head) if file.name == "__init__.py" else None, rest)
    for node in _top_level(_parse(file)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == head:
            return file, node
        if isinstance(node, ast.ImportFrom):
            original = {alias.asname or alias.name: alias.name for alias in node.names}
            if head in original:
                return _find(_imported_file(file, node), [original[head]])
    return None


def _imported_file(file: Path, node: ast.ImportFrom) -> Path | None:
    parts = node.module.split(".") if node.module else []
    if node.level:
        folder = file.parent
        for _ in range(node.level - 1):
            folder = folder.parent
    else:
        root = _package_file(parts[0])
        if root is None:
            return None
        folder, parts = root.parent, parts[1:]
    return _module_file(folder.joinpath(*parts))


def _signature_of(file: Path, node: ast.stmt, keyword_only: bool = False) -> Signature | None:
    if isinstance(node, ast.FunctionDef):
        return _parameters(node, keyword_only)
    if isinstance(node, ast.ClassDef):
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return _parameters(item, keyword_only)
        for parent in node.bases:
            definition = _find(file, [ast.unparse(parent)])
            inherited = _signature_of(*definition, keyword_only) if definition else None
            if inherited:
                return inherited
    return None


def _parameters(node: ast.FunctionDef, keyword_only: bool = False) -> Signature:
    args = node.args
    positional = [] if keyword_only else [*args.posonlyargs, *args.args]
    no_defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    defaults = [] if keyword_only else [*no_defaults, *args.defaults]
    pairs = [*zip(positional, defaults, strict=True), *zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    parameters = {
        arg.arg: Parameter(
            annotation=ast.unparse(arg.annotation).strip("'\"") if arg.annotation else "",
            default=ast.unparse(default) if default else None,
        )
        for arg, default in pairs
        if arg.arg != "self"
    }
    return Signature(parameters, accepts_kwargs=args.kwarg is not None)


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from node.body


@cache
def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
