"""The decoding rules: samplers, contrast, caption lengths and the vocabulary's special tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class DecodingRules:
    """The rules of distinctive caption sampling (Pseudo-RIS §3.2).

    `start`, `end` and `pad` are token ids; lengths are in tokens and count the start and the end token.
    """

    start: int
    end: int
    pad: int
    top_k: tuple[int, ...]
    top_p: tuple[float, ...]
    contrast: float
    contrast_form: Literal["literal", "scale_preserving"]
    contrast_max_masks: int | None
    similarity_clamp: float | None
    pad_ends_row: bool
    min_length: int
    max_length: int

    @property
    def samplers(self) -> int:
        """Captions sampled per crop; the top-k samplers come first."""
        return len(self.top_k) + len(self.top_p)

    def contrasts(self, masks: int) -> bool:
        """Whether the crops of an image with this many masks are contrasted with each other."""
        return masks > 1 and self.contrast > 0 and (self.contrast_max_masks is None or masks <= self.contrast_max_masks)


@dataclass(frozen=True, slots=True)
class Generated:
    """One caption: its tokens without the start, with the end where there is one, and the sum of their log-probabilities.

    Log-probabilities are the log-softmax of the crop's own logits before any rule is applied, also for an end token that
    was forced by the maximum length.
    """

    tokens: tuple[int, ...]
    logprob: float
