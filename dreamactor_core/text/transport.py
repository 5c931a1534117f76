"""One request to a service and its answer: bounded in time and size, tried again where that helps, stopped when told.

The request runs in a thread of its own, so that whoever waits can give up at any moment, whatever the network does.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from .address import host_of, is_own
from .errors import ServiceError
from .keys import Key

Poll = Callable[[], None]
"""Called several times a second while there is nothing to do but wait; raises to stop."""


@dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Attributes:
        connect: Seconds for a connection.
        read: Seconds without a byte. A model on a slow machine thinks for minutes before its first one.
        total: Seconds for everything, all tries and the pauses between them included.
        answer: Bytes of an answer.
        tries: How often a busy or unreachable service is asked.
        pause: Seconds before the second try; twice as many before each further one, give or take a quarter.
    """

    connect: float = 10.0
    read: float = 300.0
    total: float = 600.0
    answer: int = 4 << 20
    tries: int = 4
    pause: float = 1.0


DEFAULT_LIMITS = Limits()


def patience(seconds: float) -> Limits:
    """Limits with which a service may be silent for so many seconds, and all tries together may take twice as long.

    Answers come in one piece, so the silence lasts as long as the model works. Raises ServiceError for a time that is none.
    """
    if not 1 <= seconds <= 86400:  # NaN neither
        raise ServiceError(f"timeout is {seconds}, expected 1 to 86400 seconds; correct it")
    return replace(DEFAULT_LIMITS, read=seconds, total=2 * seconds)

_TICK = 0.1  # seconds between looks at the clock and the user
_CHUNK = 1 << 14
_LONGEST_PAUSE = 30.0
_LONGER = "if the model is at work on a slow machine, raise timeout"
_QUOTED = 300  # characters of a service's own words in a message
_BUSY = (408, 425, 429, 500, 502, 503, 504, 529)


@dataclass(frozen=True)
class _Outcome:
    """What one try came to: a body, or what went wrong.

    Attributes:
        body: The answer, or what a service says with an error.
        trouble: What went wrong, without advice and without the body.
        again: Whether another try may help.
        wait: Seconds that the service asked to wait.
        status: HTTP status, 0 when there was none.
    """

    body: bytes = b""
    trouble: str = ""
    again: bool = False
    wait: float | None = None
    status: int = 0


