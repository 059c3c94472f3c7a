"""What is sent: pictures are put into a body as they are, and the bytes are those of plain JSON."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

import pytest

from pseudoris_cli.endpoint.asking import Request, user_message
from pseudoris_cli.endpoint.client import Embedded, encoded


@dataclass(frozen=True)
class Picture:
    media_type: str
    data: bytes


def test_a_request_is_plain_json_byte_for_byte() -> None:
    pictures = [Picture("image/jpeg", bytes(range(256)) * 9), Picture("image/png", b"")]
    text = 'Nr. 3 "ä" \\ / 猫\n{"url": "data:image/jpeg;base64,"}'
    body = {"model": "m", "messages": [user_message(pictures, text)], "seed": 7, "temperature": 0.7, "top_p": None}
    plain = [
        {
            "type": "image_url",
            "image_url": {"url": f"data:{one.media_type};base64,{base64.b64encode(one.data).decode()}"},
        }
        for one in pictures
    ]
    content = [*plain, {"type": "text", "text": text}]
    expected = body | {"messages": [{"role": "user", "content": content}]}
    assert Request.of(body).data == json.dumps(expected, separators=(",", ":")).encode("ascii")
    assert json.loads(Request.of(body).data) == expected
    assert Request.of(expected) == Request.of(body), "its digest is that of an answer kept by an older journal"


def test_what_is_no_json_is_refused_as_ever() -> None:
    with pytest.raises(TypeError, match="set is no JSON"):
        encoded({"model": {1}})
    assert encoded({"a": [Embedded(b"x"), "y", Embedded(b"z")]}) == b'{"a":["x","y","z"]}'
    assert encoded({"a": "é"}) == b'{"a":"\\u00e9"}'
