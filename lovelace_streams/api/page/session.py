"""Login sessions: a signed cookie instead of a token, because a browser's event stream carries no bearer header.

Nothing is stored: a cookie holds a random number and when it was made, signed by itsdangerous under a key made of the
tokens. So every service with the same tokens reads it, and a changed token ends all sessions
(docs/decisions/0018-sessions-by-itsdangerous.md).
"""

import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple

from itsdangerous import BadData, Signer, TimestampSigner, URLSafeTimedSerializer

COOKIE = "lovelace_session"
SAMPLES = "samples"
"""The scope in which values of failed items are shown."""
SESSION_SECONDS = 12 * 3600
SAMPLES_SECONDS = 3600
LIFETIMES = {"": SESSION_SECONDS, SAMPLES: SAMPLES_SECONDS}
"""Scope → seconds. Each scope signs with a salt of its own, so a cookie is valid in the scope that it was made for."""
SIGNING: dict[str, Any] = {"key_derivation": "hmac", "digest_method": sha256}
"""The library's own defaults are a plain hash and SHA-1."""
ADDRESSES_MAX = 10_000


class Session(NamedTuple):
    """The content of a cookie whose signature is right and whose time is not over."""

    scope: str
    """"" or `SAMPLES`."""
    nonce: str

    @property
    def sees_samples(self) -> bool:
        """Whether values may be shown."""
        return self.scope == SAMPLES


class Sessions:
    """Makes and reads session cookies, and compares tokens, in a time that does not depend on what is given.

    >>> now = [1000.0]
    >>> sessions = Sessions("the token", clock=lambda: now[0])
    >>> cookie = sessions.issue()
    >>> sessions.read(cookie).sees_samples, Sessions("another", clock=lambda: now[0]).read(cookie)
    (False, None)
    >>> now[0] += SESSION_SECONDS + 1
    >>> sessions.read(cookie) is None
    True
    """

    def __init__(self, token: str, samples_token: str = "", clock: Callable[[], float] = time.time) -> None:
        self._token = token
        self._samples_token = samples_token
        key = hmac.digest(token.encode(), samples_token.encode(), "sha256")
        timed = SIGNING | {"clock": clock}
        self._serializers = {
            scope: URLSafeTimedSerializer(key, f"session {scope}", signer=_Signer, signer_kwargs=timed)
            for scope in LIFETIMES
        }
        self._csrf = Signer(key, "csrf", **SIGNING)

    def is_token(self, token: str) -> bool:
        """Whether this is the service's token."""
        return hmac.compare_digest(token.encode(), self._token.encode())

    def is_samples_token(self, token: str) -> bool:
        """Whether this is the token for samples; never where there is none."""
        return bool(self._samples_token) and hmac.compare_digest(token.encode(), self._samples_token.encode())

    def issue(self, scope: str = "") -> str:
        """Make the value of a new cookie."""
        return self._serializers[scope].dumps(secrets.token_urlsafe(16))

    def read(self, cookie: str) -> Session | None:
        """Read a cookie's value; None if it is not ours, or over."""
        for scope, serializer in self._serializers.items():
            with suppress(BadData):
                return Session(scope, serializer.loads(cookie, max_age=LIFETIMES[scope]))
        return None

    def of(self, header: str) -> Session | None:
        """Read the session of a request's `Cookie` header."""
        try:
            found = SimpleCookie(header).get(COOKIE)
        except CookieError:
            return None
        return self.read(found.value) if found is not None else None

    def csrf(self, session: Session) -> str:
        """Make the token of a session's forms: another site makes a browser send a cookie, but cannot read this."""
        return self._csrf.get_signature(session.nonce).decode()

    def is_csrf(self, session: Session, csrf: str) -> bool:
        """Whether a form came from a page of this session."""
        return self._csrf.verify_signature(session.nonce, csrf)


class _Signer(TimestampSigner):
    """Signs at a time that a test can set."""

    def __init__(self, *args: Any, clock: Callable[[], float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock = clock

    def get_timestamp(self) -> int:
        """Tell the seconds since 1970."""
        return int(self._clock())


class Throttle:
    """Counts wrong tokens by address: after `tries` within `seconds`, that address waits until the first is that old.

    >>> now = [0.0]
    >>> throttle = Throttle(tries=2, seconds=60, clock=lambda: now[0])
    >>> throttle.failed("a"); now[0] = 10.0; throttle.failed("a")
    >>> throttle.wait("a"), throttle.wait("b")
    (50, 0)
    """

    def __init__(self, tries: int = 5, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._tries, self._seconds, self._clock = tries, seconds, clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """Tell the seconds until this address may try again."""
        failed = self._failed.get(address)
        if failed is None or len(failed) < self._tries:
            return 0
        return max(0, int(failed[0] + self._seconds - self._clock()))

    def failed(self, address: str) -> None:
        """Note a wrong token."""
        self._failed.setdefault(address, deque(maxlen=self._tries)).append(self._clock())
        self._failed.move_to_end(address)
        if len(self._failed) > ADDRESSES_MAX:
            self._failed.popitem(last=False)
