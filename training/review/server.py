"""The page's server: this machine only, a token in every address, files by the ids of samples and nothing else."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from training.errors import UserError
from training.review.decisions import Decisions
from training.review.media import Media

_log = logging.getLogger(__name__)
HERE = Path(__file__).parent
PAGE = {"": ("page.html", "text/html"), "page.js": ("page.js", "text/javascript"), "page.css": ("page.css", "text/css")}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",  # the token is in the address
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
LOCAL = ("127.0.0.1", "localhost")
COOKIE = "dreamactor_review"
"""Names the browser: it takes back its own decisions only. A cookie is of all ports, and each start has another one."""
EVERY = 5.0
"""Seconds between two rewritings of the manifests: they are long, and the journal has every decision meanwhile."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Review:
    """The application. `title` stands above the page."""

    def __init__(self, decisions: Decisions, media: Media, token: str, title: str) -> None:
        self._decisions, self._media, self._token, self._title = decisions, media, token, title
        self._written = -1

    def app(self) -> web.Application:
        """To be run on the loopback address."""
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 14)
        app.router.add_get("/{token}/", self._page)
        app.router.add_get("/{token}/{file:page\\.(?:js|css)}", self._page)
        app.router.add_get("/{token}/state", self._state)
        app.router.add_get("/{token}/samples/{id}", self._sample)
        app.router.add_get("/{token}/samples/{id}/video", self._video)
        app.router.add_get("/{token}/samples/{id}/reference", self._reference)
        app.router.add_post("/{token}/samples/{id}/decision", self._decide)
        app.router.add_post("/{token}/undo", self._undo)
        app.cleanup_ctx.append(self._writer)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # another site's page cannot know the token; a name that leads here from outside is refused all the same
        name = request.host.rsplit(":", 1)[0]
        given = request.match_info.get("token", "").encode()
        if name not in LOCAL or not hmac.compare_digest(given, self._token.encode()):
            return web.Response(status=404, text="not found", headers=HEADERS)
        try:
            response = await handler(request)
        except KeyError:
            response = web.Response(status=404, text="there is no such sample")
        except UserError as error:
            response = web.Response(status=500, text=str(error))
        except web.HTTPException as error:
            response = error
        except OSError as error:
            response = web.Response(status=507, text=f"nothing was saved: {error}")
        for key, value in HEADERS.items():
            response.headers.setdefault(key, value)
        return response

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name, kind = PAGE[request.match_info.get("file", "")]
        response = web.Response(text=(HERE / name).read_text("utf-8"), content_type=kind, charset="utf-8")
        if name == "page.html":
            by = request.cookies.get(COOKIE, "")
            by = by if 1 <= len(by) <= 64 else str(uuid.uuid4())
            response.set_cookie(COOKIE, by, max_age=400 * 86400, path="/", httponly=True, samesite="Lax")
        return response

    async def _state(self, request: web.Request) -> web.StreamResponse:
        changes, decided = await asyncio.to_thread(self._decisions.state)
        if request.query.get("since") == str(changes):
            return web.json_response({"changes": changes})
        listed = [[name, accepted] for name, accepted in decided.items()]
        return web.json_response({"changes": changes, "title": self._title, "samples": listed})

    async def _sample(self, request: web.Request) -> web.StreamResponse:
        sample = self._decisions.samples[request.match_info["id"]]
        shown = {
            "id": sample.id, "kind": sample.kind, "caption": sample.caption, "note": sample.note, "scores": sample.scores,
            "fps": sample.fps, "frames": sample.frames, "width": sample.width, "height": sample.height,
            "reference": "character" if sample.driving_reference else "image" if sample.reference_image else "first frame",
        }  # fmt: skip
        return web.json_response(shown)

    async def _video(self, request: web.Request) -> web.StreamResponse:
        sample = self._decisions.samples[request.match_info["id"]]
        path = await asyncio.to_thread(self._media.video, sample)
        return web.FileResponse(path, headers={"Content-Type": "video/mp4", "Cache-Control": "private, max-age=3600"})

    async def _reference(self, request: web.Request) -> web.StreamResponse:
        sample = self._decisions.samples[request.match_info["id"]]
        data = await asyncio.to_thread(self._media.reference, sample)
        return web.Response(body=data, content_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    async def _decide(self, request: web.Request) -> web.StreamResponse:
        name, body = request.match_info["id"], await _object(request)
        if not isinstance(body.get("accepted"), bool):
            raise web.HTTPBadRequest(text="accepted must be true or false")
        await asyncio.to_thread(self._decisions.decide, name, body["accepted"], _browser(request))
        return web.json_response({"id": name, "accepted": self._decisions.of(name)})

    async def _undo(self, request: web.Request) -> web.StreamResponse:
        name = await asyncio.to_thread(self._decisions.undo, _browser(request))
        return web.json_response({"id": name, "accepted": None if name is None else self._decisions.of(name)})

    async def _writer(self, app: web.Application) -> Any:  # an async generator, as aiohttp takes it
        """Keep the manifests up to date, every few seconds where there was something, and at the end."""

        async def keep_up() -> None:
            while True:
                await self._write()
                await asyncio.sleep(EVERY)

        task = asyncio.create_task(keep_up())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._write()

    async def _write(self) -> None:
        changes = self._decisions.changes
        if changes == self._written:
            return
        try:
            await asyncio.to_thread(self._decisions.write)
            self._written = changes
        except UserError as error:
            _log.error("%s", error)


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        body = None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="expected a JSON object")
    return body


def _browser(request: web.Request) -> str:
    """The name that the page gave to the browser."""
    by = request.cookies.get(COOKIE, "")
    if not 1 <= len(by) <= 64:
        raise web.HTTPBadRequest(text=f"got no cookie {COOKIE}, expected the one of the page: allow cookies and load it again")
    return by
