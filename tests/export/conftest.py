"""Shared by the tests of the rendering."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported_work import Made, make_work


@pytest.fixture
def made(ram_path: Path) -> Made:
    """Three pictures with masks and an index, one a part."""
    return make_work(ram_path)
