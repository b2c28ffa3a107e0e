"""Find AWS keys where none were given: by botocore, if that is installed (profiles, roles, instance metadata)."""

from __future__ import annotations

import importlib
import threading
from importlib.util import find_spec
from typing import Any

from ...errors import LMAuthError, LMNotConfiguredError
from .sigv4 import AwsKeys


class AwsIdentity:
    """The identity that a profile names, or the machine has; botocore is imported when it is first asked."""

    def __init__(self, profile: str | None) -> None:
        self._profile = profile
        self._made: Any = None
        self._lock = threading.Lock()

    def keys(self) -> AwsKeys:
        """Return the keys as they are now; botocore renews those that end.

        Raises:
            LMNotConfiguredError, LMAuthError: there are none, or they could not be renewed.
        """
        with self._lock:
            if self._made is None:
                self._made = self._credentials()
            frozen, fault = None, ""
            try:
                frozen = self._made.get_frozen_credentials()
            except Exception as error:  # botocore's, whose texts may quote what they were answered
                fault = type(error).__name__
        if frozen is None:
            raise LMAuthError(f"AWS gave no keys ({fault or 'none'}).")
        return AwsKeys(frozen.access_key, frozen.secret_key, frozen.token)

    def _credentials(self) -> Any:
        made = None
        if find_spec("botocore") is not None:
            session: Any = importlib.import_module("botocore.session")
            try:
                made = session.Session(profile=self._profile).get_credentials()
            except Exception as error:  # ProfileNotFound, a malformed file
                raise LMNotConfiguredError(f"No AWS keys: {type(error).__name__} of the profile.") from None
        if made is None:
            raise LMNotConfiguredError(
                "No AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_BEARER_TOKEN_BEDROCK; or "
                "pass aws_access_key_id= and aws_secret_access_key=, or api_key= (a bearer token), to LM(). Profiles "
                "and roles are read by botocore, where that is installed."
            )
        return made
