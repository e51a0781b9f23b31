"""Whose fault an error of Kafka is: one table for all clients, by code (law 5), and how long an error is not believed.

    WAIT         the cluster's: it passes, and the client goes on
    LOGIN        a login or a TLS handshake is rejected; a broker that is starting does the same for a moment
    GROUP        the group does not let us in; another worker's leaving, or the end of an upgrade, may mend it
    DEPLOYMENT   waiting does not change it: stop at once
    SIZE         the message's: it is too large for its topic

librdkafka hides the code of a fatal error behind `_FATAL`: the client is dead, whatever killed it.
"""

import time
from collections.abc import Callable
from enum import Enum
from functools import cache

from confluent_kafka import KafkaError, KafkaException

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.observability.outages import OncePerMinute
from lovelace_streams.runtime.grace import LOGIN_SECONDS, Grace

GROUP_SECONDS = 90.0
"""How long a refusal of the group is not believed: twice the session of a worker that was killed (45 s by default)."""
REPEAT_SECONDS = 30.0
"""A refusal of the group that does not come again within this time is over: librdkafka asks every second or two."""


class ErrorKind(Enum):
    """What an error asks of whoever meets it."""

    WAIT = "wait"
    LOGIN = "login"
    GROUP = "group"
    DEPLOYMENT = "deployment"
    SIZE = "size"


