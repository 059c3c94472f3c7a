"""Plug-ins: backends, sources and export formats, ours or those of an installed package. Listing them imports none.

A name is that of a file in our folder, of an entry point of an installed package, or a dotted path `my_package.my_module`.
A file of ours wins over an entry point of the same name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module, metadata, util
from pathlib import Path
from types import ModuleType

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.settings.resources import PACKAGE
from pseudoris_cli.text import nearest

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_ROLE = re.compile(r"^ROLE\s*(?::[^=]+)?=\s*(.+)$", re.MULTILINE)
_WORD = re.compile(r"[\"']([a-z]+)[\"']")


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in: where ours lie, and the group in which other packages name theirs."""

    title: str
    """What a message calls one."""
    folder: str
    """Below our package."""
    group: str
    """Of entry points, in the package metadata of whoever brings one."""
    joints: frozenset[str] = frozenset()
    """Files of the folder that are no plug-ins."""
    dashed: bool = False
    """Whether names are written with dashes where the file has underscores."""

    @property
    def package(self) -> str:
        """The folder as a module."""
        return f"pseudoris_cli.{self.folder.replace('/', '.')}"


BACKENDS = Kind(
    "backend", "backends", "pseudoris.backends", frozenset({"registry", "automatic_masks", "scene_listening"})
)
SOURCES = Kind(
    "kind of source",
    "sources",
    "pseudoris.sources",
    frozenset({"base", "registry", "detect", "metadata", "containers"}),
)
FORMATS = Kind("format", "export/formats", "pseudoris.formats", dashed=True)


@dataclass(frozen=True)
class PlugIn:
    """Where a plug-in's module is, and whose it is."""

    name: str
    module: str
    distribution: str = ""
    """Name and version of the installed package that brings it; empty for ours and for a dotted path."""
    rival: str = ""
    """Another installed package that brings one of this name."""

    @property
    def is_ours(self) -> bool:
        """Whether it is a file of this package."""
        return self.module.startswith("pseudoris_cli.")

    def __str__(self) -> str:
        """The name, with whose it is where it is not ours."""
        return f"{self.name} ({self.distribution})" if self.distribution else self.name


@lru_cache(maxsize=8)
def known(kind: Kind) -> dict[str, PlugIn]:
    """Every plug-in of a kind by name: ours and those of installed packages."""
    files = (path.stem for path in (PACKAGE / kind.folder).glob("[a-z]*.py") if path.stem not in kind.joints)
    ours = {_spelled(kind, file): PlugIn(_spelled(kind, file), f"{kind.package}.{file}") for file in sorted(files)}
    theirs: dict[str, PlugIn] = {}
    for entry in sorted(metadata.entry_points(group=kind.group), key=lambda entry: (entry.name, entry.value)):
        owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist else ""
        found = PlugIn(entry.name, entry.value.partition(":")[0].strip(), owner)
        before = theirs.setdefault(entry.name, found)
        if before.module != found.module:
            theirs[entry.name] = replace(before, rival=f"{found.module} ({found.distribution})")
    return theirs | ours


def _spelled(kind: Kind, file: str) -> str:
    return file.replace("_", "-") if kind.dashed else file


def names(kind: Kind) -> list[str]:
    """The names of all plug-ins of a kind, ours and those of installed packages."""
    return sorted(known(kind))


def locate(kind: Kind, name: str, choices: Sequence[str] = ()) -> PlugIn:
    """The plug-in of a name or a dotted path. UsageError names those that there are, or only `choices`."""
    if found := known(kind).get(name):
        if found.rival:
            raise UsageError(
                f"two installed packages bring a {kind.title} named {name!r}: {found.module} ({found.distribution}) and "
                f"{found.rival}; name the module that you mean"
            )
        return found
    if _DOTTED.fullmatch(name):
        return PlugIn(name, name)
    choices = choices or names(kind)
    raise UsageError(
        f"there is no {kind.title} {name!r}; choose from {', '.join(choices)}"
        f" or a module of your own as my_package.my_module{nearest(name, choices)}"
    )


def load(kind: Kind, name: str, choices: Sequence[str] = ()) -> ModuleType:
    """Import a plug-in.

    UsageError (exit 2) if there is none of that name or its module cannot be imported; MissingDependency (exit 3) if a
    package that it needs is not installed, naming that package.
    """
    found = locate(kind, name, choices)
    try:
        return import_module(found.module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if found.module == missing or found.module.startswith(f"{missing}."):
            raise UsageError(
                f"there is no {kind.title} {name!r}: the module {missing!r} cannot be imported; install it here, or put it on "
                "PYTHONPATH"
            ) from error
        raise MissingDependency(
            f"the {kind.title} {name!r} needs the package {missing.partition('.')[0]!r}, which is not installed; install it and "
            "run the command again"
        ) from error
    except (ImportError, SyntaxError, AttributeError, NameError) as error:
        raise UsageError(f"the {kind.title} {name!r} ({found.module}) cannot be imported: {error}") from error


def identity(kind: Kind, name: str) -> str | None:
    """What tells one state of a foreign plug-in from another: its package and number, else a digest of its file. None for ours."""
    found = locate(kind, name)
    if found.is_ours:
        return None
    if found.distribution:
        return found.distribution
    top = found.module.partition(".")[0]
    owners = metadata.packages_distributions().get(top, [])
    if owners:
        return f"{owners[0]} {metadata.version(owners[0])}"
    file = load(kind, name).__file__
    return f"{found.module} {hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]}" if file else found.module


def roles(name: str) -> tuple[str, ...]:
    """The roles that a backend declares, read from its text without importing it; () where it declares none there."""
    try:
        found = locate(BACKENDS, name)
        if found.is_ours:
            text = (PACKAGE / BACKENDS.folder / f"{name}.py").read_text(encoding="utf-8")
        else:
            spec = util.find_spec(found.module)
            text = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    except (OSError, UsageError, ImportError, ValueError):
        return ()
    declared = _ROLE.search(text)
    return tuple(_WORD.findall(declared[1])) if declared else ()


def roles_of(module: ModuleType) -> tuple[str, ...]:
    """The roles that an imported backend declares; () where it declares none."""
    declared = getattr(module, "ROLE", None)
    return (declared,) if isinstance(declared, str) else tuple(declared or ())


def backends_of(role: str) -> list[str]:
    """The names of the backends that declare a role, ours and those of installed packages."""
    return [name for name in names(BACKENDS) if role in roles(name)]


def described(kind: Kind, chosen: Sequence[str] | None = None) -> str:
    """Names for a help text, each with whose it is where it is not ours; `chosen`: only these."""
    return ", ".join(str(known(kind)[name]) for name in (names(kind) if chosen is None else chosen))
