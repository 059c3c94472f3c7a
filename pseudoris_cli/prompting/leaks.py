"""Expressions that may not pass, by rule: those that speak of the overlay instead of the scene, and words a style excludes."""

from __future__ import annotations

import re

from pseudoris_cli.prompting.prompts import Style

MARKS = "names the marks"
POSITION = "position words in refcoco+"

_THING = (
    r"(?:object|item|region|instance|segment|entity|element|target|thing|area|mark|marker|label|tag|shape|outline|mask)"
)
_NUMBER = r"(?:#\s*|nos?\.\s*|numbers?\s+|numeral\s+|num\.?\s*)?\(?\d{1,3}\)?"
_COLOUR = r"(?:thick |thin |bold |bright |black and |black-and-)*(?:white|black)"
_DRAWN = r"(?:outline|contour|border line|boundary line|rectangle|bounding box|marker|mark|highlight|line around it|lines? around)"
_LEAKS = [
    rf"\b{_THING}s?\s*{_NUMBER}(?!\w)",
    r"\b(?:labell?ed|numbered|tagged|annotated|marked|designated|indicated|identified|denoted)\s+"
    rf"(?:as|by|with)?\s*(?:the\s+)?{_NUMBER}(?!\w)",
    r"\b(?:labell?ed|numbered|annotated|outlined|circled|encircled|contoured)\s+(?:object|item|region|one|area|thing|target)s?\b",
    r"\b(?:marked|highlighted|indicated|selected|segmented)\s+"
    r"(?:object|item|region|one|area|thing|target|by|with|in (?:white|black))",
    r"\b(?:outlined|circled|encircled|contoured|framed|boxed|highlighted|surrounded|enclosed|bounded)\s+"
    rf"(?:in|by|with|inside|within)\s+(?:an?\s+|the\s+)?(?:{_COLOUR}|{_DRAWN}|box\b|number)",
    r"\b(?:that|which) is (?:outlined|circled|encircled|highlighted|boxed|numbered)\b",
    r"^(?:the\s+)?(?:outlined|circled|encircled|highlighted|boxed|numbered|contoured)\b",
    rf"\b{_COLOUR}\s+{_DRAWN}",
    r"\b(?:bounding box|segmentation|overlay|alpha channel|(?:thick|thicker) (?:line|outline|contour))",
    rf"\b(?:in|inside|within|with|has|having)\s+(?:an?\s+|the\s+)?{_COLOUR}\s+(?:box|frame|number|numeral|digit)\b(?!\s+(?:on|printed|painted))",
    r"^(?:the\s+)?(?:one\s+)?(?:#|no\.|number)\s*\d{1,3}$",
    r"\b(?:with|by|under|near|beside|at)\s+(?:the\s+)?(?:number|label|numeral|tag)\s+#?\d{1,3}(?!\w)"
    r"(?!\s+(?:on|printed|painted|written|shirt|jersey|bib|bus|train))",
    r"\b(?:image|picture|figure|photo)\s*#?[12]\b",
    r"\b(?:first|second) (?:image|picture|photo)\b",
    r"\bthe target\b(?!\s+(?:board|sign|store|shop|logo|bag))",
]
_LEAK = re.compile("|".join(_LEAKS), re.IGNORECASE)
_FEW_WORDS = re.compile(r"^(?:\w+\s+)?(?:\w+\s+)?[#№(]?\s*(\d{1,3})\)?$")
_NUMBERED = re.compile(  # things that bear a number of their own
    r"\b(?:player|runner|rider|racer|driver|skier|swimmer|cyclist|biker|batter|pitcher|goalie|horse|jersey|shirt|bib|bus|train|"
    r"tram|car|truck|taxi|cab|boat|plane|kart|house|room|gate|lane|door|locker|route|highway|platform|track)\b",
    re.IGNORECASE,
)
_WHERE = re.compile(
    r"\b(?:left|right|leftmost|rightmost|top|topmost|bottom|bottommost|middle|center|centre|central|upper|lower|front|back|"
    r"foreground|background|nearest|farthest|furthest|closest|above|below|beneath|behind|in front)\b",
    re.IGNORECASE,
)
_WORN = re.compile(
    r"\b(?:right|left)[- ](?:hand|handed|arm|leg|foot|eye)\b|\b(?:tank|crop|hard|flat|table|roof|counter)[- ]?tops?\b"
    r"|\btop(?:s)? (?:hat|hats)\b|\b(?:white|black|red|blue|green|yellow|pink|purple|orange|grey|gray|brown|striped) tops?\b"
    r"|\bback ?packs?\b|\bbell[- ]bottoms?\b",
    re.IGNORECASE,
)


def problem(text: str, style: Style, marked: int) -> str | None:
    """Why an expression may not pass; None if it may. `marked`: how many objects had a number in the picture.

    The rules are of English words and of digits. Of any language: a text of at most three words that ends in the number of a mark.
    """
    if _LEAK.search(text):
        return MARKS
    if (match := _FEW_WORDS.match(text)) and 1 <= int(match[1]) <= marked and not _NUMBERED.search(text):
        return MARKS
    if style == "refcoco+" and _WHERE.search(_WORN.sub(" ", text)):
        return POSITION
    return None