_KINDS = {
    ErrorKind.WAIT: """
        NO_ERROR UNKNOWN
        _DESTROY _DESTROY_BROKER _FAIL _TRANSPORT _CRIT_SYS_RESOURCE _RESOLVE _MSG_TIMED_OUT _PARTITION_EOF
        _UNKNOWN_PARTITION _FS _UNKNOWN_TOPIC _ALL_BROKERS_DOWN _TIMED_OUT _QUEUE_FULL _ISR_INSUFF _NODE_UPDATE
        _WAIT_COORD _UNKNOWN_GROUP _IN_PROGRESS _PREV_IN_PROGRESS _ASSIGN_PARTITIONS _REVOKE_PARTITIONS _STATE
        _NO_OFFSET _OUTDATED _TIMED_OUT_QUEUE _WAIT_CACHE _INTR _PARTIAL _NOENT _UNDERFLOW _RETRY _PURGE_QUEUE
        _PURGE_INFLIGHT _MAX_POLL_EXCEEDED _UNKNOWN_BROKER _ASSIGNMENT_LOST _NOOP _AUTO_OFFSET_RESET _LOG_TRUNCATION
        _INVALID_DIFFERENT_RECORD
        OFFSET_OUT_OF_RANGE INVALID_MSG UNKNOWN_TOPIC_OR_PART LEADER_NOT_AVAILABLE NOT_LEADER_FOR_PARTITION
        REQUEST_TIMED_OUT BROKER_NOT_AVAILABLE REPLICA_NOT_AVAILABLE STALE_CTRL_EPOCH NETWORK_EXCEPTION
        COORDINATOR_LOAD_IN_PROGRESS COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR NOT_ENOUGH_REPLICAS
        NOT_ENOUGH_REPLICAS_AFTER_APPEND ILLEGAL_GENERATION UNKNOWN_MEMBER_ID REBALANCE_IN_PROGRESS
        TOPIC_ALREADY_EXISTS NOT_CONTROLLER OUT_OF_ORDER_SEQUENCE_NUMBER
        DUPLICATE_SEQUENCE_NUMBER INVALID_PRODUCER_EPOCH CONCURRENT_TRANSACTIONS OPERATION_NOT_ATTEMPTED
        KAFKA_STORAGE_ERROR LOG_DIR_NOT_FOUND UNKNOWN_PRODUCER_ID REASSIGNMENT_IN_PROGRESS NON_EMPTY_GROUP
        GROUP_ID_NOT_FOUND FETCH_SESSION_ID_NOT_FOUND INVALID_FETCH_SESSION_EPOCH LISTENER_NOT_FOUND
        FENCED_LEADER_EPOCH UNKNOWN_LEADER_EPOCH STALE_BROKER_EPOCH OFFSET_NOT_AVAILABLE MEMBER_ID_REQUIRED
        PREFERRED_LEADER_NOT_AVAILABLE ELIGIBLE_LEADERS_NOT_AVAILABLE ELECTION_NOT_NEEDED NO_REASSIGNMENT_IN_PROGRESS
        GROUP_SUBSCRIBED_TO_TOPIC UNSTABLE_OFFSET_COMMIT THROTTLING_QUOTA_EXCEEDED RESOURCE_NOT_FOUND UNKNOWN_TOPIC_ID
        INCONSISTENT_TOPIC_ID FENCED_MEMBER_EPOCH STALE_MEMBER_EPOCH UNKNOWN_CONTROLLER_ID UNKNOWN_SUBSCRIPTION_ID
        TELEMETRY_TOO_LARGE TRANSACTION_ABORTABLE SHARE_SESSION_NOT_FOUND INVALID_SHARE_SESSION_EPOCH
        FENCED_STATE_EPOCH SHARE_SESSION_LIMIT_REACHED REBOOTSTRAP_REQUIRED STREAMS_INVALID_TOPOLOGY_EPOCH
        STREAMS_TOPOLOGY_FENCED
    """,
    ErrorKind.LOGIN: """
        _AUTHENTICATION _SSL SASL_AUTHENTICATION_FAILED UNSUPPORTED_SASL_MECHANISM ILLEGAL_SASL_STATE
        DELEGATION_TOKEN_AUTH_DISABLED DELEGATION_TOKEN_NOT_FOUND DELEGATION_TOKEN_OWNER_MISMATCH
        DELEGATION_TOKEN_REQUEST_NOT_ALLOWED DELEGATION_TOKEN_AUTHORIZATION_FAILED DELEGATION_TOKEN_EXPIRED
        INVALID_PRINCIPAL_TYPE UNACCEPTABLE_CREDENTIAL PRINCIPAL_DESERIALIZATION_FAILURE
    """,
    ErrorKind.GROUP: """
        INCONSISTENT_GROUP_PROTOCOL INVALID_SESSION_TIMEOUT GROUP_MAX_SIZE_REACHED UNRELEASED_INSTANCE_ID
        UNSUPPORTED_ASSIGNOR INVALID_REPLICATION_FACTOR UNSUPPORTED_VERSION _UNSUPPORTED_FEATURE _UNKNOWN_PROTOCOL
        _BAD_MSG _BAD_COMPRESSION INVALID_MSG_SIZE INVALID_REQUEST
        MISMATCHED_ENDPOINT_TYPE UNSUPPORTED_ENDPOINT_TYPE INVALID_REGISTRATION
        INCONSISTENT_VOTER_SET INVALID_UPDATE_VERSION FEATURE_UPDATE_FAILED
        INVALID_VOTER_KEY DUPLICATE_VOTER VOTER_NOT_FOUND
    """,
    ErrorKind.DEPLOYMENT: """
        _FATAL _FENCED FENCED_INSTANCE_ID PRODUCER_FENCED _GAPLESS_GUARANTEE _INCONSISTENT
        _INVALID_ARG _NOT_CONFIGURED _NOT_IMPLEMENTED _APPLICATION _CONFLICT _EXISTING_SUBSCRIPTION _READ_ONLY
        _INVALID_TYPE _KEY_SERIALIZATION _VALUE_SERIALIZATION _KEY_DESERIALIZATION _VALUE_DESERIALIZATION
        TOPIC_AUTHORIZATION_FAILED GROUP_AUTHORIZATION_FAILED CLUSTER_AUTHORIZATION_FAILED
        TRANSACTIONAL_ID_AUTHORIZATION_FAILED SECURITY_DISABLED
        INVALID_GROUP_ID INVALID_COMMIT_OFFSET_SIZE OFFSET_METADATA_TOO_LARGE INVALID_REGULAR_EXPRESSION
        TOPIC_EXCEPTION INVALID_PARTITIONS INVALID_REPLICA_ASSIGNMENT INVALID_CONFIG POLICY_VIOLATION
        TOPIC_DELETION_DISABLED DUPLICATE_RESOURCE
        INVALID_RECORD INVALID_TIMESTAMP INVALID_REQUIRED_ACKS UNSUPPORTED_FOR_MESSAGE_FORMAT
        UNSUPPORTED_COMPRESSION_TYPE
        INVALID_TXN_STATE INVALID_PRODUCER_ID_MAPPING INVALID_TRANSACTION_TIMEOUT TRANSACTION_COORDINATOR_FENCED
        INVALID_RECORD_STATE STREAMS_INVALID_TOPOLOGY
    """,
    ErrorKind.SIZE: "MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE",
}
KIND_BY_NAME = {name: kind for kind, names in _KINDS.items() for name in names.split()}
"""librdkafka's name of a code → its kind; a test goes over all names that the client has."""

