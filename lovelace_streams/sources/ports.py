"""Which ports of a flow lead nowhere, read from the flow itself before it runs.

What leaves by such a port is never settled: the group's offset stays before it for ever, and the worker looks well. So
each source refuses the flow at its start, and `lovelace check` names the ports.

Theory of this file. Records flow from a source to the *ends*, which settle them: `dead_letter`, `progress`, `commit`. A
stream is alive if an end can be reached over it. A step that forwards records to an end has to do so by each of its
ports, because an item leaves by one of them only. A step that reaches no end (`op.inspect`, an output of the flow's
own) is a look at a stream: that is allowed beside a step that takes the same stream to an end. What the ends
themselves give (`settled` of `dead_letter`, the states of jobs) is for information, and may be left.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from bytewax.dataflow import Dataflow, Operator

ENDS = frozenset({"dead_letter", "progress", "commit"})
"""Our operators that settle what they take."""
TAKERS: Mapping[str, frozenset[str]] = {
    "errs": frozenset({"dead_letter"}),
    "settled": frozenset({"progress", "commit"}),
    "skipped": frozenset({"progress", "commit"}),
}
"""Port → the ends that take it."""
ADVICE: Mapping[str, str] = {
    "errs": "hand it to ls.dead_letter(…)",
    "settled": "hand it to ls.commit(…) or ls.progress(…)",
    "skipped": "hand it to ls.commit(…) or ls.progress(…)",
}


class LoosePort(msgspec.Struct, frozen=True):
    """A port of a step from which no item reaches an end that settles it."""

    step: str
    port: str
    """`down` for the only port of a step."""
    taken_by: str | None = None
    """The step that takes it and settles nothing of it; None if no step takes it."""

    def __str__(self) -> str:
        port = f"port {self.port!r} of step {self.step!r}"
        what = (
            f"{port} goes to {self.taken_by!r}, which does not settle it" if self.taken_by else f"no step takes {port}"
        )
        return f"{what}: {ADVICE.get(self.port, 'hand it to the next step, on the way to ls.upsert(…)')}"


def refusal_of(loose: Iterable[LoosePort]) -> str:
    """Say in one line why a flow with these ports does not run."""
    ports = "; ".join(map(str, loose))
    return f"{ports}; what leaves by such a port is never settled, and the group's offset stays before it"


def operator_of(step: Any) -> str:
    """Name the operator of one of our steps; "" for any other step."""
    kind = type(step)
    return kind.__name__ if kind.__module__.partition(".")[0] == __name__.partition(".")[0] else ""


def all_steps(steps: Iterable[Operator]) -> Iterator[Operator]:
    """Walk all steps, a composed one before those that it is composed of: its author knows it by that name."""
    for step in steps:
        yield step
        yield from all_steps(step.substeps)


def loose_ports(flow: Dataflow) -> tuple[LoosePort, ...]:
    """List the ports from which an item of a source reaches no end, in the order in which records meet them.

    >>> import lovelace_streams as ls
    >>> class Order(ls.Row, table="orders", primary_key="id"):
    ...     id: int
    >>> flow = Dataflow("orders")
    >>> source = ls.KafkaSource(ls.KafkaSettings("127.0.0.1:9092"), topics=["orders.raw"])
    >>> decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Order))
    >>> dead = ls.dead_letter("dead_letter", source, decoded.errs)
    >>> _ = ls.commit("commit", source, decoded.skipped, dead.settled)
    >>> [(loose.step, loose.port) for loose in loose_ports(flow)]
    [('decode', 'oks')]
    """
    return _Ports(flow).loose()


class _Ports:
    def __init__(self, flow: Dataflow) -> None:
        self.nodes = list(_nodes(flow.substeps))
        self.takers: dict[str, list[Operator]] = {}
        """Stream → the steps that take it."""
        for node in self.nodes:
            for stream in streams_of(node, node.ups_names):
                self.takers.setdefault(stream, []).append(node)
        self.names: dict[str, tuple[str, str]] = {}
        """Stream → step and port, as the flow's author knows them."""
        for step in all_steps(flow.substeps):
            for port in step.dwn_names:
                for stream in streams_of(step, [port]):
                    self.names.setdefault(stream, (_name(step), port))
        self.alive: dict[str, bool] = {}
        self.found: dict[LoosePort, None] = {}
        self.seen: set[str] = set()

    def loose(self) -> tuple[LoosePort, ...]:
        for node in self.nodes:
            if operator_of(node) in {"kafka_source", "worker_source"}:
                self._follow(node)
        return tuple(self.found)

    def _follow(self, node: Operator) -> None:
        """Judge each port of a step, then those of the steps that take its records on."""
        if node.step_id in self.seen or operator_of(node) in ENDS:
            return
        self.seen.add(node.step_id)
        onward = [taker for stream in streams_of(node, node.dwn_names) for taker in self._judged(stream)]
        for taker in onward:
            self._follow(taker)

    def _judged(self, stream: str) -> list[Operator]:
        """Judge a port; give the steps to follow its records into."""
        takers = self.takers.get(stream, [])
        wrong = self._wrong_taker(stream, takers)
        if wrong is None and self._reaches(stream):
            return [taker for taker in takers if self._leads(taker)]
        onward = [] if wrong else [taker for taker in takers if taker.dwn_names]
        onward = list(filter(self._has_ours, onward)) or onward  # a look at a lost stream is not where it ends
        if not onward:  # a lost way is named where it ends
            step, port = self.names[stream]
            self.found[LoosePort(step, port, wrong or (takers[0].step_name if takers else None))] = None
        return onward

    def _has_ours(self, node: Operator) -> bool:
        """Whether a step is one of ours, or leads to one."""
        takers = [taker for stream in streams_of(node, node.dwn_names) for taker in self.takers.get(stream, [])]
        return operator_of(node) != "" or any(map(self._has_ours, takers))

    def _wrong_taker(self, stream: str, takers: list[Operator]) -> str | None:
        """Name the end that takes a stream which only another kind of end can settle."""
        ends = [taker for taker in takers if operator_of(taker) in ENDS]
        wanted = TAKERS.get(self.names[stream][1], ENDS)
        return next((end.step_name for end in ends if operator_of(end) not in wanted), None)

    def _leads(self, node: Operator) -> bool:
        """Whether a step is an end, or leads to one by any of its ports."""
        return operator_of(node) in ENDS or any(map(self._reaches, streams_of(node, node.dwn_names)))

    def _reaches(self, stream: str) -> bool:
        """Whether an end can be reached over a stream."""
        if stream not in self.alive:
            self.alive[stream] = any(map(self._leads, self.takers.get(stream, [])))
        return self.alive[stream]


def _name(step: Any) -> str:
    """Name a step as its author does, who knows the ports that `split` makes by the step before it."""
    return str(step.named if operator_of(step) == "sorted_ports" else step.step_name)


def _nodes(steps: Iterable[Operator]) -> Iterator[Operator]:
    """Our steps whole, and of all others those that they are composed of."""
    for step in steps:
        if operator_of(step) or not step.substeps:
            yield step
        else:
            yield from _nodes(step.substeps)


def streams_of(step: Operator, ports: Iterable[str]) -> list[str]:
    """Return the streams that a step takes or gives by some of its ports."""
    return [stream for port in ports for stream in getattr(step, port).stream_ids.values()]
