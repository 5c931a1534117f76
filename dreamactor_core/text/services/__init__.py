"""Services that answer a question about pictures. Another one is another file here and a line in SERVICES."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .gemini import Gemini
from .openai import OpenAICompatible
from .question import Question

__all__ = ["SERVICES", "Question", "Service"]


class Service(Protocol):
    """How a service is spoken to: everything but the network."""

    name: str
    base_url: str
    """Its usual address."""

    def address(self, base_url: str, model: str) -> str:
        """Where requests go."""

    def headers(self, secret: str) -> Mapping[str, str]:
        """What carries the key."""

    def payload(self, question: Question, model: str) -> dict[str, Any]:
        """The request."""

    def read(self, answer: Any) -> str:
        """The text of an answer. Raises RefusedError or ServiceError."""


SERVICES: dict[str, Service] = {service.name: service for service in (Gemini(), OpenAICompatible())}