_WAYS_OUT = {
    "FENCED_INSTANCE_ID": "another worker joined the group with the same KAFKA_GROUP_INSTANCE_ID: give each worker "
    "one of its own, or leave it out",
    "UNRELEASED_INSTANCE_ID": "another worker holds this KAFKA_GROUP_INSTANCE_ID: give each worker one of its own, or "
    "leave it out",
    "INCONSISTENT_GROUP_PROTOCOL": "a member of the group shares partitions out by another strategy than "
    "cooperative-sticky, or is no consumer: stop it, or set CONSUMER_GROUP_ID to a group of this flow alone",
    "INVALID_SESSION_TIMEOUT": "set KAFKA_SESSION_TIMEOUT_MS between the broker's group.min.session.timeout.ms and "
    "group.max.session.timeout.ms",
    "GROUP_MAX_SIZE_REACHED": "the group has as many members as the broker's group.max.size allows: start fewer "
    "workers, or raise it",
    "INVALID_GROUP_ID": "set CONSUMER_GROUP_ID to a valid name",
    "GROUP_AUTHORIZATION_FAILED": "allow this user to READ the consumer group, or set CONSUMER_GROUP_ID",
    "TOPIC_AUTHORIZATION_FAILED": "allow this user to READ and DESCRIBE the flow's topics",
    "CLUSTER_AUTHORIZATION_FAILED": "allow this user what the broker's log says",
    "OFFSET_METADATA_TOO_LARGE": "raise the broker's offset.metadata.max.bytes to 64 at least: a commit carries its "
    "topic's id",
    "UNSUPPORTED_VERSION": "the broker does not know a request that a worker needs: it must be Kafka 2.4 or newer",
    "_UNSUPPORTED_FEATURE": "the broker does not know a request that a worker needs: it must be Kafka 2.4 or newer",
}
LOGIN_WAY_OUT = (
    "check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD "
    "and KAFKA_SSL_CA_LOCATION"
)


def kind_of(error: KafkaError | KafkaException | int) -> ErrorKind:
    """Find what an error asks for; a code that the table does not know is waited for.

    >>> kind_of(KafkaError(KafkaError.INVALID_RECORD)), kind_of(KafkaError.NOT_ENOUGH_REPLICAS)
    (<ErrorKind.DEPLOYMENT: 'deployment'>, <ErrorKind.WAIT: 'wait'>)
    """
    given = error.args[0] if isinstance(error, KafkaException) else error
    if isinstance(given, int):
        given = KafkaError(given)
    return ErrorKind.DEPLOYMENT if given.fatal() else KIND_BY_NAME.get(str(given.name()), ErrorKind.WAIT)


def name_of(error: KafkaError | Exception | int) -> str:
    """Name an error for a log line: librdkafka's name, else the exception's class.

    What killed a client (`_FATAL`) is named where its text says so: the client gives no code, but quotes the
    description of one.
    """
    if isinstance(error, KafkaException) and isinstance(error.args[0], KafkaError):
        error = error.args[0]
    if isinstance(error, int):
        error = KafkaError(error)
    if not isinstance(error, KafkaError):
        return type(error).__name__
    if error.code() == KafkaError._FATAL:  # noqa: SLF001 - librdkafka's own codes are named so
        text = error.str()
        return next((name for description, name in _descriptions() if description in text), "_FATAL")
    return str(error.name())


@cache
def _descriptions() -> list[tuple[str, str]]:
    """List (description, name) of all codes but `_FATAL`, the longest description first."""
    errors = [KafkaError(code) for name, code in vars(KafkaError).items() if isinstance(code, int) and name != "_FATAL"]
    return sorted(((error.str(), str(error.name())) for error in errors), key=lambda pair: -len(pair[0]))


