"""The real HTTP code against servers that behave well and badly."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
import time
import traceback
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from stand_ins import (
    APPEARANCE,
    BAD_MOTION,
    FUSED,
    MOTION,
    Behaviour,
    Handler,
    Request,
    StandIn,
    disconnect,
    drip,
    empty,
    hang,
    huge,
    malformed,
    redirect,
    refusal,
    says,
    sends,
    status,
)

from dreamactor_core.text import transport
from dreamactor_core.text.ask import Asker
from dreamactor_core.text.budget import Budget
from dreamactor_core.text.cache import AnswerCache
from dreamactor_core.text.errors import BadAnswerError, RefusedError, ServiceError, TextError
from dreamactor_core.text.fusion import Texts, Writer, make_texts
from dreamactor_core.text.prompts import load_prompts
from dreamactor_core.text.services import Question
from dreamactor_core.text.transport import DEFAULT_LIMITS, Limits, patience

LIMITS = Limits(connect=2, read=1.0, total=3.0, pause=0.05)
UNHURRIED = Limits(connect=10, read=10, total=10, pause=0.05)
"""Where it is not the limits that are looked at: a busy machine may take its time."""
QUESTION = Question("What is this?", (b"\xff\xd8one", b"\xff\xd8two"))


def asker(service: StandIn, **changes: object) -> Asker:
    return Asker(service.protocol, "a model", **{"base_url": service.url, "limits": LIMITS, **changes})  # type: ignore[arg-type]


class Cancelled(BaseException):
    """What a host raises to stop; not an Exception, as ComfyUI's is not."""


def test_a_question_arrives_whole_and_its_answer_comes_back(service: StandIn, key: str) -> None:
    service.script = [says("An answer.")]
    assert asker(service).ask(QUESTION.followed_by("Wrong.", "Again.")) == "An answer."
    (request,) = service.requests
    assert request.texts == ["What is this?", "Wrong.", "Again."] and request.pictures == 2
    if service.protocol == "gemini":
        assert request.path == "/v1/models/a%20model:generateContent"
        assert request.headers["x-goog-api-key"] == key
        assert [turn["role"] for turn in request.body["contents"]] == ["user", "model", "user"]
        assert request.body["contents"][0]["parts"][1]["inline_data"] == {"mime_type": "image/jpeg", "data": "/9hvbmU="}
    else:
        assert request.path == "/v1/chat/completions" and request.body["model"] == "a model"
        assert request.headers["authorization"] == f"Bearer {key}"
        assert [message["role"] for message in request.body["messages"]] == ["user", "assistant", "user"]
        assert request.body["messages"][0]["content"][1]["image_url"]["url"] == "data:image/jpeg;base64,/9hvbmU="


def test_a_local_server_needs_no_key(service: StandIn) -> None:
    service.script = [says("An answer.")]
    assert asker(service).ask(QUESTION) == "An answer."
    assert not {"x-goog-api-key", "authorization"} & set(service.requests[0].headers)


