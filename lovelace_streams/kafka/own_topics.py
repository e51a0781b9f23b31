"""What this library relies on in topics of its own: what it makes them with, and what it refuses in those that exist.

A topic takes whatever it is not made with from the broker's defaults, and a broker may compact, refuse old timestamps
or cut segments short. So each topic is made with all that letters, replays and states need, and one that exists is
compared before anything is sent to it.

The broker stamps the messages (`LogAppendTime`): nothing here reads a producer's clock, and the broker refuses messages
whose clock is an hour ahead.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.kafka.admin import topic_config
from lovelace_streams.kafka.faults import name_of
from lovelace_streams.kafka.topic_ids import REQUEST_SECONDS

SEGMENT_BYTES = 1_073_741_824
SEGMENT_BYTES_MAX = 2_147_483_647
SEGMENT_BYTES_MIN = 1_048_576
"""A producer's batch holds a million bytes, unless one message is larger."""
CLOCK_MS = 300_000
"""By how much a producer's clock, and the time of a delivery, may be off: less is refused."""
STATE_BYTES_MAX = 1_048_588
REPLAY_KEPT = timedelta(days=7)
"""How long replays wait for workers that do not run."""
REPLAY_HEADER_BYTES_MAX = 1024 * 1024
"""How many bytes the names of a message's failed items may add to a letter's headers."""
ESSENTIAL = frozenset({"cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes", "delete.retention.ms"})
"""What a topic is made with where the broker does not let us choose the rest, as hosted ones do."""
CHOOSES_LESS = frozenset({KafkaError.INVALID_CONFIG, KafkaError.POLICY_VIOLATION})


class OwnTopic(msgspec.Struct, frozen=True):
    """A topic that this library sends to: what it is made with, and what it needs of one that exists."""

    name: str
    title: str
    """What a fault calls it."""
    config: dict[str, str]
    bytes_min: int = 0
    """The smallest `max.message.bytes` with which it is of use."""
    compacted: bool | None = False
    """Whether it must be compacted; None if it may be."""
    otherwise: str = ""
    """The setting that names another topic."""

    def wrong(self, found: Mapping[str, str]) -> DeploymentFault | None:
        """Find a setting of the existing topic with which messages do not arrive or do not stay."""
        for setting, is_wrong, needs, why in self._rules():
            if setting in found and is_wrong(found[setting]):
                instead = f", or set {self.otherwise} to another topic" if self.otherwise else ""
                return DeploymentFault(
                    f"the {self.title} {self.name!r} has {setting}={found[setting]}, with which {why}: "
                    f"set {needs} on it{instead}"
                )
        return None

    def _rules(self) -> list[tuple[str, Callable[[str], bool], str, str]]:
        """List (setting, whether a value is wrong, what to set, what happens otherwise)."""
        return [
            (
                "cleanup.policy",
                lambda value: self.compacted is False and "compact" in value,
                "cleanup.policy=delete",
                "the broker refuses messages without a key, and deletes all but the last of each key",
            ),
            (
                "cleanup.policy",
                lambda value: self.compacted is True and "compact" not in value,
                f"cleanup.policy={self.config.get('cleanup.policy')}",
                "nothing can be erased, as the flow declares",
            ),
            (
                "max.message.bytes",
                lambda value: int(value) < self.bytes_min,
                f"max.message.bytes={self.config.get('max.message.bytes', self.bytes_min)}",
                "the broker refuses even messages without their value",
            ),
            (
                "segment.bytes",
                lambda value: int(value) < SEGMENT_BYTES_MIN,
                f"segment.bytes={SEGMENT_BYTES}",
                "the broker refuses a batch of messages",
            ),
            *(
                (
                    f"message.timestamp.{bound}.max.ms",
                    lambda value: int(value) < CLOCK_MS,
                    "message.timestamp.type=LogAppendTime",
                    "the broker refuses messages whose clock differs from its own",
                )
                for bound in ("before", "after", "difference")
            ),
            *(
                (
                    f"confluent.{part}.schema.validation",
                    lambda value: value == "true",
                    f"confluent.{part}.schema.validation=false",
                    "the broker refuses messages that are not of a schema, as bad ones are",
                )
                for part in ("key", "value")
            ),
        ]

    def judge(self, admin: AdminClient) -> DeploymentFault | None:
        """Ask for the existing topic's settings and find a wrong one; None also if we may not ask.

        Raises `KafkaException`.
        """
        found = topic_config(admin, self.name)
        if found.get("message.timestamp.type") == "LogAppendTime":  # then the broker compares no clocks
            found = {setting: value for setting, value in found.items() if ".timestamp." not in setting}
        return self.wrong(found)

    def make(self, admin: AdminClient, *, only_ask: bool = False) -> bool:
        """Make it, with one partition; False where the broker chose some settings: judge it, as one that exists.

        `only_ask`: whether the broker would, and make nothing.

        Raises `KafkaException` if the broker refuses or is away.
        """
        try:
            self._create(admin, self.config, only_ask=only_ask)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            if code not in CHOOSES_LESS:
                raise
        else:
            return True
        self._create(admin, self.essential, only_ask=only_ask)
        return False

    def not_made(self, brokers: str, error: KafkaException) -> DeploymentFault:
        """Make the fault of a broker that does not let us make it."""
        config = ", ".join(f"{name}={value}" for name, value in self.essential.items())
        instead = f", or set {self.otherwise} to one that exists" if self.otherwise else ""
        return DeploymentFault(
            f"the {self.title} {self.name!r} can't be made on {brokers} ({name_of(error)}): create it with {config}"
            f"{instead}",
            name_of(error),
        )

    @property
    def essential(self) -> dict[str, str]:
        """What it is made with where the broker does not let us choose more."""
        return {name: value for name, value in self.config.items() if name in ESSENTIAL}

    def _create(self, admin: AdminClient, config: dict[str, str], *, only_ask: bool) -> None:
        new = NewTopic(self.name, num_partitions=1, config=config)
        asked = admin.create_topics([new], request_timeout=REQUEST_SECONDS, validate_only=only_ask)
        asked[self.name].result(REQUEST_SECONDS)