def _retry_after(value: str | None) -> float | None:
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _service_words(text: str) -> str:
    """The message in a service's error, in whatever form it has."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    for name in ("error", "message"):
        found = found[0] if isinstance(found, list) and found else found
        found = found.get(name, found) if isinstance(found, dict) else found
    return " ".join(str(found).split())[:_QUOTED]


class _Try(threading.Thread):
    """One request. `outcome` is there when the thread has ended; `stop` makes it end as soon as it can."""

    def __init__(self, url: str, headers: Mapping[str, str], body: bytes, limits: Limits, deadline: float) -> None:
        super().__init__(daemon=True, name="dreamactor text request")
        self._request = (url, headers, body, limits, deadline)
        self._stop_asked = threading.Event()
        self._answer: Any = None
        self.outcome = _Outcome(trouble="the request ended without an answer")

    def stop(self) -> None:
        """The answer is not wanted any more."""
        self._stop_asked.set()
        # wakes a thread that waits in the middle of an answer; older versions of urllib3 end at their read timeout
        shutdown = getattr(getattr(self._answer, "raw", None), "shutdown", None)
        if shutdown is not None and self.is_alive():
            with contextlib.suppress(Exception):  # it may be gone by now
                shutdown()

    def run(self) -> None:
        import requests  # not at start-up

        url, _, _, limits, deadline = self._request
        host = host_of(url)
        try:
            self.outcome = self._exchange(requests, *self._request)
        except requests.exceptions.SSLError:
            self.outcome = _Outcome(trouble=f"the certificate of {host} is not valid")
        except requests.exceptions.ConnectTimeout:
            self.outcome = _Outcome(trouble=f"{host} did not take the connection within {limits.connect:g} s", again=True)
        except requests.exceptions.Timeout:
            silence = min(limits.read, limits.total) if time.monotonic() < deadline else limits.total
            self.outcome = _Outcome(trouble=f"{host} sent nothing for {silence:g} s; {_LONGER}")
        except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            # some read timeouts come in this guise
            if "timed out" in str(error):
                self.outcome = _Outcome(trouble=f"{host} stopped in the middle of its answer")
            else:
                self.outcome = _Outcome(trouble=f"the connection to {host} failed or broke", again=True)
        except requests.exceptions.RequestException as error:
            self.outcome = _Outcome(trouble=f"the request to {host} failed ({type(error).__name__})")
        except Exception as error:  # whatever it is, the one who waits must be told
            self.outcome = _Outcome(trouble=f"the request to {host} failed ({type(error).__name__})")
        finally:
            self._request = ("", {}, b"", limits, deadline)  # the key is in the headers

    def _exchange(
        self, requests: Any, url: str, headers: Mapping[str, str], body: bytes, limits: Limits, deadline: float
    ) -> _Outcome:
        own = is_own(url)
        if not own and urlsplit(url).scheme != "https":  # as requests reads it: in any case of letters
            return _Outcome(
                trouble=f"{host_of(url)} is not this machine nor one of a private network, and http is not encrypted; use https"
            )
        with requests.Session() as session:
            session.trust_env = False  # or a .netrc would take the place of the key
            # not even looked at: requests would read such an answer's body whole, however large, to prepare the next request
            session.get_redirect_target = lambda response: None
            proxies = {} if own else requests.utils.get_environ_proxies(url)
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
            left = max(0.1, deadline - time.monotonic())
            with session.post(
                url, data=body, headers=dict(headers), stream=True, allow_redirects=False, proxies=proxies, verify=bundle,
                timeout=(min(limits.connect, left), min(limits.read, left)),
            ) as answer:  # fmt: skip
                self._answer = answer
                return self._read(answer, host_of(url), limits)

    def _read(self, answer: Any, host: str, limits: Limits) -> _Outcome:
        status = answer.status_code
        if answer.is_redirect or 300 <= status < 400:
            target = host_of(answer.headers.get("Location", "")) or "another path of the same host"
            return _Outcome(
                trouble=f"{host} wants to send the request on to {target}; that is not followed, because the key would go along. "
                f"Give the right address in base_url",
                status=status,
            )
        limit = limits.answer if status == 200 else 1 << 16
        body = bytearray()
        for chunk in answer.iter_content(_CHUNK):
            if self._stop_asked.is_set():
                return _Outcome(trouble="stopped")
            body += chunk
            if len(body) > limit:
                break
        if status != 200:
            trouble, wait = f"{host} answered with status {status}", _retry_after(answer.headers.get("Retry-After"))
            return _Outcome(bytes(body[:limit]), trouble, again=status in _BUSY, wait=wait, status=status)
        if len(body) > limit:
            return _Outcome(trouble=f"the answer of {host} is larger than {limit >> 20} MB; it is not a text", status=status)
        return _Outcome(body=bytes(body), status=status)


def _sleep(seconds: float, poll: Poll) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        poll()
        time.sleep(min(_TICK, left))


def _one_try(url: str, headers: Mapping[str, str], body: bytes, limits: Limits, deadline: float, poll: Poll) -> _Outcome:
    running = _Try(url, headers, body, limits, deadline)
    running.start()
    try:
        while running.is_alive():
            poll()
            if time.monotonic() > deadline:
                return _Outcome(trouble=f"{host_of(url)} did not answer within {limits.total:g} s; {_LONGER}")
            running.join(_TICK)
    finally:
        running.stop()
    return running.outcome


def post(
    url: str,
    headers: Mapping[str, str],
    payload: Any,
    *,
    key: Key | None,
    advice: str,
    limits: Limits = DEFAULT_LIMITS,
    poll: Poll = lambda: None,
) -> Any:
    """Send JSON, return the JSON of the answer.

    Args:
        headers: With the key in them, if there is one.
        key: To strike it out of what the service says.
        advice: Where to put a key, for an answer of 401 or 403.

    Raises:
        ServiceError: what went wrong, and what to do. No other error of the network leaves this function.
    """
    deadline = time.monotonic() + limits.total
    body = json.dumps(payload).encode()
    sent = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity", **headers}
    outcome = _Outcome()
    for number in range(limits.tries):
        outcome = _one_try(url, sent, body, limits, deadline, poll)
        left = deadline - time.monotonic()
        if not outcome.again or number + 1 == limits.tries or left <= 0:
            break
        pause = min(_LONGEST_PAUSE, limits.pause * 2**number) * random.uniform(0.75, 1.25)
        pause = pause if outcome.wait is None else max(outcome.wait, pause)
        if pause >= left:
            break
        _sleep(pause, poll)
    # the key is struck out before anything is cut: a half of it would not be found any more
    text = outcome.body.decode("utf-8", "replace")
    text = key.hide_in(text) if key else text
    trouble = outcome.trouble
    if not trouble:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            shown = " ".join(text[:_QUOTED].split())
        raise ServiceError(f"the answer of {host_of(url)} is not JSON but {shown!r}; is base_url the address of such a service?")
    if words := _service_words(text):
        trouble += f": {words}"
    if outcome.status in (401, 403):
        trouble += f". The key is missing, wrong or not allowed to use this model: {advice}"
    elif outcome.status == 404:
        trouble += ". Check model and base_url"
    elif outcome.wait is not None and outcome.again:
        trouble += f". It asks to wait {outcome.wait:.0f} s; run again then"
    elif outcome.again:
        trouble += f". Tried {number + 1} times; check base_url and that the service runs, or run again later"
    raise ServiceError(key.hide_in(trouble) if key else trouble)
