"""The providers beside the common ones, as users reach them: model, options of LM, environment, and the credential."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

URL = "{url}"  # where the endpoint's address goes
AWS = {
    "AWS_ACCESS_KEY_ID": "AKIDCANARY",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-of-aws-4242",
    "AWS_SESSION_TOKEN": "canary-session-of-aws-4242",
    "AWS_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": URL,
}
GOOGLE = {"GOOGLE_CLOUD_PROJECT": "my-project", "GOOGLE_CLOUD_LOCATION": "us-central1"}
KEY = "canary-key-4242424242"


@dataclass(frozen=True, eq=False)
class CloudCase:
    """`credential` are headers that a request must bring; of AWS, the service that its signature is for."""

    model: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    credential: dict[str, str] = field(default_factory=dict)
    service: str = ""

    def options_at(self, url: str) -> dict[str, Any]:
        return {name: _at(value, url) for name, value in self.options.items()}

    def environment_at(self, url: str) -> dict[str, str]:
        return {name: _at(value, url) for name, value in self.environment.items()}


def _at(value: Any, url: str) -> Any:
    return value.replace(URL, url) if isinstance(value, str) else value


_BEARER = {"authorization": f"Bearer {KEY}"}
_VERTEX = "/v1/projects/my-project/locations/us-central1/publishers"
_BASE = {"api_base": f"{URL}/base", "api_key": KEY}
_CHAT, _MESSAGES, _RESPONSES = "/base/chat/completions", "/base/messages", "/base/responses"

CLOUD_CASES = (
    CloudCase(
        "gemini/gemini-2.5-flash", "/base/models/gemini-2.5-flash:generateContent", _BASE, {}, {"x-goog-api-key": KEY}
    ),
    CloudCase("zai:glm-4.6", _CHAT, _BASE, {}, _BEARER),
    CloudCase("sglang:qwen", _CHAT, {"api_base": f"{URL}/base"}, {}, {"authorization": "Bearer EMPTY"}),
    CloudCase("meta:muse", _RESPONSES, {**_BASE, "model_type": "responses"}, {}, _BEARER),
    CloudCase("moonshotai-responses:kimi-k3", _RESPONSES, {**_BASE, "model_type": "responses"}, {}, _BEARER),
    CloudCase("meta-chat:muse", _CHAT, {"api_base": f"{URL}/base"}, {"META_API_KEY": KEY}, _BEARER),
    CloudCase("meta-anthropic:muse", _MESSAGES, _BASE, {}, _BEARER),
    CloudCase("deepseek-anthropic:deepseek-chat", _MESSAGES, _BASE, {}, {"x-api-key": KEY}),
    CloudCase("moonshotai-anthropic:kimi-k3", _MESSAGES, _BASE, {}, _BEARER),
    CloudCase(
        "azure/my-deployment",
        "/openai/v1/chat/completions",
        {},
        {"AZURE_OPENAI_ENDPOINT": URL, "AZURE_OPENAI_API_KEY": KEY},
        {"api-key": KEY},
    ),
    CloudCase(
        "azure-anthropic:claude-sonnet-4-5",
        "/anthropic/v1/messages",
        {"api_key": KEY},
        {"ANTHROPIC_FOUNDRY_BASE_URL": URL},
        {"x-api-key": KEY},
    ),
    CloudCase(
        "aws-anthropic:claude-sonnet-4-5",
        "/v1/messages",
        {},
        {**AWS, "ANTHROPIC_AWS_WORKSPACE_ID": "ws-1"},
        {"anthropic-workspace-id": "ws-1"},
        "aws-external-anthropic",
    ),
    CloudCase("bedrock-anthropic:anthropic.claude-opus-4-7", "/anthropic/v1/messages", {}, AWS, {}, "bedrock-mantle"),
    CloudCase("bedrock-chat:openai.gpt-oss-20b-1:0", "/openai/v1/chat/completions", {}, AWS, {}, "bedrock"),
    CloudCase(
        "bedrock-chat:openai.gpt-oss-120b-1:0",
        "/openai/v1/chat/completions",
        {},
        {"AWS_BEARER_TOKEN_BEDROCK": KEY, "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": URL},
        _BEARER,
    ),
    CloudCase("bedrock-mantle-chat:deepseek.v3.2", "/v1/chat/completions", {}, AWS, {}, "bedrock-mantle"),
    CloudCase(
        "vertex:gemini-2.5-flash",
        f"{_VERTEX}/google/models/gemini-2.5-flash:generateContent",
        {"api_base": URL, "api_key": KEY},
        GOOGLE,
        _BEARER,
    ),
    CloudCase(
        "vertex-anthropic:claude-sonnet-4@20250514",
        f"{_VERTEX}/anthropic/models/claude-sonnet-4@20250514:rawPredict",
        {"api_base": URL, "api_key": KEY},
        GOOGLE,
        _BEARER,
    ),
    CloudCase(
        "vertex-express:gemini-2.5-flash",
        "/v1/publishers/google/models/gemini-2.5-flash:generateContent",
        {"api_base": URL, "api_key": KEY},
        {},
        {"x-goog-api-key": KEY},
    ),
)
NAMES = tuple(f"{case.model.partition(':')[0]}{' with keys' if case.service else ''}" for case in CLOUD_CASES)
