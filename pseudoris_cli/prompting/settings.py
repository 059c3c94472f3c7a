"""What every captioner and every listener that is asked in words has: what it is shown, and how expressions read."""

from __future__ import annotations

from pydantic import Field

from pseudoris_cli.prompting import prompts, questions
from pseudoris_cli.prompting.prompts import Prompt, Style
from pseudoris_cli.prompting.views import View
from pseudoris_cli.settings.models import CaptionSettings, JudgeSettings


class PromptSettings(CaptionSettings):
    """The settings that a server's model and one in this process share; their own Settings derive from this."""

    candidates: int = Field(8, ge=1, le=64, description="expressions asked for per mask")
    view: View = Field("marks+crop", description="what is shown: marks+crop, contour+crop, box+crop, crop, rgba")
    max_side: int = Field(1024, ge=64, le=8192, description="pixels of the longer side of a picture, at most")
    max_marks: int = Field(
        20, ge=1, le=99, description="numbered objects in a picture, at most; the most similar rivals stay"
    )
    style: Style = Field(
        "free", description="how expressions read: free, refcoco, refcoco+ (no positions), refcocog (long)"
    )
    language: str = Field("English", pattern=r"^[^\n\r\t$]{2,40}$", description="language of the expressions")
    max_tokens: int = Field(512, ge=16, description="tokens of an answer, at most")
    prompt: str = Field(prompts.BUILT_IN, description="built-in prompt (refer), or a text file with fields as $number")

    def load_prompt(self) -> Prompt:
        """The prompt with these settings in its place. UsageError (exit 2) for a file that cannot be used."""
        return prompts.load_prompt(self.prompt, self.view, self.style, self.language, self.candidates)


class QuestionSettings(JudgeSettings):
    """What listeners are shown; their own Settings derive from this."""

    max_marks: int = Field(
        20,
        ge=2,
        le=questions.MOST_OBJECTS,
        description="most objects that are shown: the mask and the rivals most like it",
    )
    max_side: int = Field(1024, ge=64, le=8192, description="pixels of the longer side of the picture, at most")
