"""What every backend that asks an endpoint has: which server and model, how often and how long; and the way to it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from pseudoris_cli.endpoint import probe
from pseudoris_cli.endpoint.address import Address, address_problem
from pseudoris_cli.endpoint.client import Client
from pseudoris_cli.settings.models import BackendSettings


class EndpointSettings(BackendSettings):
    """The settings of a connection; none of them is a result. A backend's `version` holds the model as the server lists it."""

    RUNS_ELSEWHERE: ClassVar[bool] = True
    NO_RESULT: ClassVar[frozenset[str]] = frozenset(
        {"endpoint", "api_key_env", "model", "concurrency", "timeout", "retries"}
    )

    endpoint: str | None = Field(None, description="address, e.g. http://localhost:8000/v1; null: $OPENAI_BASE_URL")
    model: str | None = Field(None, description="name as the server lists it; null: the only one that it lists")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the key, if one is needed")
    concurrency: int = Field(16, ge=1, le=1024, description="requests in flight")
    timeout: float = Field(120.0, gt=0, description="seconds that one attempt may take")
    retries: int = Field(5, ge=0, le=20, description="further attempts after a timeout, a busy or a failing server")

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and (problem := address_problem(value)):
            raise ValueError(f"the address {problem}")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _is_variable(cls, value: str) -> str:
        if not (value.isascii() and value.isidentifier() and value.isupper()):
            raise ValueError("api_key_env is the NAME of an environment variable, in capitals, never the key itself")
        return value


def connect(settings: EndpointSettings, section: str) -> Client:
    """A connection as a section of the settings (`captions`, `filter.judge`) asks for. Nothing is sent yet."""
    address = Address.of(settings.endpoint, settings.api_key_env, section)
    return Client(address, settings.timeout, settings.retries, settings.concurrency)


def model_of(settings: EndpointSettings, section: str) -> str:
    """The model as the server lists it; the server is asked only if the settings name none."""
    if settings.model is not None:
        return settings.model
    client = connect(settings, section)
    return probe.choose_model(None, client.wait_for(probe.listed_models(client, retries=1)), client)


def check_reachable(settings: EndpointSettings, section: str) -> None:
    """Whether the server answers, takes the key and has one model to ask; raises as the backends' `load` do."""
    client = connect(settings, section)
    probe.choose_model(settings.model, client.wait_for(probe.listed_models(client, retries=0)), client)
