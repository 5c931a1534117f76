"""Addresses of services: https anywhere, plain http only where nobody listens in on the way."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from .errors import ServiceError

_SHARED = ipaddress.ip_network("100.64.0.0/10")  # overlay networks such as Tailscale


def check_address(url: str) -> str:
    """The address without a slash at its end, its scheme in lower case: `HTTP://` is plain http too.

    Raises:
        ServiceError: not http or https, without a host, with blanks inside, or with something in it that would be saved
            with the workflow and sent along (a password, a query). Never quotes the address: what is not one may be a key.
    """
    url = url.strip()
    wrong = ServiceError(
        "base_url is not an address, expected https://HOST/PATH, or http://HOST:PORT/PATH for a host of your own; clear it for "
        "the service's own address (a key belongs into the environment or the key file)"
    )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ServiceError(
            "base_url holds a password, a query or a fragment, expected https://HOST/PATH; it is saved with every picture, so "
            "keys belong into the environment or the key file"
        )
    # urlsplit takes line breaks and tabs out unasked: the address that was checked would not be the one that is used
    if parts.scheme not in ("http", "https") or not host or any(character.isspace() for character in url):
        raise wrong
    return (parts.scheme + url[len(parts.scheme) :]).rstrip("/")


def host_of(url: str) -> str:
    """The host's name or number, in lower case."""
    return (urlsplit(url).hostname or "").lower()


def port_of(url: str) -> int | None:
    """The port, written or the scheme's own."""
    parts = urlsplit(url)
    return parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def parse_host(written: str) -> tuple[str, int | None]:
    """Host in lower case and port (None: any) of HOST, HOST:PORT or an address, of which scheme and path do not matter.

    Raises:
        ValueError: none of these. The message does not quote it: it may be a key.
    """
    wrong = ValueError("expected a host such as openrouter.ai, 127.0.0.1:8000 or https://openrouter.ai")
    try:
        return str(ipaddress.IPv6Address(written)), None  # the only host that may be written with colons of its own
    except ValueError:
        pass
    try:
        parts = urlsplit(written if "://" in written else f"//{written}")
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise wrong from None
    # a name before an @ is easily taken for the host, and is not
    if parts.scheme not in ("", "http", "https") or "@" in parts.netloc or parts.query or parts.fragment:
        raise wrong
    if not (re.fullmatch(r"[\w.-]+", host) or (parts.netloc.startswith("[") and host)):
        raise wrong
    return host, port


def _is_private(number: str) -> bool:
    ip = ipaddress.ip_address(number.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    # link-local numbers are those of cloud machines' own credential services
    outside = ip.is_link_local or ip.is_multicast or ip.is_unspecified
    return not outside and (ip.is_loopback or ip.is_private or (ip.version == 4 and ip in _SHARED))


def is_own(url: str) -> bool:
    """Whether the host is this machine or one in a private network: all the numbers that its name has are such.

    Asks the name service; may take as long as that takes.
    """
    host = host_of(url)
    try:
        return _is_private(host)
    except ValueError:
        pass  # a name
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_is_private(number) for number in found)
