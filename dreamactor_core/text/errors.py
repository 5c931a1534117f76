"""What can go wrong between a question and its text."""

from __future__ import annotations


class TextError(RuntimeError):
    """No text was made. The message says what was got, what was expected and what to do, and never holds a key."""


class ServiceError(TextError):
    """The service could not be reached, refused the request, or answered with something that is not an answer."""


class RefusedError(ServiceError):
    """The model will not describe this material."""


class BadAnswerError(TextError):
    """The answer does not keep to the form, after the request to repair it too."""