def dead_letter_topic(name: str, bytes_max: int, bytes_min: int, erasable: timedelta | None = None) -> OwnTopic:
    """Letters stay until somebody deletes them; `erasable`: by key, or after this time."""
    kept = "-1" if erasable is None else _ms(erasable)
    config = _plain(bytes_max) | {"retention.ms": kept, "unclean.leader.election.enable": "false"}
    if erasable is not None:  # letters without a value, too, stay as long as the others
        config |= {"cleanup.policy": "compact,delete", "delete.retention.ms": kept}
    return OwnTopic(
        name,
        "dead-letter topic",
        config,
        bytes_min=bytes_min,
        compacted=erasable is not None,
        otherwise="DEAD_LETTER_TOPIC",
    )


def replay_topic(name: str, largest: int = STATE_BYTES_MAX) -> OwnTopic:
    """Replays of messages of at most `largest` bytes are read by the workers; after a week they may go."""
    config = _plain(largest + REPLAY_HEADER_BYTES_MAX) | {"retention.ms": _ms(REPLAY_KEPT)}
    return OwnTopic(name, "replay topic", config)


def progress_topic(name: str) -> OwnTopic:
    """Of each job the last state stays; a topic that somebody else made may keep more, or less."""
    config = _plain(STATE_BYTES_MAX) | {"cleanup.policy": "compact"}
    return OwnTopic(name, "topic of progress", config, compacted=None)


def _plain(bytes_max: int) -> dict[str, str]:
    return {
        "max.message.bytes": str(bytes_max),
        "segment.bytes": str(min(SEGMENT_BYTES_MAX, max(SEGMENT_BYTES, 2 * bytes_max))),
        "cleanup.policy": "delete",
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
        "compression.type": "producer",
    }


def _ms(time: timedelta) -> str:
    return str(time // timedelta(milliseconds=1))
