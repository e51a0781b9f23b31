"""What a session's cookie opens: for how long, for whom, and which forms with it."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.api.page.session import SAMPLES, SAMPLES_SECONDS, SESSION_SECONDS, Session, Sessions

TOKEN = "the token"
NOW = 1_700_000_000


def sessions(token: str = TOKEN, samples_token: str = "for samples", now: float = NOW) -> Sessions:
    return Sessions(token, samples_token, clock=lambda: now)


@pytest.mark.parametrize(("scope", "seconds"), [("", SESSION_SECONDS), (SAMPLES, SAMPLES_SECONDS)])
def test_a_session_is_over_after_the_time_of_its_scope(scope: str, seconds: int) -> None:
    cookie = sessions().issue(scope)

    found = sessions(now=NOW + seconds).read(cookie)
    assert found is not None
    assert (found.scope, found.sees_samples) == (scope, scope == SAMPLES)
    assert sessions(now=NOW + seconds + 1).read(cookie) is None
    assert sessions(now=NOW - 1).read(cookie) is None, "it was not made yet"


@pytest.mark.parametrize("scope", ["", SAMPLES])
def test_a_changed_token_ends_all_sessions(scope: str) -> None:
    cookie = sessions().issue(scope)

    assert sessions().read(cookie) is not None, "another service of the same tokens"
    assert sessions(token="another").read(cookie) is None
    assert sessions(samples_token="another").read(cookie) is None
    assert sessions(samples_token="").read(cookie) is None


def test_a_changed_cookie_opens_nothing() -> None:
    cookie = sessions().issue()
    for at, character in enumerate(cookie[:-1]):
        changed = cookie[:at] + ("A" if character != "A" else "B") + cookie[at + 1 :]
        assert sessions().read(changed) is None, at
    payload, made, signature = cookie.split(".")
    _, other, _ = sessions(now=NOW + 5).issue().split(".")
    assert sessions(now=NOW + 5).read(f"{payload}.{other}.{signature}") is None
    assert made != other


def test_a_cookie_of_the_form_that_was_is_not_logged_in() -> None:
    """Until version 0.1.0: when it ends, the scope and a nonce, with a MAC in hexadecimal digits."""
    key = hmac.digest(TOKEN.encode(), b"session for samples", hashlib.sha256)
    said = f"{NOW + 600}..nonce"

    assert sessions().read(f"{said}.{hmac.digest(key, said.encode(), hashlib.sha256).hex()}") is None


@pytest.mark.parametrize("cookie", ["", "x", ".", "..", "....", "é", "9999999999..nonce.mac", "a" * 5000])
def test_what_is_no_cookie_of_ours_opens_nothing(cookie: str) -> None:
    assert sessions().read(cookie) is None
    assert sessions().of(f"other=1; lovelace_session={cookie}") is None


@given(st.text() | st.lists(st.text("abcdEFG_-0123456789", max_size=30), min_size=2, max_size=4).map(".".join))
def test_any_text_is_read_without_an_error(cookie: str) -> None:
    assert sessions().read(cookie.encode("utf-8", "replace").decode()) is None


def test_a_form_belongs_to_its_session() -> None:
    one, other = (sessions().read(sessions().issue()) for _ in range(2))
    assert one is not None
    assert other is not None
    csrf = sessions().csrf(one)

    assert sessions().is_csrf(one, csrf)
    assert not sessions().is_csrf(other, csrf)
    assert not sessions(token="another").is_csrf(one, csrf)
    assert not any(sessions().is_csrf(one, wrong) for wrong in ("", "é", csrf[:-2], f"{csrf}A", one.nonce))
    assert sessions().read(csrf) is None, "a form's token is no session"


def test_a_cookie_is_no_token_of_a_form() -> None:
    cookie = sessions().issue()
    found = sessions().read(cookie)

    assert isinstance(found, Session)
    assert not sessions().is_csrf(found, cookie)
    assert not sessions().is_csrf(found, cookie.rpartition(".")[2])


def test_tokens_are_compared_whole() -> None:
    assert sessions().is_token(TOKEN)
    assert not any(sessions().is_token(wrong) for wrong in ("", TOKEN[:-1], f"{TOKEN} ", "for samples", "é"))
    assert sessions().is_samples_token("for samples")
    assert not sessions().is_samples_token(TOKEN)
    assert not sessions(samples_token="").is_samples_token(""), "without a token for samples nobody sees any"
