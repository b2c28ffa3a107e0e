"""The options of LM() for clouds, by name, cloud and type: as litellm has them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypedDict


class AzureOptions(TypedDict, total=False):
    """Where a deployment is, and a token instead of a key."""

    api_version: str | None
    azure_resource: str | None  # of the endpoint https://<resource>.openai.azure.com
    azure_ad_token: str | None
    azure_ad_token_provider: Callable[[], str] | None  # called for each request: azure-identity makes such functions


class AwsOptions(TypedDict, total=False):
    """Who signs, and where."""

    aws_region_name: str | None
    aws_access_key_id: str | None
    aws_secret_access_key: str | None
    aws_session_token: str | None
    aws_profile_name: str | None
    aws_workspace_id: str | None  # of Anthropic's own platform on AWS


class GoogleOptions(TypedDict, total=False):
    """Whose models, and who asks."""

    vertex_project: str | None
    vertex_location: str | None
    vertex_credentials: str | os.PathLike[str] | Mapping[str, Any] | None  # a file's path, its content or its JSON


class CloudOptions(AzureOptions, AwsOptions, GoogleOptions, total=False):
    """What some clouds take."""


class SecretText(str):
    """A text that holds a secret. Its repr does not: reporters of errors show the variables of each frame."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def concealed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with their secrets as texts that no report shows; content of a file as its JSON."""
    found = dict(options)
    for name in SECRET_OPTIONS & found.keys():
        value = found[name]
        if isinstance(value, Mapping):
            value = json.dumps(dict(value))
        found[name] = SecretText(value) if isinstance(value, str) else value
    return found


OF_CLOUD: Mapping[str, frozenset[str]] = {
    "azure": AzureOptions.__optional_keys__,
    "aws": AwsOptions.__optional_keys__,
    "google": GoogleOptions.__optional_keys__,
}
CLOUD_OPTIONS = CloudOptions.__optional_keys__
"""The names of all of them."""
SECRET_OPTIONS = frozenset(
    {"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "azure_ad_token", "azure_ad_token_provider"}
    | {"vertex_credentials"}
)
