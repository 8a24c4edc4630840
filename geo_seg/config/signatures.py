"""What a class or function accepts, read from its source without importing it.

Importing torch takes seconds; a typo in the configuration is answered before that. So the options of a
loss, a model, an optimizer or a Lightning Trainer are read with `ast` from the file that defines them.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

_ATOMS: dict[str, tuple[type, ...]] = {
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
    """One parameter.

    Attributes:
        annotation: source of its annotation, "" without.
        default: source of its default, None when it has to be given.
    """

    annotation: str
    default: str | None

    def accepts(self, value: Any) -> bool:
        """Whether a plain value from YAML fits the annotation; True where that can't be told."""
        if value is None and self.default == "None":
            return True
        atoms = _union(self.annotation)
        known = [a for a in atoms if a.partition("[")[0] in _ATOMS or a.startswith("Literal[")]
        if "Any" in atoms or not set(known) - {"None"}:
            return True
        return any(_fits(atom, value) for atom in known)


@dataclass(frozen=True)
class Signature:
    """The parameters of a callable.

    Attributes:
        parameters: by name, without self.
        accepts_kwargs: whether it takes further keywords (**kwargs).
    """

    parameters: dict[str, Parameter]
    accepts_kwargs: bool


@cache
def signature(target: str) -> Signature | None:
    """The signature of a dotted name, or None where the source doesn't tell."""
    package, *rest = target.split(".")
    found = _find(_package_file(package), rest) if rest else None
    return _signature_of(*found) if found else None


@cache
def is_class_path(target: str) -> bool:
    """Whether a dotted name leads to a class of its own package: not to torch.os.system, nor a function."""
    package, *rest = target.split(".")
    file = _package_file(package)
    found = _find(file, rest) if file and rest else None
    return (
        file is not None
        and found is not None
        and isinstance(found[1], ast.ClassDef)
        and found[0].is_relative_to(file.parent)
    )


def describe_unknown(target: str) -> str | None:
    """What is wrong with a dotted name that can't be there; None for one that is, or may be."""
    package, *rest = target.split(".")
    file = _package_file(package)
    if not rest:
        return "expected a dotted name, such as torch.optim.AdamW"
    if file is None:
        return None if PathFinder.find_spec(package) else f"there is no package {package}"
    while len(rest) > 1 and file.name == "__init__.py":
        below = file.parent / rest[0]
        found = next((p for p in (below / "__init__.py", below.with_suffix(".py")) if p.exists()), None)
        if found is None:
            break
        file, rest = found, rest[1:]
    names = _names_in(file)
    if not names or rest[0] in names or (file.parent / rest[0]).is_dir():
        return None
    close = get_close_matches(rest[0], [name for name in names if not name.startswith("_")], n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"there is no {rest[0]} in {target.removesuffix('.'.join(['', *rest]))}{hint}"


def ancestors(target: str) -> set[str] | None:
    """Names of a class and of all classes that it comes from; None where the source doesn't tell."""
    package, *rest = target.split(".")
    found = _find(_package_file(package), rest) if rest else None
    return _ancestors_of(*found) if found else None


def registered_factories(folder: Path) -> dict[str, tuple[Signature, tuple[str, ...]]]:
    """Names, options and modes of the factories that the files of a folder put under @register."""
    found = {}
    for file in sorted(folder.glob("*.py")):
        for node in _parse(file).body:
            if isinstance(node, ast.FunctionDef):
                for call in node.decorator_list:
                    if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "register":
                        name = ast.literal_eval(call.args[0])
                        modes = next(
                            (ast.literal_eval(k.value) for k in call.keywords if k.arg == "modes"), ()
                        )
                        found[name] = (_keywords(node, only=True), tuple(modes))
    return found


def _names_in(file: Path) -> set[str]:
    """What a module defines or imports; nothing where there may be more than its source says."""
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
        found = _find(file, text.split("."))
        above = {text} if text in {"object", "ABC", "Generic", "Protocol"} else None
        above = _ancestors_of(*found) if found else above
        if above is None:
            return None
        names |= above
    return names


def _union(annotation: str) -> list[str]:
    text = re.sub(
        r"^(typing\.|t\.)?Optional\[(.*)\]$", r"\2 | None", annotation.replace("collections.abc.", "")
    )
    text = re.sub(r"^(typing\.)?Union\[(.*)\]$", lambda m: " | ".join(_split(m[2], ",")), text)
    return [part.strip().replace("typing.", "") for part in _split(text, "|") if part.strip()]


def _split(text: str, mark: str) -> list[str]:
    parts, depth = [""], 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if char == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _fits(atom: str, value: Any) -> bool:
    if atom.startswith("Literal["):
        return value in ast.literal_eval(f"({atom[8:-1]},)")
    name = atom.partition("[")[0]
    if isinstance(value, bool):
        return name == "bool"
    return isinstance(value, _ATOMS.get(name, ()))


def _package_file(package: str) -> Path | None:
    spec = PathFinder.find_spec(package)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _find(file: Path | None, names: list[str]) -> tuple[Path, ast.stmt] | None:
    """Follows names from a module's file down to a definition, through re-exports."""
    if file is None or not names:
        return None
    head, rest = names[0], names[1:]
    if rest:
        below = file.parent / head
        files = (below / "__init__.py", below.with_suffix(".py")) if file.name == "__init__.py" else ()
        return _find(next((path for path in files if path.exists()), None), rest)
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
    path = folder.joinpath(*parts)
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.exists()), None)


def _signature_of(file: Path, node: ast.stmt) -> Signature | None:
    if isinstance(node, ast.FunctionDef):
        return _keywords(node)
    if isinstance(node, ast.ClassDef):
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return _keywords(item)
        for parent in node.bases:
            found = _find(file, [ast.unparse(parent)])
            inherited = _signature_of(*found) if found else None
            if inherited:
                return inherited
    return None


def _keywords(node: ast.FunctionDef, only: bool = False) -> Signature:
    args = node.args
    positional = [] if only else [*args.posonlyargs, *args.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    defaults = [] if only else [*missing, *args.defaults]
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
