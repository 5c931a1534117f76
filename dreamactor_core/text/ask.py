"""A service, a model and an address, ready to be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .address import check_address, host_of
from .errors import ServiceError, TextError
from .keys import find_key, where_to_put
from .services import SERVICES, Question
from .transport import DEFAULT_LIMITS, Limits, Poll, post


@dataclass(frozen=True)
class Asker:
    """Asks one model. The key is looked up for every request and kept nowhere.

    Attributes:
        base_url: Empty: the service's usual address.
        key_file: See `keys.find_key`.
        poll: Called while waiting; raises to stop.
    """

    service: str
    model: str
    base_url: str = ""
    key_file: Path | None = None
    limits: Limits = DEFAULT_LIMITS
    poll: Poll = lambda: None

    def __post_init__(self) -> None:
        if self.service not in SERVICES:
            raise ServiceError(f"the service is {self.service!r}, expected one of {', '.join(SERVICES)}")
        if not self.model.strip():
            raise ServiceError("model is empty, expected the name of a model that takes pictures, as the service calls it")

    @property
    def address(self) -> str:
        """Where the service is."""
        return check_address(self.base_url or SERVICES[self.service].base_url)

    def ask(self, question: Question) -> str:
        """The model's answer. Raises ServiceError; its message never holds the key."""
        service, address = SERVICES[self.service], self.address
        key = find_key(address, self.key_file)
        advice = where_to_put(address, self.key_file)
        if key is None and host_of(address) == host_of(service.base_url):
            raise ServiceError(f"there is no key for {host_of(address)}: {advice}")
        headers = service.headers(key.reveal()) if key else {}
        model = self.model.strip()
        answer = post(
            service.address(address, model), headers, service.payload(question, model),
            key=key, advice=advice, limits=self.limits, poll=self.poll,
        )  # fmt: skip
        try:
            text, trouble = service.read(answer), None
        except TextError as error:
            text, trouble = "", error
        # a service can repeat the key in what it says; outside of the except block the first error is not chained on
        if trouble is not None:
            raise type(trouble)(key.hide_in(str(trouble)) if key else str(trouble))
        return key.hide_in(text) if key else text
