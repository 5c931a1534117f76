"""Gemini's generateContent interface, with pictures inline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..errors import RefusedError, ServiceError
from .question import Question, base64_of

_REFUSALS = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "LANGUAGE")


class Gemini:
    """https://ai.google.dev/api/generate-content"""

    name = "gemini"
    base_url = "https://generativelanguage.googleapis.com/v1beta"

    def address(self, base_url: str, model: str) -> str:
        """The key is not part of it: addresses end up in logs."""
        return f"{base_url}/models/{quote(model.removeprefix('models/'), safe='')}:generateContent"

    def headers(self, secret: str) -> Mapping[str, str]:
        """Google's own header."""
        return {"x-goog-api-key": secret}

    def payload(self, question: Question, model: str) -> dict[str, Any]:
        """Turns of `user` and `model`."""
        pictures = [{"inline_data": {"mime_type": "image/jpeg", "data": base64_of(image)}} for image in question.images]
        turns: list[dict[str, Any]] = [{"role": "user", "parts": [{"text": question.prompt}, *pictures]}]
        for answer, reply in question.exchanges:
            turns.append({"role": "model", "parts": [{"text": answer}]})
            turns.append({"role": "user", "parts": [{"text": reply}]})
        return {"contents": turns}

    def read(self, answer: Any) -> str:
        """The first candidate, without its thoughts."""
        if not isinstance(answer, dict):
            raise ServiceError(f"Gemini answered with a {type(answer).__name__}, expected an object; is base_url right?")
        blocked = answer.get("promptFeedback")
        if isinstance(blocked, dict) and blocked.get("blockReason"):
            raise RefusedError(f"Gemini refused the request ({blocked['blockReason']}); use other material or another service")
        candidates = answer.get("candidates")
        first = candidates[0] if isinstance(candidates, list) and candidates else None
        if not isinstance(first, dict):
            raise ServiceError("Gemini's answer holds no candidate, expected one; run again, or use another model")
        ended = str(first.get("finishReason") or "STOP")
        if ended in _REFUSALS:
            raise RefusedError(f"Gemini refused to answer ({ended}); use other material or another service")
        content = first.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        texts = [
            part["text"]
            for part in (parts if isinstance(parts, list) else [])
            if isinstance(part, dict) and isinstance(part.get("text"), str) and not part.get("thought")
        ]
        text = "".join(texts)
        if ended == "MAX_TOKENS":
            raise ServiceError("Gemini's answer was cut short at its length limit; use another model")
        if not text.strip():
            raise ServiceError(f"Gemini's answer is empty (it ended with {ended}); run again, or use another model")
        return text
