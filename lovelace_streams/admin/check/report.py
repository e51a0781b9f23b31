"""The report of `lovelace check`: findings, and the outcome of the sample by items."""

import msgspec

from lovelace_streams.records import DeadLetter

FAILS, AWAY, DEPLOYMENT = 1, 75, 78
"""Exit codes: records would fail; a server is away (EX_TEMPFAIL); the deployment is wrong (EX_CONFIG)."""


class Finding(msgspec.Struct, frozen=True):
    """One checked thing: `ok`, `note` (it works, with a restriction), `away` or `deployment`."""

    state: str
    text: str


class SampleFailure(msgspec.Struct):
    """Items of the sample that would be dead-lettered for one cause."""

    reason: str
    step: str
    detail: str
    """The path and the expected type, or the constraint or column; never a value."""
    items: int
    example: str
    """`topic/partition/offset`, with `#item` where the message holds several."""


class SampleResult(msgspec.Struct):
    """The outcome of the sample, by items."""

    messages: int = 0
    items: int = 0
    ends: dict[str, int] = msgspec.field(default_factory=dict)
    """`written`, `superseded`, `suppressed`; `checked` if a destination can't roll back; skips by their reason."""
    failures: list[SampleFailure] = msgspec.field(default_factory=list)

    def count(self, outcome: str, items: int = 1) -> None:
        """Count items by their outcome."""
        self.ends[outcome] = self.ends.get(outcome, 0) + items

    def count_failure(self, letter: DeadLetter) -> None:
        """Count a dead letter with those of the same cause."""
        detail = " ".join(filter(None, (letter.detail, f"({letter.code})" if letter.code else "")))
        for failure in self.failures:
            if (failure.reason, failure.step, failure.detail) == (letter.reason, letter.step, detail):
                failure.items += letter.count
                return
        self.failures.append(SampleFailure(str(letter.reason), letter.step, detail, letter.count, _position(letter)))


def _position(letter: DeadLetter) -> str:
    record = letter.record
    message = f"{record.topic}/{record.partition}/{record.offset}"
    return message if record.items <= 1 or letter.count > 1 else f"{message}#{letter.item}"


class CheckReport(msgspec.Struct):
    """All findings about a flow."""

    flow: str
    findings: list[Finding]
    sample: SampleResult

    def add(self, state: str, text: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(state, text))

    @property
    def exit(self) -> int:
        """The exit code: that of the worst finding."""
        states = {finding.state for finding in self.findings}
        if "deployment" in states:
            return DEPLOYMENT
        if "away" in states:
            return AWAY
        return FAILS if self.sample.failures else 0
