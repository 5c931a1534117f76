"""Where requests may go, and which key goes there."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import requests

from dreamactor_core.text import address
from dreamactor_core.text.address import check_address, is_own
from dreamactor_core.text.ask import Asker
from dreamactor_core.text.errors import ServiceError, TextError
from dreamactor_core.text.keys import Key, find_key
from dreamactor_core.text.services import Question
from dreamactor_core.text.transport import Limits, post

LIMITS = Limits(connect=1, read=1, total=2, tries=1)


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "http://localhost:11434/v1", "http://[::1]:80/v1", "https://example.com:8443/a/b"]
)
def test_addresses(url: str) -> None:
    assert check_address(f" {url}/ ") == url


@pytest.mark.parametrize(
    "url",
    ["example.com/v1", "ftp://example.com", "file:///etc/passwd", "https://", "https://[::1", "http://host:port", "https://me:pass@host/v1",
     "https://host/v1?key=abc", "https://host/v1#abc", "sk-abc", "https://host:sk-abc/v1", "https://[sk-abc]/v1",
     "https://host/v1 sk-abc", "https://host/v1\nsk-abc", "https://ho st/v1", "https://host/\tv1"],
)  # fmt: skip
def test_wrong_addresses(url: str) -> None:
    with pytest.raises(ServiceError, match=r"base_url .*expected https://HOST") as caught:
        check_address(url)
    assert "pass@" not in str(caught.value) and "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("localhost", True), ("box.localhost", True), ("10.0.0.7", True),
        ("172.16.3.4", True), ("192.168.1.2", True), ("100.64.1.1", True), ("[fd00::1]", True), ("[::ffff:192.168.1.2]", True),
        ("8.8.8.8", False), ("172.32.0.1", False), ("[2001:4860:4860::8888]", False), ("[::ffff:8.8.8.8]", False),
        ("169.254.169.254", False), ("[fe80::1]", False), ("0.0.0.0", False), ("224.0.0.1", False),
    ],
)  # fmt: skip
def test_own_hosts(host: str, own: bool) -> None:
    assert is_own(f"http://{host}:8000/v1") is own


@pytest.mark.parametrize(
    ("numbers", "own"), [(["192.168.1.2"], True), (["192.168.1.2", "8.8.8.8"], False), (["8.8.8.8"], False), ([], False)]
)
def test_names_are_their_numbers(monkeypatch: pytest.MonkeyPatch, numbers: list[str], own: bool) -> None:
    monkeypatch.setattr(address.socket, "getaddrinfo", lambda *_: [(0, 0, 0, "", (number, 0)) for number in numbers])
    assert is_own("http://ollama:11434/v1") is own


@pytest.mark.parametrize("scheme", ["http", "HTTP", "Http", "hTTP"])
def test_plain_http_to_a_public_host_is_not_used(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DREAMACTOR_API_KEY", "0123456789")
    monkeypatch.setenv("DREAMACTOR_API_HOST", "8.8.8.8")
    sent: list[object] = []
    monkeypatch.setattr(requests.Session, "send", lambda *given, **more: sent.append(given))
    url, told = f"{scheme}://8.8.8.8/v1", r"8\.8\.8\.8 is not this machine.*use https"
    with pytest.raises(ServiceError, match=told):
        Asker("openai_compatible", "m", url, limits=LIMITS).ask(Question("?"))
    with pytest.raises(ServiceError, match=told):  # nor where the address was not looked at before
        post(url, {"Authorization": "Bearer 0123456789"}, {}, key=None, advice="", limits=LIMITS)
    assert not sent, "the key went out unencrypted"


@pytest.mark.parametrize("scheme", ["HTTP", "HtTpS"])
def test_the_scheme_of_an_address_is_in_lower_case(scheme: str) -> None:
    assert check_address(f"{scheme}://Example.com/V1/") == f"{scheme.lower()}://Example.com/V1"


def found(url: str, file: Path | None = None, **environment: str) -> str | None:
    key = find_key(url, file, environment)
    return key.reveal() if key else None


GEMINI, OPENAI, OTHER = "https://generativelanguage.googleapis.com/v1beta", "https://api.openai.com/v1", "https://other.example/v1"


def test_each_key_is_for_its_own_host() -> None:
    keys = {"GEMINI_API_KEY": "gemini-key", "OPENAI_API_KEY": "openai-key"}
    assert (found(GEMINI, **keys), found(OPENAI, **keys), found(OTHER, **keys)) == ("gemini-key", "openai-key", None)
    own = {"DREAMACTOR_API_KEY": "other-key", "DREAMACTOR_API_HOST": "Other.Example"}
    assert (found(OTHER, **own), found(OPENAI, **own)) == ("other-key", None)
    assert found("https://api.openai.com.evil.example/v1", **keys) is None
    assert found(OTHER, DREAMACTOR_API_KEY="other-key") is None, "a key without a host went to any"


def test_the_key_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    assert found(OTHER, file) is None
    file.write_text("# mine\n\nother.example   other-key # of last year\r\napi.openai.com openai-key\n", "utf-8")
    assert (found(OTHER, file), found(OPENAI, file), found(GEMINI, file)) == ("other-key", "openai-key", None)
    assert found(OPENAI, file, OPENAI_API_KEY="from-outside") == "from-outside"


def test_a_key_may_hold_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("other.example sk-abc#def#ghi\t#old one\n #api.openai.com gone-key\n", "utf-8")
    assert (found(OTHER, file), found(OPENAI, file)) == ("sk-abc#def#ghi", None)


LOCAL = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("written", "url", "fits"),
    [
        ("other.example", OTHER, True), ("other.example:443", OTHER, True), ("other.example:80", OTHER, False),
        ("https://other.example", OTHER, True), ("HTTPS://Other.Example:443/", OTHER, True),
        ("https://other.example/api/v1", OTHER, True), ("other.example/v1", OTHER, True), ("http://other.example", OTHER, True),
        ("127.0.0.1:8000", LOCAL, True), ("127.0.0.1:8001", LOCAL, False), ("127.0.0.1", LOCAL, True),
        ("http://127.0.0.1:8000/v1", LOCAL, True), ("http://127.0.0.1:8001/v1", LOCAL, False),
        ("127.0.0.1:8000", "http://127.0.0.1/v1", False), ("127.0.0.1:80", "http://127.0.0.1/v1", True),
        ("::1", "http://[::1]:8000/v1", True), ("[::1]", "http://[::1]:8000/v1", True),
        ("[::1]:8000", "http://[::1]:8000/v1", True), ("[::1]:8001", "http://[::1]:8000/v1", False),
        ("my_box:8000", "http://my_box:8000", True), ("other.example:8443", "https://other.example:8443", True),
        ("other.example", "https://other.example.evil.example", False),
        ("other.example", "https://evil.example/other.example", False),
        ("https://evil.example/other.example", OTHER, False), ("example", OTHER, False), ("evil-other.example", OTHER, False),
    ],
)  # fmt: skip
def test_a_host_with_a_port_or_a_scheme(tmp_path: Path, written: str, url: str, fits: bool) -> None:
    file, expected = tmp_path / "keys.txt", "other-key" if fits else None
    file.write_text(f"{written} other-key\n", "utf-8")
    assert found(url, file) == expected
    assert found(url, DREAMACTOR_API_KEY="other-key", DREAMACTOR_API_HOST=written) == expected


@pytest.mark.parametrize(
    "written",
    ["other.example:port", "other.example:99999", "ftp://other.example", "https://", "me@other.example",
     "https://other.example@evil.example", "*.example", "*", "https://other.example?key=abc", "other.example,", "[::1",
     "https:other.example", "https:\\\\other.example", "::1:8000:what"],
)  # fmt: skip
def test_what_is_not_a_host_is_told(tmp_path: Path, written: str) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# mine\n{written} other-key\n", "utf-8")
    with pytest.raises(TextError, match=r"line 2 of the key file .* a host, expected a host such as .*127\.0\.0\.1:8000") as caught:
        find_key(OTHER, file, {})
    assert "other-key" not in str(caught.value) and written not in str(caught.value).split()
    with pytest.raises(TextError, match="DREAMACTOR_API_HOST is not a host, expected a host such as") as caught:
        find_key(OTHER, None, {"DREAMACTOR_API_KEY": "other-key", "DREAMACTOR_API_HOST": written})
    assert "other-key" not in str(caught.value)


@pytest.mark.parametrize("line", ["other.example", "secret-words and more", "\xff"])
def test_a_wrong_key_file_is_an_error_that_quotes_nothing(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes(line.encode("latin-1"))
    with pytest.raises(TextError, match=r"line 1 of the key file .* is not a host and a key") as caught:
        find_key(OTHER, file, {})
    assert "secret-words" not in str(caught.value)


@pytest.mark.parametrize("secret", ["short", "two words here", "line\nbreak-in-it", "nicht-ascii-ü"])
def test_what_is_not_a_key_is_not_sent(secret: str) -> None:
    with pytest.raises(TextError, match="OPENAI_API_KEY is not a key") as caught:
        find_key(OPENAI, None, {"OPENAI_API_KEY": secret})
    assert secret not in str(caught.value)


@pytest.mark.parametrize(("service", "variable"), [("gemini", "GEMINI_API_KEY"), ("openai_compatible", "OPENAI_API_KEY")])
def test_a_missing_key_is_told_before_anything_is_sent(service: str, variable: str, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=f"there is no key for .*{variable}.*keys.txt"):
        Asker(service, "m", key_file=tmp_path / "keys.txt", limits=LIMITS).ask(Question("?"))


def test_a_key_does_not_show_itself() -> None:
    key = Key("0123456789")
    assert "0123456789" not in repr(key) + str(key) + f"{key}"
    assert key.hide_in("it is 0123456789.") == "it is ***."
    for write in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not written"):
            write(key)


def test_a_service_or_model_that_is_none() -> None:
    with pytest.raises(ServiceError, match="the service is 'other', expected one of gemini, openai_compatible"):
        Asker("other", "m")
    with pytest.raises(ServiceError, match="model is empty"):
        Asker("gemini", " ")
