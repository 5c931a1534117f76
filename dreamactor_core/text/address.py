"""Addresses of services: https anywhere, plain http only where nobody listens in on the way."""

from __future__ import annotations

import ipaddress
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
