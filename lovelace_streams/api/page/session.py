"""Who looks at the page: a signed cookie in a token's stead, because a browser's event stream carries no bearer header.

Nothing is kept: the cookie says until when and with which scopes, and a MAC under a key made of the tokens says that it
is ours. So every service of one token knows it, and another token ends all sessions.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

import msgspec

COOKIE = "lovelace_session"
SAMPLES = "samples"
"""The scope in which values of failed items are shown."""
SESSION_SECONDS = 12 * 3600
SAMPLES_SECONDS = 3600
ADDRESSES_MAX = 10_000


class Session(msgspec.Struct, frozen=True):
    """What a cookie says, once its MAC was right and its time not over."""

    expires: int
    scope: str
    """"" or `SAMPLES`."""
    nonce: str

    @property
    def sees_samples(self) -> bool:
        """Whether values may be shown."""
        return self.scope == SAMPLES


class Sessions:
    """Gives and reads cookies, judges tokens. Comparisons take the same time whatever is given.

    >>> sessions = Sessions("the token", clock=lambda: 1000.0)
    >>> cookie = sessions.issue()
    >>> sessions.read(cookie).expires
    44200
    >>> sessions.read(cookie.replace("44200", "99999")), Sessions("another", clock=lambda: 1000.0).read(cookie)
    (None, None)
    """

    def __init__(self, token: str, samples_token: str = "", clock: Callable[[], float] = time.time) -> None:
        self._token = token
        self._samples_token = samples_token
        self._key = _mac(token.encode(), f"session {samples_token}")
        self._clock = clock

    def admits(self, token: str) -> bool:
        """Whether this is the service's token."""
        return hmac.compare_digest(token.encode(), self._token.encode())

    def admits_to_samples(self, token: str) -> bool:
        """Whether this is the token for samples; never where there is none."""
        return bool(self._samples_token) and hmac.compare_digest(token.encode(), self._samples_token.encode())

    def issue(self, scope: str = "") -> str:
        """A new cookie's value."""
        expires = int(self._clock()) + (SAMPLES_SECONDS if scope else SESSION_SECONDS)
        said = f"{expires}.{scope}.{secrets.token_urlsafe(16)}"
        return f"{said}.{_mac(self._key, said).hex()}"

    def read(self, cookie: str) -> Session | None:
        """None where it is not ours, or over."""
        said, _, mac = cookie.rpartition(".")
        if not hmac.compare_digest(mac.encode(), _mac(self._key, said).hex().encode()):
            return None
        expires, scope, nonce = said.split(".")
        return Session(int(expires), scope, nonce) if int(expires) > self._clock() else None

    def of(self, header: str) -> Session | None:
        """The session of a request's `Cookie` header."""
        try:
            found = SimpleCookie(header).get(COOKIE)
        except CookieError:
            return None
        return self.read(found.value) if found is not None else None

    def csrf(self, session: Session) -> str:
        """What a form of this session carries: another site can make a browser send the cookie, but can't read this."""
        return _mac(self._key, f"csrf {session.nonce}").hex()

    def is_own_form(self, session: Session, csrf: str) -> bool:
        """Whether a form came from a page of ours."""
        return hmac.compare_digest(csrf.encode(), self.csrf(session).encode())


class Throttle:
    """Wrong tokens by address: after `tries` of them within `seconds`, none is looked at until the first is that old.

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
        """Seconds until this address may try again."""
        failed = self._failed.get(address)
        if failed is None or len(failed) < self._tries:
            return 0
        return max(0, int(failed[0] + self._seconds - self._clock()))

    def failed(self, address: str) -> None:
        """A token was wrong."""
        self._failed.setdefault(address, deque(maxlen=self._tries)).append(self._clock())
        self._failed.move_to_end(address)
        if len(self._failed) > ADDRESSES_MAX:
            self._failed.popitem(last=False)


def _mac(key: bytes, said: str) -> bytes:
    return hmac.digest(key, said.encode(), hashlib.sha256)
