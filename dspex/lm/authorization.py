"""Sign a request as it is sent, where a key that never changes would not do. Any thread; loaded at first need."""

from __future__ import annotations

import re
from dataclasses import replace

from ..errors import LMAuthError, LMNotConfiguredError
from .clouds.signer import Unsigned
from .http.http_message import LENGTH, SecretBytes
from .redaction import redactor_of
from .request import Request

_CONTENT_TYPE = re.compile(rb"\r\ncontent-type:[ \t]*([^\r]*)", re.IGNORECASE)


def authorized(request: Request) -> Request:
    """Return the request with what signs it now; asking an identity service for that may take a while.

    Raises:
        LMError: there are no credentials, or they are refused.
    """
    lm, target = request.lm, request.target
    assert lm.signer is not None
    kind = _CONTENT_TYPE.search(request.head)
    unsigned = Unsigned(target.url, target.host, kind[1].decode("latin-1") if kind else "", request.body)
    try:
        signed = lm.signer.sign(unsigned)
    except (LMAuthError, LMNotConfiguredError) as error:
        raise type(error)(error.message, model=lm.model, provider=lm.provider.id) from None
    lines = "".join(f"\r\n{name}: {value}" for name, value in signed.headers)
    head = SecretBytes(request.head.removesuffix(LENGTH) + lines.encode("latin-1") + LENGTH)
    return replace(request, head=head, redactor=redactor_of((*lm.secrets, *target.secrets, *signed.secrets)))
