"""`CloudAccount`: where an LM's cloud is and what signs its requests, resolved once, when the LM is made.

Given options go before the environment, which is read here and never later; a credentials file is read here too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import LMConfigurationError, LMUnsupportedFeatureError, SettingsError
from ..http.endpoint import target_of
from .aws_identity import AwsIdentity
from .cloud_host import AZURE, CloudHost
from .cloud_options import OF_CLOUD, SECRET_OPTIONS, SecretText
from .cloud_urls import azure_deployment, base_url, require_labels
from .google_tokens import credentials_info, google_signer
from .signer import AwsSigner, Signer, TokenSigner, is_jwt
from .sigv4 import AwsKeys


@dataclass(frozen=True, slots=True)
class CloudAccount:
    """`worker_base` is the base URL that workers write their requests for; the host's own may name a deployment."""

    base_url: str
    query: str
    worker_base: str
    settings: Mapping[str, str]  # no secrets
    endpoint: str | None  # as it was given, or is in the environment
    headers: tuple[tuple[str, str], ...]
    options: Mapping[str, Any] = field(repr=False)  # that make the same account again
    signer: Signer | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    def is_token(self, key: str) -> bool:
        """Whether a key is an access token instead, which goes in another header."""
        return is_jwt(key)


def require_cloud_options(model: str, host: CloudHost | None, options: Mapping[str, Any]) -> None:
    """Check that the options are this provider's.

    Raises:
        LMUnsupportedFeatureError: another cloud's, or given to a provider of none.
        SettingsError: a value that is no text.
    """
    own = OF_CLOUD[host.cloud] if host is not None else frozenset[str]()
    for name, value in options.items():
        if name not in own:
            cloud = next(cloud for cloud, names in OF_CLOUD.items() if name in names)
            raise LMUnsupportedFeatureError(
                f"LM({model!r}) has no {name}: it is for models of {_CALLED[cloud]}. Leave it out.", model=model
            )
        if name == "azure_ad_token_provider":
            if not callable(value):
                raise SettingsError(f"{name} must be a function that returns a token.", key=name)
        elif name != "vertex_credentials" and not (isinstance(value, str) and value and value.isprintable()):
            raise SettingsError(f"{name} must be a text of one line.", key=name)


def account_of(
    host: CloudHost, name: str, given: Mapping[str, Any], *, api_base: str | None, has_key: bool
) -> CloudAccount:
    """Return the account for a model called `name`; `given` are options of LM(), of which none is None.

    Raises:
        LMConfigurationError, SettingsError: a setting that is missing, or credentials that are none.
    """
    options = {**_in_environment(host, given, has_key=has_key), **given}
    endpoint = _endpoint(host, api_base)
    settings = dict(_settings(host, options, has_endpoint=endpoint is not None))
    require_labels(settings, {setting.name: setting.option for setting in host.settings})
    root, query, worker = _urls(host, name, options, settings, endpoint, is_given=api_base is not None)
    return CloudAccount(
        root,
        query,
        worker,
        settings,
        endpoint,
        tuple((header, settings[setting]) for header, setting in host.headers),
        options,
        _SIGNERS[host.cloud](host, options, settings, has_key),
        tuple(_secrets(options)),
    )


def _in_environment(host: CloudHost, given: Mapping[str, Any], *, has_key: bool) -> dict[str, str]:
    """Return the options that the environment gives: an identity only where no key or identity is given."""
    found: dict[str, str] = {}
    for setting in host.settings:
        _take(found, setting.option, setting.env)
    if host is AZURE:
        _take(found, "api_version", ("AZURE_API_VERSION",))
    is_open = not has_key and not any(name in SECRET_OPTIONS or name == "aws_profile_name" for name in given)
    if is_open and host.cloud == "azure":
        _take(found, "azure_ad_token", ("AZURE_AD_TOKEN",))
    elif is_open and host.cloud == "google" and host.settings:
        _take(found, "vertex_credentials", ("VERTEXAI_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS"))
    elif is_open:
        for option in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"):
            _take(found, option, (option.upper(),))
        _take(found, "aws_profile_name", ("AWS_PROFILE",))
    return found


def _take(found: dict[str, str], option: str, names: tuple[str, ...]) -> None:
    value = next((os.environ[name].strip() for name in names if os.environ.get(name, "").strip()), None)
    if value is not None:
        found[option] = SecretText(value) if option in SECRET_OPTIONS else value


