"""`doctor --endpoint` on real servers: abilities are read off answers, whatever a server says of itself."""

from __future__ import annotations

import json

from invoking import invoke
from vlm_proxy import Fault, Proxy, misbehaving


def findings(url: str, *more: str) -> dict[str, dict]:
    done = invoke(
        "doctor", "--endpoint", url, "--set", "captions.backend=vlm", "--set", "captions.concurrency=2", "--json", *more
    )
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_transformers_serve_sees_pictures_decides_and_ignores_the_rest(vlm_server: str) -> None:
    found = findings(vlm_server)
    assert "answers for tiny-vlm (lists 1 model; no key)" in found["endpoint"]["detail"]
    assert found["endpoint pictures"]["status"] == "ok"
    assert "not held to a JSON schema" in found["endpoint schema"]["detail"]
    assert found["endpoint logprobs"]["detail"] == "no probabilities of tokens"
    assert found["endpoint choice"]["detail"] == "no choice constraint"
    assert "(assets)" in found["endpoint systemone"]["detail"]
    assert found["endpoint listener"]["detail"].endswith("systemone")
    assert "requests/s with 2 in flight" in found["endpoint pace"]["detail"]


def test_a_server_with_logits(logits_server: str) -> None:
    found = findings(logits_server)
    assert "(json_schema)" in found["endpoint schema"]["detail"]
    assert found["endpoint logprobs"]["detail"] == "probabilities of 20 tokens"
    assert found["endpoint choice"]["detail"] == "answers are held to one of several texts"
    assert found["endpoint systemone"]["detail"] == "no decisions about a picture"
    assert found["endpoint listener"]["detail"].endswith("logprobs")


def test_a_server_that_is_not_there_or_has_no_eyes(vlm_server: str) -> None:
    found = findings("http://127.0.0.1:9/v1")
    assert list(found) == ["endpoint"]
    assert found["endpoint"]["status"] == "fail"
    assert found["endpoint"]["next_step"]
    with misbehaving(vlm_server) as blind:
        blind.always = lambda body: Fault(text="hello")
        found = findings(blind.url)
        assert found["endpoint pictures"]["status"] == "fail"
        assert "vision-language" in found["endpoint pictures"]["next_step"]


def test_parameters_that_a_server_does_not_take_are_left_out(vlm_proxy: Proxy) -> None:
    """As hosted reasoning models have it: max_completion_tokens, no temperature, no seed."""
    from pseudoris_cli.endpoint import probe
    from pseudoris_cli.endpoint.address import Address
    from pseudoris_cli.endpoint.client import Client

    def refuse(body: dict) -> Fault | None:
        for name, words in (
            ("max_tokens", "use max_completion_tokens"),
            ("temperature", "temperature"),
            ("seed", "seed"),
        ):
            if name in body:
                return Fault(status=400, body=json.dumps({"error": {"message": f"Unsupported: {words}"}}).encode())
        return None

    vlm_proxy.always = refuse
    client = Client(Address.of(vlm_proxy.url, "NONE"))
    form = client.wait_for(probe.chat_form(client, "tiny-vlm", ["tiny-vlm"]))
    assert (form.token_limit, form.takes_temperature, form.takes_seed) == ("max_completion_tokens", False, False)
    body = form.body([], 7, temperature=0.5, top_p=0.5, seed=1)
    assert body == {"model": "tiny-vlm", "messages": [], "max_completion_tokens": 7}