def refusal(brokers: str, error: KafkaError | KafkaException) -> DeploymentFault:
    """Make the fault of an error that waiting does not change."""
    name = name_of(error)
    if name == "_INVALID_ARG":  # from a client's construction; its text quotes the setting's name, not a record
        given = error.args[0] if isinstance(error, KafkaException) else error
        return DeploymentFault(f"librdkafka rejects the KAFKA_… settings: {given.str()}", name)
    if kind_of(error) is ErrorKind.LOGIN:
        return DeploymentFault(f"the broker {brokers} rejects our login ({name}): {LOGIN_WAY_OUT}", name)
    way_out = _WAYS_OUT.get(name, "the broker's log says why; correct the KAFKA_… settings or the broker's")
    return DeploymentFault(f"the broker {brokers} refuses us ({name}): {way_out}", name)


_WAYS_TO_WRITE = {
    "TOPIC_AUTHORIZATION_FAILED": "allow this user to WRITE to it",
    "CLUSTER_AUTHORIZATION_FAILED": "allow this user to WRITE to it (before Kafka 3.0 also IDEMPOTENT_WRITE)",
    "INVALID_RECORD": "set cleanup.policy=delete on it, and no validation of schemas",
    "INVALID_TIMESTAMP": "set message.timestamp.type=LogAppendTime on it, or correct this machine's clock",
    "INVALID_REPLICATION_FACTOR": "make it with as many replicas as there are brokers, or lower the brokers' "
    "default.replication.factor",
    "UNSUPPORTED_COMPRESSION_TYPE": "the broker must be Kafka 2.4 or newer, with lz4",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT": "it keeps messages in a format without headers: make it again",
    "MSG_SIZE_TOO_LARGE": "raise max.message.bytes of it",
    "RECORD_LIST_TOO_LARGE": "raise segment.bytes of it",
    "TOPIC_EXCEPTION": "it is no valid name of a topic: correct the setting or the flow that names it",
}


def refused_write(title: str, topic: str, error: KafkaError | KafkaException) -> DeploymentFault:
    """Make the fault of a topic that does not take messages, or can't be made; waiting does not change it."""
    name = name_of(error)
    way_out = _WAYS_TO_WRITE.get(name, "the broker's log says why; correct the topic, or make it anew")
    return DeploymentFault(f"the broker does not take what is sent to the {title} {topic!r} ({name}): {way_out}", name)


class Refusals:
    """What the broker refuses one client, and since when: decides which of it stops the worker.

    `hear` takes every error that the client meets; `overdue` gives the fault of one that has lasted too long.
    """

    def __init__(self, brokers: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._brokers = brokers
        self._clock = clock
        self._graces = {
            ErrorKind.LOGIN: Grace(LOGIN_SECONDS),  # librdkafka rarely repeats it
            ErrorKind.GROUP: Grace(GROUP_SECONDS, REPEAT_SECONDS),
        }
        self._errors: dict[ErrorKind, KafkaError] = {}
        self._repeats = OncePerMinute(clock)

    def hear(self, error: KafkaError) -> DeploymentFault | None:
        """Note an error; returns the fault of one that waiting does not change, or that has lasted too long."""
        kind = kind_of(error)
        if kind is ErrorKind.DEPLOYMENT:
            return refusal(self._brokers, error)
        if (grace := self._graces.get(kind)) is not None:
            self._errors[kind] = error
            grace.rejected(self._clock())
        return self.overdue()

    def overdue(self) -> DeploymentFault | None:
        """Give the fault of a rejection that has lasted too long to pass."""
        now = self._clock()
        expired = (kind for kind, grace in self._graces.items() if grace.has_expired(now))
        return next((refusal(self._brokers, self._errors[kind]) for kind in expired), None)

    def accepted(self, kind: ErrorKind) -> None:
        """Note that the broker has accepted a login, or the group a member."""
        self._graces[kind].accepted()

    @property
    def suspected(self) -> KafkaError | None:
        """The rejection that has not passed yet, if there is one."""
        now = self._clock()
        return next((self._errors[kind] for kind, grace in self._graces.items() if grace.is_suspected(now)), None)

    def is_news(self, error: KafkaError) -> bool:
        """Whether to log it: it was not logged within the last minute."""
        return self._repeats.is_news(name_of(error))
