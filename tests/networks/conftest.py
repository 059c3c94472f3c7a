"""segment_anything uses OpenCV for the connected components of a mask; SciPy finds the same ones."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
from scipy import ndimage


def _connected_components_with_stats(image: np.ndarray, connectivity: int) -> tuple[int, np.ndarray, np.ndarray, None]:
    """As OpenCV's: labels with the background, label image, statistics whose last column is the area."""
    assert connectivity == 8
    regions, count = ndimage.label(image, np.ones((3, 3)))
    return count + 1, regions, np.bincount(regions.ravel(), minlength=count + 1)[:, None], None


@pytest.fixture(scope="session")
def opencv() -> None:
    """A stand-in for `cv2` with this one function, unless OpenCV is installed."""
    module = ModuleType("cv2")
    module.connectedComponentsWithStats = _connected_components_with_stats  # type: ignore[attr-defined]
    sys.modules.setdefault("cv2", module)
