"""Say what is wrong with TLS, and what to do about it: errors of handshakes, and of alerts that come later. Pure."""

from __future__ import annotations

from ...errors import LMCertificateError, LMTransportError

_UNTRUSTED = frozenset({2, 18, 19, 20, 21})  # X509_V_ERR_*: nobody that is trusted has signed it
_NOT_YET, _EXPIRED = 9, 10
_OTHER_HOST = frozenset({62, 64})
_CERTIFICATE_ALERTS = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "CERTIFICATE_UNKNOWN", "ACCESS_DENIED")
_CERTIFICATE_ENDED = ("CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED", "UNSUPPORTED_CERTIFICATE")


def tls_failure(name: str, error: OSError) -> LMTransportError:
    """Return the error of TLS to `name` that failed."""
    code = getattr(error, "verify_code", None)
    if code is not None:
        said = getattr(error, "verify_message", "") or "it was not verified"
        return LMCertificateError(f"The certificate of {name} was not accepted: {said}. {_advice(name, code)}")
    reason = str(getattr(error, "reason", None) or "").upper()
    if "ALERT" in reason and any(each in reason for each in _CERTIFICATE_ALERTS):
        return LMCertificateError(
            f"{name} wants a client's certificate, and did not accept what it was shown ({reason}). Give one that it "
            f"knows: ssl_certificate=(certificate, key)."
        )
    if "ALERT" in reason and any(each in reason for each in _CERTIFICATE_ENDED):
        return LMCertificateError(f"{name} refused the certificate of ssl_certificate= ({reason}). Renew it.")
    if "WRONG_VERSION_NUMBER" in reason or "HTTP_REQUEST" in reason:
        return LMTransportError(f"No answer from {name}: it does not speak TLS there. Is it http://, or another port?")
    if "HANDSHAKE_FAILURE" in reason:
        advice = "It may want a client's certificate: ssl_certificate=(certificate, key)."
        return LMTransportError(f"No answer from {name}: the TLS handshake failed ({reason}). {advice}")
    if "EOF" in reason or "EOF" in str(error):
        advice = "A server that wants a client's certificate may do so: ssl_certificate=(certificate, key)."
        return LMTransportError(f"No answer from {name}: it closed the connection within TLS. {advice}")
    return LMTransportError(f"No answer from {name}: {reason or error.strerror or type(error).__name__}.")


def _advice(name: str, code: int) -> str:
    if code in _UNTRUSTED:
        return (
            "No authority that this process trusts has signed it. If it is your company's own, name its certificate: "
            "ssl_verify='path/to/ca.pem', or REQUESTS_CA_BUNDLE or SSL_CERT_FILE in the environment."
        )
    if code in _OTHER_HOST:
        return f"It is for another host: ask it by a name that it holds, or have {name} added to it."
    if code == _EXPIRED:
        return "It has expired: have it renewed, or set this machine's clock."
    if code == _NOT_YET:
        return "It is not valid yet: set this machine's clock."
    return "Trying again changes nothing; name its authority with ssl_verify='path/to/ca.pem'."
