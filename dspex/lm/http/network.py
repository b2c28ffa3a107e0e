"""`Network`: how an LM's connections are made: through which proxy, with which TLS, and how many at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from .proxies import NO_PROXIES, ProxyRules, environment_rules, given_rules
from .tls_settings import USUAL_TLS, TlsSettings, tls_settings


@dataclass(frozen=True, slots=True)
class Network:
    """The settings of a connection, resolved: nothing of it is read from the environment later."""

    proxies: ProxyRules = field(default_factory=lambda: NO_PROXIES)
    tls: TlsSettings = USUAL_TLS
    max_connections: int | None = None  # None: what the process's descriptors allow

    def digest(self) -> str:
        """Return a digest of all of it: records with equal settings may have found other variables."""
        proxies, tls = self.proxies, self.tls
        hidden = (proxies.http, proxies.https, tls.password)  # from its repr
        return hashlib.sha256(repr((self, hidden)).encode()).hexdigest()


def network_of(proxy: str | None, tls: TlsSettings | None = None, max_connections: int | None = None) -> Network:
    """Return the network of an LM's options; `proxy` and `tls` None mean the environment's, proxy "" none."""
    proxies = environment_rules() if proxy is None else given_rules(proxy)
    return Network(proxies, tls_settings(None) if tls is None else tls, max_connections)
