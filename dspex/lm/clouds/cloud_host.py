"""`CloudHost`: how a cloud's endpoint is named, and what its requests are signed with. Facts only.

Source: the access table of lm15, DSPy 3.4.1's provider library (access.py), and the options of litellm by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cloud = Literal["azure", "aws", "google"]


@dataclass(frozen=True, slots=True)
class HostSetting:
    """One part of an endpoint's name: the option of LM() that gives it, and the environment's names for it."""

    name: str
    option: str
    env: tuple[str, ...]
    default: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CloudHost:
    """One door of a cloud; `base_url` and `path` are templates over the settings."""

    cloud: Cloud
    base_url: str
    settings: tuple[HostSetting, ...]
    path: str = ""  # of the base URL, behind an endpoint that was given instead
    endpoint_names: tuple[str, ...] = ()  # the environment's, for such an endpoint
    optional: tuple[str, ...] = ()  # settings that a given endpoint makes needless
    service: str = ""  # AWS's name for it, in signatures
    headers: tuple[tuple[str, str], ...] = ()  # a header's name, and the setting that it holds


_REGION = HostSetting("region", "aws_region_name", ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"))
_WORKSPACE = HostSetting("workspace", "aws_workspace_id", ("ANTHROPIC_AWS_WORKSPACE_ID",))
_PROJECT = HostSetting(
    "project", "vertex_project", ("VERTEXAI_PROJECT", "VERTEX_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT")
)
_LOCATION = HostSetting(
    "location",
    "vertex_location",
    ("VERTEXAI_LOCATION", "VERTEX_LOCATION", "GOOGLE_CLOUD_LOCATION"),
    default="global",
)

_VERTEX = "/v1/projects/{project}/locations/{location}"

AZURE = CloudHost(
    "azure",
    "https://{resource}.openai.azure.com/openai/v1",
    (HostSetting("resource", "azure_resource", ("AZURE_OPENAI_RESOURCE",)),),
    path="/openai/v1",
    endpoint_names=("AZURE_API_BASE", "AZURE_BASE_URL", "AZURE_OPENAI_ENDPOINT"),
    optional=("resource",),
)
AZURE_ANTHROPIC = CloudHost(
    "azure",
    "https://{resource}.services.ai.azure.com/anthropic/v1",
    (HostSetting("resource", "azure_resource", ("ANTHROPIC_FOUNDRY_RESOURCE",)),),
    path="/anthropic/v1",
    endpoint_names=("ANTHROPIC_FOUNDRY_BASE_URL",),
    optional=("resource",),
)
AWS_ANTHROPIC = CloudHost(
    "aws",
    "https://aws-external-anthropic.{region}.api.aws/v1",
    (_REGION, _WORKSPACE),
    path="/v1",
    endpoint_names=("AWS_ENDPOINT_URL_AWS_EXTERNAL_ANTHROPIC", "AWS_ENDPOINT_URL"),
    service="aws-external-anthropic",
    headers=(("anthropic-workspace-id", "workspace"),),
)
BEDROCK_ANTHROPIC = CloudHost(
    "aws",
    "https://bedrock-mantle.{region}.api.aws/anthropic/v1",
    (_REGION,),
    path="/anthropic/v1",
    endpoint_names=("AWS_ENDPOINT_URL_BEDROCK_MANTLE", "AWS_ENDPOINT_URL"),
    service="bedrock-mantle",
)
BEDROCK_CHAT = CloudHost(
    "aws",
    "https://bedrock-runtime.{region}.amazonaws.com/openai/v1",
    (_REGION,),
    path="/openai/v1",
    endpoint_names=("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"),
    service="bedrock",
)
BEDROCK_MANTLE_CHAT = CloudHost(
    "aws",
    "https://bedrock-mantle.{region}.api.aws/v1",
    (_REGION,),
    path="/v1",
    endpoint_names=("AWS_ENDPOINT_URL_BEDROCK_MANTLE", "AWS_ENDPOINT_URL"),
    service="bedrock-mantle",
)
VERTEX = CloudHost(
    "google",
    "https://{location_host}" + _VERTEX + "/publishers/google",
    (_PROJECT, _LOCATION),
    path=_VERTEX + "/publishers/google",
)
VERTEX_EXPRESS = CloudHost(
    "google",
    "https://aiplatform.googleapis.com/v1/publishers/google",
    (),
    path="/v1/publishers/google",
)
VERTEX_ANTHROPIC = CloudHost("google", "https://{location_host}" + _VERTEX, (_PROJECT, _LOCATION), path=_VERTEX)
