"""Whether merged values are settings; what is wrong is said with the setting's name and the layer that it came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings.models import Settings, backend_sections, backend_settings
from pseudoris_cli.settings.trees import leaves
from pseudoris_cli.text import nearest


def checked(merged: dict[str, Any], layers: dict[str, str]) -> Settings:
    """The settings that a merged tree holds. UsageError (exit 2) with everything that is wrong with it.

    `layers`: dotted name -> the layer that gave the value, for the messages.
    """
    problems = list(_backend_problems(merged, layers))
    if not problems:
        try:
            return Settings.model_validate(merged)
        except ValidationError as error:
            problems = [_explain(error, (), Settings, layers)]
    raise UsageError(
        "\n".join(problems) + "\n`pseudoris config show` lists every setting and where its value comes from"
    )


def _backend_problems(merged: dict[str, Any], layers: dict[str, str]) -> Iterator[str]:
    """Check each backend's section with that backend's own model, so that errors name the setting."""
    defaults = Settings()
    for path, role in backend_sections(Settings):
        section: Any = merged
        default: Any = defaults
        for name in path:
            section = section.get(name, {}) if isinstance(section, dict) else {}
            default = getattr(default, name)
        if not isinstance(section, dict) or not section:
            continue
        backend = section.setdefault("backend", default.backend)
        setting = f"{'.'.join(path)}.backend"
        try:
            model = backend_settings(str(backend), role)
        except UsageError as error:
            yield f"{setting}: {error}{_said_in(setting, layers)}"
            continue
        try:
            model.model_validate(section)
        except ValidationError as error:
            yield _explain(error, path, model, layers)


MAY_HOLD_A_KEY = ("endpoint", "api_key_env")
"""Settings into which somebody may write a key by mistake: a wrong value of them is not repeated."""


def _explain(error: ValidationError, path: tuple[str, ...], model: type[BaseModel], layers: dict[str, str]) -> str:
    lines = []
    for problem in error.errors():
        location = ".".join(str(part) for part in (*path, *problem["loc"]))
        said = _said_in(location, layers)
        if problem["type"] == "extra_forbidden":
            elsewhere = location in _names()  # with the usual backend
            why = "the backend that is chosen there has" if elsewhere else "there is"
            lines.append(f"{location}: {why} no such setting{'' if elsewhere else nearest(location, _names())}{said}")
        elif "dict" in problem["type"] or problem["type"] == "model_type":
            inside = [name for name in _names() if name.startswith(f"{location}.")]
            example = f", e.g. {inside[-1]}" if inside else ""
            lines.append(f"{location} is a section, not {problem['input']!r}: set what is in it{example}{said}")
        elif location.rpartition(".")[2] in MAY_HOLD_A_KEY:
            lines.append(f"{location}: {problem['msg']}")
        else:
            lines.append(f"{location}: {problem['msg']}, not {problem['input']!r}{said}")
    return "\n".join(lines)


def _said_in(setting: str, layers: dict[str, str]) -> str:
    """Which layer gave a setting its value, as the end of a message."""
    return f" (from {layers[setting]})" if setting in layers else ""


def _names() -> list[str]:
    return [name for name, _ in leaves(Settings().model_dump(mode="json"))]