@pytest.mark.parametrize(
    ("behaviour", "kind", "told", "tries"),
    [
        (malformed, ServiceError, "is not JSON", 1),
        (sends([1]), ServiceError, "expected an object", 1),
        (sends({}), ServiceError, "expected one", 1),
        (empty, ServiceError, "empty", 1),
        (refusal, RefusedError, "refused", 1),
        (status(401), ServiceError, "status 401.*DREAMACTOR_API_HOST=127.0.0.1", 1),
        (status(403), ServiceError, "status 403.*DREAMACTOR_API_KEY", 1),
        (status(404), ServiceError, "Check model and base_url", 1),
        (status(400), ServiceError, "status 400: it went wrong", 1),
        (status(500), ServiceError, "status 500.*Tried 4 times", 4),
        (status(429), ServiceError, "status 429.*Tried 4 times", 4),
        (status(429, Retry_After="60"), ServiceError, "asks to wait 60 s", 1),
        (hang, ServiceError, "sent nothing for 1 s.*raise timeout", 1),
        (disconnect, ServiceError, "failed or broke.*Tried 4 times", 4),
        (huge, ServiceError, "larger than 4 MB", 1),
        (drip, ServiceError, "did not answer within 3 s.*raise timeout", 1),
    ],
    ids=["malformed", "list", "nothing", "empty", "refusal", "401", "403", "404", "400", "500", "429", "429 for long", "hang",
         "disconnect", "huge", "drip"],
)  # fmt: skip
def test_bad_services(service: StandIn, key: str, behaviour: Behaviour, kind: type[Exception], told: str, tries: int) -> None:
    service.script = [behaviour] * tries
    began = time.monotonic()
    with pytest.raises(kind, match=told) as caught:
        asker(service).ask(QUESTION)
    assert time.monotonic() - began < LIMITS.total + 3, "a busy machine comes late to look at the clock"
    assert len(service.requests) == tries and not service.script
    assert key not in "".join(traceback.format_exception(caught.value)), "the key is in the error"


@pytest.mark.parametrize(
    ("wanted", "least"),
    # a date has whole seconds, so this one is 1 to 2 ahead; and the clock that it is of may be corrected meanwhile
    [(lambda: "1", 1.0), (lambda: formatdate(int(time.time()) + 2, usegmt=True), 0.95), (lambda: "soon", 0.0)],
    ids=["seconds", "date", "odd"],
)
def test_a_busy_service_is_asked_again_after_the_time_it_names(service: StandIn, wanted: Callable[[], str], least: float) -> None:
    def busy(stand_in: StandIn, handler: Handler, request: Request) -> None:
        status(429, Retry_After=wanted())(stand_in, handler, request)

    service.script = [busy, says("An answer.")]
    assert asker(service, limits=UNHURRIED).ask(QUESTION) == "An answer.", "or it would have waited longer than it may"
    first, second = service.requests
    assert second.came - first.came >= least


