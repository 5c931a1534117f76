"""Keys of services: from the environment or a file outside the graph, each for one host only.

A workflow from elsewhere may name any address. A key is therefore bound to its host, and no other host is sent it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from .address import host_of, parse_host, port_of
from .errors import TextError

_HOSTS = {"GEMINI_API_KEY": "generativelanguage.googleapis.com", "OPENAI_API_KEY": "api.openai.com"}
_ANY_KEY, _ANY_HOST = "DREAMACTOR_API_KEY", "DREAMACTOR_API_HOST"


class Key:
    """A secret that does not show itself."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def reveal(self) -> str:
        """The secret, for the request's header and nothing else."""
        return self._secret

    def hide_in(self, text: str) -> str:
        """The text with the secret struck out."""
        return text.replace(self._secret, "***")

    def __repr__(self) -> str:
        return "Key(***)"

    def __reduce__(self) -> str:
        raise TypeError("a key is not written anywhere")


def _checked(secret: str, source: str) -> Key:
    # anything else cannot stand in a header, and the error about it would quote it
    if not (len(secret) >= 8 and secret.isascii() and secret.isprintable() and " " not in secret):
        raise TextError(f"{source} is not a key, expected 8 or more letters, digits and signs without blanks; correct it")
    return Key(secret)


def _fits(written: str, url: str) -> bool:
    """Whether a key that was written for this host is for `url`. Raises ValueError for what is not a host."""
    host, port = parse_host(written)
    return host == host_of(url) and port in (None, port_of(url))


def find_key(url: str, file: Path | None, environment: Mapping[str, str] = os.environ) -> Key | None:
    """The key for the host of `url`, or None.

    Looked for in `GEMINI_API_KEY` and `OPENAI_API_KEY` (each for that company's own host), in `DREAMACTOR_API_KEY` (for
    the host named in `DREAMACTOR_API_HOST`), then in the key file: lines of a host and a key, the first that fits counts.
    `#` at a line's start or after a blank begins a comment; keys may hold one. A host may be written as `address.parse_host`
    says; with a port, it is for that port only.

    Raises:
        TextError: what stands for a host or a key is none, or the file cannot be read as such lines.
    """
    secret, owner = environment.get(_ANY_KEY, "").strip(), environment.get(_ANY_HOST, "").strip()
    if secret and owner:
        try:
            fits = _fits(owner, url)
        except ValueError as error:
            raise TextError(f"{_ANY_HOST} is not a host, {error}; correct it in the environment and restart ComfyUI") from None
        if fits:
            return _checked(secret, _ANY_KEY)
    for name, company in _HOSTS.items():
        secret = environment.get(name, "").strip()
        if secret and company == host_of(url):
            return _checked(secret, name)
    if file is None or not file.is_file():
        return None
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = ["?"]
    for number, line in enumerate(lines, 1):
        words, source = re.split(r"(?:^|\s)#", line)[0].split(), f"line {number} of the key file {file}"
        if words and len(words) != 2:
            raise TextError(f"{source} is not a host and a key with a blank between; correct it")
        try:
            fits = bool(words) and _fits(words[0], url)
        except ValueError as error:
            raise TextError(f"{source} does not begin with a host, {error}, a blank and a key; correct it") from None
        if fits:
            return _checked(words[1], source)
    return None


def where_to_put(url: str, file: Path | None) -> str:
    """Advice for a user whose key is missing or wrong."""
    host = host_of(url)
    own = next((name for name, owner in _HOSTS.items() if owner == host), None)
    variable = f"set {own}" if own else f"set {_ANY_KEY} and {_ANY_HOST}={host}"
    line = f", or write the line `{host} YOUR_KEY` into {file}" if file else ""
    return f"{variable} in the environment of ComfyUI and restart it{line}; never type a key into a node"
