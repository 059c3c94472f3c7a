"""Deliberate faults: a piece of a function's source is replaced while a test runs."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in function `where` ("module:Class.method", below pseudoris_cli); `judges` must all notice."""

    name: str
    where: str
    old: str
    new: str
    judges: tuple[str, ...]


@contextmanager
def applied(fault: Fault) -> Iterator[None]:
    """The faulty function in place of the right one, for all who have imported it; `old` must occur exactly once."""
    module_name, path = fault.where.split(":")
    module = importlib.import_module(f"pseudoris_cli.{module_name}")
    found: Any = module
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    function: FunctionType = found.fget if isinstance(found, property) else found
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(fault.old) == 1, f"{fault.name}: {fault.old!r} occurs {source.count(fault.old)} times"
    changed = compile("from __future__ import annotations\n" + source.replace(fault.old, fault.new), fault.name, "exec")
    [code] = [one for one in changed.co_consts if isinstance(one, CodeType) and one.co_name == function.__name__]
    right = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = right
