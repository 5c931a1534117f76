"""The chat completions interface: OpenAI's, and that of vLLM, Ollama, LM Studio, llama.cpp's server and most hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RefusedError, ServiceError
from .question import Question, base64_of


class OpenAICompatible:
    """https://platform.openai.com/docs/api-reference/chat"""

    name = "openai_compatible"
    base_url = "https://api.openai.com/v1"

    def address(self, base_url: str, model: str) -> str:
        """The same for every model."""
        return f"{base_url}/chat/completions"

    def headers(self, secret: str) -> Mapping[str, str]:
        """The usual header."""
        return {"Authorization": f"Bearer {secret}"}

    def payload(self, question: Question, model: str) -> dict[str, Any]:
        """Messages of `user` and `assistant`. No temperature and no length: some models refuse requests that name them."""
        pictures = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64_of(image)}"}} for image in question.images
        ]
        content: Any = [{"type": "text", "text": question.prompt}, *pictures] if pictures else question.prompt
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        for answer, reply in question.exchanges:
            messages.append({"role": "assistant", "content": answer})
            messages.append({"role": "user", "content": reply})
        return {"model": model, "messages": messages, "stream": False}

    def read(self, answer: Any) -> str:
        """The first choice."""
        if not isinstance(answer, dict):
            raise ServiceError(f"the service answered with a {type(answer).__name__}, expected an object; is base_url right?")
        if answer.get("error"):  # some hosts report errors with status 200
            told = answer["error"].get("message") if isinstance(answer["error"], dict) else answer["error"]
            raise ServiceError(f"the service answered with an error: {str(told)[:300]}")
        choices = answer.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        message = first.get("message") if isinstance(first, dict) else None
        if not isinstance(message, dict):
            raise ServiceError("the service's answer holds no message, expected one; does base_url end in /v1?")
        if message.get("refusal"):
            raise RefusedError(f"the model refused: {str(message['refusal'])[:300]}; use other material or another model")
        if first.get("finish_reason") == "content_filter":
            raise RefusedError("the service's content filter stopped the answer; use other material or another model")
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if first.get("finish_reason") == "length":
            raise ServiceError("the answer was cut short at the service's length limit; raise it there (context or output length)")
        if not isinstance(content, str) or not content.strip():
            raise ServiceError("the answer is empty; does the model take pictures? Run again, or use another model")
        return content
