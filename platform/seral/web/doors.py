"""Doors: the names by which a server is asked for, and what a proxy in front of it may say of a request.

Only proxies that were named are believed. What anybody else sends in the header of single sign-on is taken away before
the application sees it, and their `X-Forwarded-For` counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from seral.errors import OptionError

Network = IPv4Network | IPv6Network
USER = "seral.user"
"""Key of a request's scope: the person that a proxy has signed in; None for nobody."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY = "*"


def networks(proxies: Sequence[str]) -> list[Network]:
    """Addresses and networks such as 10.0.0.0/8. Raises OptionError for what is neither."""
    try:
        return [ip_network(proxy, strict=False) for proxy in proxies]
    except ValueError as error:
        raise OptionError(f"a proxy is an address or a network such as 10.0.0.0/8: {error}") from None


def is_loopback(host: str) -> bool:
    """True for an address that only this machine can reach."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def host_names(trusted: Sequence[str], url: str | None, host: str) -> frozenset[str]:
    """The names by which the server may be asked for; ANY where nobody has said how people reach it."""
    if not trusted and url is None and not is_loopback(host):
        return frozenset([ANY])
    own = urlsplit(url).hostname if url else host
    return frozenset(name.lower().strip("[]") for name in (*trusted, own or "", *LOOPBACK))


class Doors:
    """Refuse requests for another host, and take from proxies who has asked; from proxies alone."""

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str], proxies: Sequence[Network], user_header: str | None
    ) -> None:
        self._app, self._hosts, self._proxies = app, hosts, proxies
        self._user_header = (user_header or "").lower().encode("latin-1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = _host(_values(scope, b"host"))
        if ANY not in self._hosts and host not in self._hosts:
            message = f"this is no server of {host[:100]!r}; if it shall be, name it by --trusted-host"
            await JSONResponse({"error": message}, 400)(scope, receive, send)
            return
        trusted = self._trusts(scope["client"][0] if scope.get("client") else "")
        users = _values(scope, self._user_header)
        if trusted and len(users) > 1:
            await JSONResponse({"error": "the proxy has named several people"}, 400)(scope, receive, send)
            return
        scope = dict(scope)
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != self._user_header]
        scope[USER] = (users[0].strip() or None) if trusted and users else None
        if trusted and (client := self._client(_values(scope, b"x-forwarded-for"))):
            scope["client"] = (client, 0)
        await self._app(scope, receive, send)

    def _trusts(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(address in network for network in self._proxies)

    def _client(self, forwarded: Sequence[str]) -> str | None:
        """The last address that is no proxy's own: each adds the one it was asked from. None where there is none."""
        client = None
        for entry in reversed(",".join(forwarded).split(",")):
            address = _address(entry.strip())
            if address is None:
                break
            client = str(address)
            if not self._trusts(client):
                break
        return client


def _values(scope: Scope, name: bytes) -> list[str]:
    """The values of a header, as UTF-8 where they are."""
    values = [value for key, value in scope["headers"] if key == name]
    return [value.decode("utf-8", "replace") for value in values]


def _host(values: Sequence[str]) -> str:
    """The name in a Host header, without port and brackets; empty where there is not one alone."""
    if len(values) != 1:
        return ""
    try:
        return urlsplit(f"//{values[0]}").hostname or ""
    except ValueError:
        return ""


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
