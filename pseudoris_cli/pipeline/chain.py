"""Which stages a run with some settings has, and the version that each makes; nothing is run or written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pseudoris_cli.backends import registry as backends
from pseudoris_cli.errors import MissingDependency, PseudorisError
from pseudoris_cli.settings.models import Settings
from pseudoris_cli.storage.plan import PLAN
from pseudoris_cli.storage.schema import SCHEMA_VERSION
from pseudoris_cli.storage.stage_table import STAGES, Stage, commands, stage
from pseudoris_cli.storage.workspace import fingerprint

log = logging.getLogger("pseudoris")


def module_of(row: Stage) -> Any:
    """The module of a stage (`stages/__init__.py` says what it defines)."""
    return import_module(f"pseudoris_cli.stages.{row.file}")


def wanted(settings: Settings) -> list[Stage]:
    """The stages of a run with these settings, in order."""
    return [row for row in STAGES if not row.optional or module_of(row).is_wanted(settings)]


def versions(settings: Settings | Mapping[str, Settings], plan_name: str = PLAN) -> dict[str, str]:
    """The version of every stage that a run with these settings makes, each from the one before; nothing is written.

    Settings may be given for each command.
    MissingDependency (exit 3) if a checkpoint is not here.
    """
    found: dict[str, str] = {}
    upstream = None
    given = dict.fromkeys(commands(), settings) if isinstance(settings, Settings) else settings
    for row in (row for row in STAGES if row.command in given and row in wanted(given[row.command])):
        content = content_of(given[row.command], row, upstream, plan_name)
        upstream = found[row.name] = fingerprint(content)
    return found


def content_of(settings: Settings, row: Stage, upstream: str | None, plan_name: str) -> dict[str, Any]:
    """All that decides the results of a stage; its hash is the version."""
    own = module_of(row).version_content(settings)
    return {"schema": SCHEMA_VERSION, "upstream": upstream, "plan": plan_name, **own}


def check_weights(settings: Settings | Mapping[str, Settings]) -> None:
    """MissingDependency (exit 3) if a checkpoint of any stage is not here: asked before the first stage has run for hours.

    A server that does not answer yet is only warned of: it may not be needed, or not be up before the masks are made.
    """
    try:
        versions(settings)
    except MissingDependency as error:
        raise MissingDependency(
            f"{error}\nall that these settings need, at once:  pseudoris weights fetch --profile NAME; what is missing:  "
            "pseudoris doctor --profile NAME"
        ) from None
    given = settings if isinstance(settings, Mapping) else dict.fromkeys(("captions", "filter"), settings)
    for what, section in (
        ("captions will need their server", given["captions"].captions),
        ("the judge will need its server", given["filter"].filter.judge),
    ):
        try:
            backends.check_reachable(section)
        except PseudorisError as error:
            log.warning("%s, which does not answer now: %s", what, error)


def commands_between(first: str, last: str) -> list[str]:
    """The commands after `first` and before `last`, in the order of the chain."""
    chain = commands()
    return list(chain[chain.index(first) + 1 : chain.index(last)])


def next_command(name: str) -> str:
    """The command that works on what a stage made."""
    chain = commands()
    return chain[min(chain.index(stage(name).command) + 1, len(chain) - 1)]