def test_each_pause_is_about_twice_the_one_before(service: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give or take a quarter, so that those who were turned away together do not return together; of half a minute at most."""
    pauses: list[float] = []
    monkeypatch.setattr(transport, "_sleep", lambda seconds, poll: pauses.append(seconds))
    monkeypatch.setattr(transport, "random", random.Random(0))
    patient = Limits(tries=12, pause=1)
    service.script = [status(503)] * patient.tries
    with pytest.raises(ServiceError, match=r"status 503.*Tried 12 times"):
        asker(service, limits=patient).ask(QUESTION)
    about = [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30]
    assert len(pauses) == len(about), "a pause before each try but the first"
    shares = [pause / usual for pause, usual in zip(pauses, about, strict=True)]
    assert all(0.75 <= share <= 1.25 for share in shares), pauses
    assert max(shares) - min(shares) > 0.2, "all come back at the same time"
    assert all(later > earlier for earlier, later in pairwise(pauses[:5])), pauses


@pytest.mark.parametrize("behaviour", [status(500), status(503), disconnect], ids=["500", "503", "disconnect"])
def test_a_passing_failure_is_got_over(service: StandIn, behaviour: Behaviour) -> None:
    service.script = [behaviour, behaviour, says("An answer.")]
    assert asker(service).ask(QUESTION) == "An answer."


def test_how_long_a_model_may_take() -> None:
    assert patience(300) == DEFAULT_LIMITS, "what is usual"
    slow = patience(3600)
    assert (slow.read, slow.total, slow.connect) == (3600, 7200, DEFAULT_LIMITS.connect)
    for wrong in (0, -1, float("nan"), 1e6):
        with pytest.raises(ServiceError, match=r"timeout is .*expected 1 to 86400 seconds"):
            patience(wrong)


def test_nobody_there_is_an_error() -> None:
    with socket.socket() as taken:  # and not listened to: nobody answers there, and nobody else can take it meanwhile
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ServiceError, match=r"connection to 127\.0\.0\.1 failed or broke.*Tried 4 times; check base_url"):
            Asker("openai_compatible", "m", f"http://127.0.0.1:{taken.getsockname()[1]}/v1", limits=UNHURRIED).ask(QUESTION)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(service: StandIn, key: str, code: int) -> None:
    with StandIn(service.protocol) as other:
        service.script = [redirect(other.url.replace("127.0.0.1", "localhost") + "/x", code)]
        with pytest.raises(ServiceError, match=r"send the request on to localhost.*base_url"):
            asker(service).ask(QUESTION)
        assert len(service.requests) == 1 and not other.requests


@pytest.mark.parametrize("behaviour", [hang, drip, status(429, Retry_After="30")], ids=["hang", "drip", "pause"])
def test_cancelling_takes_effect_within_a_second(service: StandIn, behaviour: Behaviour) -> None:
    """From when the service has the request, the user is asked more than once a second, and whatever is under way is given up."""
    asked = 0

    def poll() -> None:
        nonlocal asked
        asked += bool(service.requests)
        if asked == 5:
            raise Cancelled

    service.script = [behaviour] * 3
    patient = Limits(connect=5, read=60, total=60, pause=30)
    with pytest.raises(Cancelled):
        asker(service, limits=patient, poll=poll).ask(QUESTION)
    assert time.monotonic() - service.requests[0].came < 5, "that is a second for each time: half of one in all is usual"
    assert len(service.requests) == 1


def test_the_thread_of_a_stopped_answer_ends(service: StandIn) -> None:
    service.script = [drip]
    with pytest.raises(ServiceError, match="did not answer"):
        asker(service, limits=Limits(connect=1, read=30, total=0.5)).ask(QUESTION)
    deadline = time.monotonic() + 15  # half of the silence that it would bear; the service drips for ever
    while any(thread.name == "dreamactor text request" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the thread still reads"
        time.sleep(0.05)


def test_thoughts_are_left_out() -> None:
    with StandIn("gemini") as service:
        parts = [{"text": "Let me see.", "thought": True}, {"text": "An "}, {"text": "answer."}]
        service.script = [sends({"candidates": [{"content": {"parts": parts}}]})]
        assert asker(service).ask(QUESTION) == "An answer."


@pytest.mark.parametrize(
    ("protocol", "data", "kind", "told"),
    [
        ("gemini", {"candidates": [{"finishReason": "PROHIBITED_CONTENT"}]}, RefusedError, "PROHIBITED_CONTENT"),
        ("gemini", {"candidates": [{"finishReason": "MAX_TOKENS"}]}, ServiceError, "cut short"),
        ("gemini", {"candidates": [{"content": {"parts": "odd"}}]}, ServiceError, "empty"),
        ("gemini", {"candidates": [3]}, ServiceError, "no candidate"),
        ("openai_compatible", {"error": {"message": "no such model"}}, ServiceError, "no such model"),
        (
            "openai_compatible",
            {"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]},
            RefusedError,
            "filter",
        ),
        ("openai_compatible", {"choices": [{"message": {"content": "x"}, "finish_reason": "length"}]}, ServiceError, "cut short"),
        ("openai_compatible", {"choices": [{"message": {"content": 5}}]}, ServiceError, "empty"),
        ("openai_compatible", {"choices": "odd"}, ServiceError, "no message"),
    ],
)
def test_other_answers_that_are_none(protocol: str, data: object, kind: type[Exception], told: str) -> None:
    with StandIn(protocol) as service:
        service.script = [sends(data)]
        with pytest.raises(kind, match=told):
            asker(service).ask(QUESTION)


def test_an_answer_in_parts_is_one_text() -> None:
    with StandIn("openai_compatible") as service:
        content = [{"type": "text", "text": "An "}, {"type": "text", "text": "answer."}]
        service.script = [sends({"choices": [{"message": {"content": content}}]})]
        assert asker(service).ask(QUESTION) == "An answer."


def test_the_environment_s_proxy_is_not_for_this_machine(service: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    service.script = [says("An answer.")]
    assert asker(service).ask(QUESTION) == "An answer."


def test_the_environment_s_proxy_is_for_public_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def post(session: requests.Session, url: str, **given: object) -> requests.Response:
        seen.append(given["proxies"])
        raise requests.exceptions.InvalidURL("enough")

    monkeypatch.setattr(requests.Session, "post", post)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    with pytest.raises(ServiceError, match="InvalidURL"):
        Asker("openai_compatible", "m", "https://192.0.32.10/v1", limits=LIMITS).ask(QUESTION)
    assert seen[0]["https"] == "http://proxy.example:3128"  # type: ignore[index]


def test_a_netrc_does_not_take_the_place_of_the_key(
    service: StandIn, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    service.script = [says("An answer.")]
    asker(service).ask(QUESTION)
    headers = service.requests[0].headers
    assert key in (headers.get("authorization", "") + headers.get("x-goog-api-key", ""))
    assert "Basic" not in headers.get("authorization", "")


# writing the texts


def writer(service: StandIn, folder: Path | None, on_bad_answer: str = "error") -> Writer:
    return Writer(asker(service), load_prompts("en"), AnswerCache(folder), on_bad_answer)  # type: ignore[arg-type]


def all_texts(made: Writer) -> Texts:
    frames = [b"\xff\xd8frame"] * 3
    return make_texts(
        "fused", Texts(), lambda: made.motion(frames, Budget()), lambda: made.appearance(b"\xff\xd8picture"), made.fuse
    )


def test_three_texts_and_a_free_second_run(service: StandIn, tmp_path: Path) -> None:
    made = all_texts(writer(service, tmp_path))
    assert made == Texts(FUSED, MOTION, APPEARANCE)
    assert [request.pictures for request in service.requests] == [3, 1, 0]
    fusion = service.requests[2].texts[0]
    assert MOTION in fusion and APPEARANCE in fusion
    again = writer(service, tmp_path)
    assert all_texts(again) == made and not again.warnings
    assert len(service.requests) == 3, "the second run asked again"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json"] * 3, "something else lies in the cache"


def test_another_picture_model_or_prompt_is_another_question(service: StandIn, tmp_path: Path) -> None:
    writer(service, tmp_path).appearance(b"one")
    writer(service, tmp_path).appearance(b"two")
    Writer(asker(service, base_url=service.url + "/"), load_prompts("en"), AnswerCache(tmp_path)).appearance(b"one")
    assert len(service.requests) == 2, "the same address in another spelling"
    other = Asker(service.protocol, "another", service.url, limits=LIMITS)
    Writer(other, load_prompts("en"), AnswerCache(tmp_path)).appearance(b"one")
    edited = tmp_path / "prompts"
    edited.mkdir()
    (edited / "appearance.en.txt").write_text("What is it like?")
    Writer(asker(service), load_prompts("en", [edited]), AnswerCache(tmp_path)).appearance(b"one")
    assert len(service.requests) == 4
    assert service.requests[-1].texts == ["What is it like?"]


def test_a_bad_answer_is_repaired_once(service: StandIn, tmp_path: Path) -> None:
    service.script = [says(BAD_MOTION), says(f"<think>Hm.\nWell.</think>\n{MOTION}")]
    made = writer(service, tmp_path)
    assert made.motion([b"frame"], Budget()) == MOTION and not made.warnings
    first, second = service.requests
    assert second.texts[:2] == [first.texts[0], BAD_MOTION]
    assert "line breaks" in second.texts[2] and '"she"' in second.texts[2] and '"Subsequently,"' in second.texts[2]
    assert second.pictures == 1, "the repair must see the pictures again"


def test_a_bad_answer_that_stays_bad_is_an_error(service: StandIn, tmp_path: Path) -> None:
    service.script = [says(BAD_MOTION)] * 2
    with pytest.raises(BadAnswerError, match=r"one paragraph.*on_bad_answer"):
        writer(service, tmp_path).motion([b"frame"], Budget())
    assert len(service.requests) == 2 and not list(tmp_path.iterdir()), "it was kept"


def test_or_a_warning_if_the_user_chose_so(service: StandIn, tmp_path: Path) -> None:
    service.script = [says(BAD_MOTION)] * 2
    for _ in range(2):
        made = writer(service, tmp_path, "warn")
        assert made.motion([b"frame"], Budget()) == BAD_MOTION
        assert len(made.warnings) == 1 and "motion text does not keep to the form" in made.warnings[0]
        assert len(service.requests) == 2, "the second run asked again"
    service.script = [says(MOTION)]
    assert writer(service, tmp_path).motion([b"frame"], Budget()) == MOTION, "an error is asked for, but the bad text was taken"


def test_a_damaged_cache_is_no_cache(service: StandIn, tmp_path: Path) -> None:
    writer(service, tmp_path).appearance(b"one")
    (kept,) = tmp_path.iterdir()
    for damage in (b"", b"{", b"[]", b'{"text": 3}', b"\xff\xfe"):
        kept.write_bytes(damage)
        assert writer(service, tmp_path).appearance(b"one") == APPEARANCE
    assert json.loads(kept.read_text("utf-8"))["text"] == APPEARANCE


def test_a_cache_that_cannot_be_written_does_not_lose_the_answer(
    service: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert writer(service, tmp_path / "file").appearance(b"one") == APPEARANCE
    assert "could not be kept" in caplog.text


# the key


@pytest.mark.parametrize("before", [*range(270, 300, 7), 198])
def test_no_part_of_the_key_is_left_where_a_message_is_cut(service: StandIn, key: str, before: int) -> None:
    words = f"{'x' * before} {key}"
    failures: list[Behaviour] = [
        lambda _, handler, request: handler.send(400, words.encode()),
        lambda _, handler, request: handler.send(200, words.encode()),
        sends({"error": {"message": words}}),
    ]
    for behaviour in failures:
        service.script = [behaviour]
        with pytest.raises(ServiceError) as caught:
            asker(service).ask(QUESTION)
        assert key[:7] not in str(caught.value)


def test_the_key_is_nowhere(service: StandIn, key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every way to fail and to succeed, with a service that repeats the key in all it says."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")
    refused = {"choices": [{"message": {"refusal": f"not for {key}"}}]}
    failed = {"error": {"message": f"not for {key}"}}
    blocked = {"promptFeedback": {"blockReason": key}}
    scripts: list[list[Behaviour]] = [[status(code)] * 4 for code in (400, 401, 403, 404, 429, 500)]
    scripts += [[malformed], [sends(key)], [sends(refused)], [sends(failed)], [sends(blocked)], [hang], [disconnect] * 4]
    scripts += [[redirect(f"http://localhost/{key}")], [says(f"A woman called {key} in a red coat.")], [says(f"sits {key}")] * 2]
    shown: list[str] = []
    for number, script in enumerate(scripts):
        service.script = list(script)
        made = writer(service, tmp_path / "cache", "warn" if number % 2 else "error")
        shown += [repr(made), str(made), repr(made.asker), repr(vars(made.asker))]
        try:
            shown.append(made.appearance(bytes([number])))
        except TextError as error:
            chain: BaseException | None = error
            while chain is not None:
                shown += [str(chain), repr(chain), repr(vars(chain)), repr(chain.args)]
                chain = chain.__cause__ or chain.__context__
            shown += traceback.format_exception(error)
        shown += made.warnings
    shown.append(caplog.text)
    shown += [repr(record.__dict__) for record in caplog.records]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert written, "nothing was kept; the test looks at nothing"
    assert any("***" in text for text in shown), "nothing was struck out; the test looks at nothing"
    sent = "".join(str(request.headers) for request in service.requests)
    assert key in sent
    assert not [text for text in shown if key in text]
    assert not [data for data in written if key.encode() in data]