def _endpoint(host: CloudHost, api_base: str | None) -> str | None:
    found = api_base or next((os.environ[name] for name in host.endpoint_names if os.environ.get(name)), None)
    if found is None:
        return None
    if not isinstance(found, str):
        raise SettingsError(f"api_base must be a URL, not {found!r}.", key="api_base")
    target_of(found.strip(), "")
    if "#" in found:
        raise LMConfigurationError("An LM's api_base must not hold a fragment (#).")
    return found.strip()


def _settings(host: CloudHost, options: Mapping[str, Any], *, has_endpoint: bool) -> Iterator[tuple[str, str]]:
    for setting in host.settings:
        if value := options.get(setting.option) or setting.default:
            yield setting.name, str(value)
        elif not (has_endpoint and setting.name in host.optional):
            other = f", or api_base= ({' or '.join(host.endpoint_names)})" if setting.name in host.optional else ""
            raise LMConfigurationError(
                f"No {setting.name}: pass {setting.option}= to LM() or set {' or '.join(setting.env)}{other}."
            )


def _urls(
    host: CloudHost,
    name: str,
    options: dict[str, Any],
    settings: Mapping[str, str],
    endpoint: str | None,
    *,
    is_given: bool,
) -> tuple[str, str, str]:
    """Return the base URL, the query, and the base URL for workers."""
    if host is AZURE:
        found = _deployment(name, options, settings, endpoint, is_given=is_given)
        if found is not None:
            root, query = found
            return root, query, base_url(host, settings, root.partition("/openai/")[0])
        options["api_version"] = "v1"  # whoever makes the same account again
    elif "api_version" in options:
        raise LMUnsupportedFeatureError(f"Azure's {host.path[1:].partition('/')[0]} models have no api_version.")
    endpoint, _, query = (endpoint or "").partition("?")
    made = base_url(host, settings, endpoint or None)
    return made, query, made


def _deployment(
    name: str, options: Mapping[str, Any], settings: Mapping[str, str], endpoint: str | None, *, is_given: bool
) -> tuple[str, str] | None:
    """Return a deployment's base URL and query where DSPy leaves the request to litellm; None for Azure's v1 API."""
    version = options.get("api_version")
    if endpoint is None and version is not None:
        endpoint = base_url(AZURE, settings, None).removesuffix(AZURE.path)
    is_litellms = is_given or version is not None or any(map(os.environ.get, ("AZURE_API_BASE", "AZURE_BASE_URL")))
    return azure_deployment(endpoint, name, version) if endpoint is not None and is_litellms else None


def _azure_signer(_: CloudHost, options: Mapping[str, Any], __: Mapping[str, str], ___: bool) -> Signer | None:
    if (provider := options.get("azure_ad_token_provider")) is not None:
        return TokenSigner(provider)
    token = options.get("azure_ad_token")
    return None if token is None else TokenSigner(lambda: token, is_ready=lambda: True)


def _aws_signer(
    host: CloudHost, options: Mapping[str, Any], settings: Mapping[str, str], has_key: bool
) -> Signer | None:
    names = ("aws_access_key_id", "aws_secret_access_key")
    found = [options[name] for name in names if name in options]
    if len(found) == 1:
        raise LMConfigurationError(f"AWS keys come in pairs: give both {names[0]} and {names[1]}.")
    profile = options.get("aws_profile_name")
    if not found and profile is None and has_key:
        return None
    known = AwsKeys(found[0], found[1], options.get("aws_session_token")) if found else None
    return AwsSigner(settings["region"], host.service, known, AwsIdentity(profile).keys)


def _google_signer(host: CloudHost, options: Mapping[str, Any], _: Mapping[str, str], has_key: bool) -> Signer | None:
    given = options.get("vertex_credentials")
    if not host.settings or (given is None and has_key):  # without a project it is a key that pays
        return None
    return google_signer(None if given is None else credentials_info(given))


def _secrets(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the secrets among the options; those that a file of Google's holds too."""
    for name, value in options.items():
        if name == "vertex_credentials":
            info = credentials_info(value)
            yield from (str(info[key]) for key in ("private_key", "refresh_token", "client_secret") if info.get(key))
        elif name in SECRET_OPTIONS and isinstance(value, str):
            yield value


_CALLED = {"azure": "Azure", "aws": "AWS (Bedrock)", "google": "Google's Vertex AI"}
_SIGNERS: Mapping[str, Callable[[CloudHost, Mapping[str, Any], Mapping[str, str], bool], Signer | None]] = {
    "azure": _azure_signer,
    "aws": _aws_signer,
    "google": _google_signer,
}
