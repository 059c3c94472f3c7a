"""Where the endpoint is and the key to it. A key lives here and in the headers of requests, nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pseudoris_cli.errors import UsageError

ADDRESS_VARIABLE = "OPENAI_BASE_URL"
_NO_KEY = "none"


@dataclass(frozen=True)
class Address:
    """An endpoint: its base URL (`http://localhost:8000/v1`), and the key with the name of the variable that it came from."""

    url: str
    key: str = field(repr=False)
    key_variable: str
    section: str = "captions"
    """The section of the settings that says how it is asked."""

    @classmethod
    def of(
        cls, endpoint: str | None, key_variable: str, section: str = "captions", origin: str | None = None
    ) -> Address:
        """From the settings, else from OPENAI_BASE_URL. `origin`: where the endpoint was named, if not in its section.

        UsageError (exit 2) if there is none, or it is no http address, or holds a password.
        """
        url = (endpoint or os.environ.get(ADDRESS_VARIABLE) or "").strip()
        setting = origin or f"{section}.endpoint"
        if not url:
            raise UsageError(
                f"no endpoint: name the server, e.g. --set {setting}=http://localhost:8000/v1, or set {ADDRESS_VARIABLE}"
            )
        if problem := address_problem(url):
            raise UsageError(f"{setting if endpoint else ADDRESS_VARIABLE} {problem}")
        return cls(url.rstrip("/"), os.environ.get(key_variable, "").strip() or _NO_KEY, key_variable, section)

    @property
    def has_key(self) -> bool:
        """Whether the variable was set."""
        return self.key != _NO_KEY

    def clean(self, text: str) -> str:
        """A text of the server's without the key, should it have come back in it."""
        return text.replace(self.key, "[key]") if self.has_key else text


def address_problem(url: str) -> str | None:
    """Why a text cannot be the address of an endpoint; None if it can. The text itself is not repeated: it may hold a key."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        return "is no address; write it like http://localhost:8000/v1"
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        return "is no http address; write it like http://localhost:8000/v1"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "holds a user, a password or a query; leave the bare address and put the key into the variable of api_key_env"
    return None
