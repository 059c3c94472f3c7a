"""The fixture that makes work directories to report on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from work_maker import WorkMaker


@pytest.fixture
def maker(tmp_path: Path) -> Callable[..., WorkMaker]:
    """Makes work directories below the test's own folder."""
    return lambda scenes=3, **options: WorkMaker(tmp_path, scenes, **options)
