"""The parts of docs/performance.md: a table each, with the picture and the sentences that figures are in."""

from collections.abc import Callable, Sequence

from benchmarks.goals import GOALS, Measured
from benchmarks.markdown import number, picture, table
from benchmarks.measured import Results, Spread

CPU = "cpu_us_per_row"
PERCENTILES = {"p50_ms": "p50", "p99_ms": "p99", "p999_ms": "p99.9"}


def machine(measured: Measured) -> str:
    """Where it was measured, and of which commits."""
    return _machine([each for name, each in measured.items() if name != "ways"])


def _machine(results: Sequence[Results]) -> str:
    said = [each.summary for each in results if each.summary.get("machine")]
    if not said:
        return "Nothing is measured yet.\n"
    it = said[0]["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in said[0]["versions"].items())
    commits = ", ".join(sorted({f"`{each['commit']}`" for each in said}))
    return (
        f"Measured on {it['cores']} cores ({it['cpu']}), {it['memory_gb']} GB, {it['system']},"
        f" at commit {commits}; {versions}.\n"
    )


def ways(measured: Measured) -> str:
    """The same job, written in several ways; on a page of its own, which says where it was measured."""
    found = measured["ways"]
    return _shown(found, f"{_count(found)} members. {_machine([found])}", _speeds(found))


def goals(measured: Measured) -> str:
    """What we hold ourselves to, and what is not reached."""
    rows, reached, known = [], 0, 0
    for goal in GOALS:
        found = goal.measure(measured)
        wanted = f"{'≤' if goal.at_most else '≥'} {goal.wanted:g}{goal.unit}"
        if found is None:
            rows.append((goal.what, wanted, "not measured yet", "", ""))
            continue
        known += 1
        reached += goal.reached(found)
        is_it = "yes" if goal.reached(found) else "no"
        rows.append((goal.what, wanted, f"**{number(found.median)}{goal.unit}**", _range(found), is_it))
    text = table(("what", "goal", "median", "lowest to highest run", "reached"), rows)
    return f"{text}\n{reached} of {known} goals that were measured are reached here.\n"


def members(measured: Measured) -> str:
    """The whole job beside the database."""
    found = measured["members"]
    head = (
        "what",
        "rows/s",
        "lowest to highest",
        "CPU µs a row",
        "peak MB",
        "Postgres' CPU µs a row",
        "WAL bytes a row",
    )
    rows = [
        (
            *_speed(found, name),
            number(found.servers_cpu(name).get("postgres", 0.0)),
            _one(found.spread(name, "wal_bytes_per_row")),
        )
        for name in found.names
    ]
    settings = "; ".join(
        f"*{name}*: " + ", ".join(f"`{key}={value}`" for key, value in told.items())
        for name, told in found.summary.get("settings", {}).items()
        if told
    )
    return _shown(found, f"{_count(found)} members; {settings}.\n", picture("members", "The job"), table(head, rows))


def stages(measured: Measured) -> str:
    """The job cut into its steps."""
    found = measured["stages"]
    head = ("step", "CPU µs a row, columns", "items", "its limit", "rows/s while in it, columns", "items", "its limit")
    rows = [
        (
            step,
            *(
                _one(found.spread(f"{step}: {side}", field))
                for field in ("cpu_us_per_row", "rows_per_second")
                for side in ("columns", "items", "limit")
            ),
        )
        for step in (name.removesuffix(": limit") for name in found.names if name.endswith(": limit"))
    ]
    around, whole = (
        [_one(found.spread(f"{name}: {way}", "cpu_us_per_row")) for way in ("columns", "items")]
        for name in ("around", "whole job")
    )
    sentence = (
        f"Around the steps, the engine included: {around[0]} µs a row as columns, {around[1]} item by item. The whole"
        f" process: {whole[0]} and {whole[1]} µs.\n"
    )
    return _shown(found, picture("stages", "CPU a row, stacked by step"), table(head, rows), sentence)


def kinds(measured: Measured) -> str:
    """Jobs of other kinds, with the way that their messages pass."""
    found = measured["kinds"]
    head = ("what", "rows/s", "lowest to highest", "CPU µs a row", "peak MB", "way")
    ways = found.summary.get("ways", {})
    return _shown(found, table(head, [(*_speed(found, name), ways.get(name, "")) for name in found.names]))


def compare(measured: Measured) -> str:
    """The same jobs by another commit's package."""
    found = measured["compare"]
    head = ("job", "CPU µs a row before", "here", "ratio", "lowest to highest", "rows/s before", "here")
    rows = []
    for kind in (name.removesuffix(", here") for name in found.names if name.endswith(", here")):
        names = f"{kind}, before", f"{kind}, here"
        ratio = found.ratio(names[1], names[0], "cpu_us_per_row")
        if ratio is None:
            continue
        cpu, speed = ([_one(found.spread(name, field)) for name in names] for field in (CPU, "rows_per_second"))
        rows.append((kind, *cpu, f"**{number(ratio.median)}**", _range(ratio), *speed))
    skipped = "; ".join(found.summary.get("skipped") or ())
    sentence = f"The other commit can't run: {skipped}.\n" if skipped else ""
    before = f"*Before* is commit `{found.summary.get('before')}`; {_count(found)} items a job.\n"
    return _shown(found, before, table(head, rows), sentence)


def peers(measured: Measured) -> str:
    """Other engines."""
    found = measured["peers"]
    left = found.summary.get("incomplete") or {}
    sentence = "Did not finish: " + "; ".join(sorted(left)) + ".\n" if left else ""
    return _shown(found, picture("peers", "Rows a second of each engine"), _speeds(found), sentence)


def isolation(measured: Measured) -> str:
    """Bad records."""
    found = measured["isolation"]
    shares = shares_of(found)
    kinds = dict.fromkeys(name.rpartition(", ")[0] for name in found.names)
    head = ("messages/s", *(f"{share} bad" for share in shares))
    rows = [(kind, *(_one(found.spread(f"{kind}, {share}")) for share in shares)) for kind in kinds]
    gave_up = "; ".join(found.summary.get("gave_up") or [])
    sentence = f"Not through within their time, with the speed until then: {gave_up}.\n" if gave_up else ""
    shown = picture("isolation", "Messages a second by the share of bad ones")
    return _shown(found, shown, table(head, rows), sentence)


def latency(measured: Measured) -> str:
    """From timestamp to row."""
    found = measured["latency"]
    head = ("milliseconds", *PERCENTILES.values(), "CPU µs a row")
    fields = (*PERCENTILES, "cpu_us_per_row")
    rows = [(name, *(_one(found.spread(name, field)) for field in fields)) for name in found.names]
    return _shown(found, picture("latency", "Latency by percentile"), table(head, rows))


def workers(measured: Measured) -> str:
    """More workers on one topic."""
    found = _part(measured["scale"], lambda name: name.endswith(("worker", "workers")))
    return _shown(found, picture("workers", "Rows a second by workers"), _speeds(found))


def rows_before(measured: Measured) -> str:
    """More rows in the table."""
    found = _part(measured["scale"], lambda name: name.endswith("rows before"))
    return _shown(found, picture("table", "Rows a second by rows in the table"), _speeds(found))


def large_job(measured: Measured) -> str:
    """More items of a job."""
    found = _part(measured["scale"], lambda name: name.startswith("job of"))
    sentence = "".join(
        f"A {line['what']}: at most {line['peak_mb']:g} MB; from the second tenth of the time to the last, the resident"
        f" memory changed by {line['grown_mb']:+g} MB. Exactly {line['rows']:,} items were counted and rows written.\n"
        for line in found.lines
    )
    return _shown(found, picture("memory", "Memory of the worker by items done"), _speeds(found), sentence)


def ledger(measured: Measured) -> str:
    """Reports and what they cost; what is asked beside many open jobs."""
    found = measured["ledger"]
    head = ("what", "offsets/s", "lowest to highest", "CPU µs an offset", "Postgres' CPU µs an offset", "KB a report")
    rows = [
        (
            *_speed(found, name)[:4],
            _one(found.spread(name, "postgres_cpu_us_per_row")),
            _one(found.spread(name, "request_kb")),
        )
        for name in found.names
        if found.spread(name)
    ]
    asked = found.first("asked").get("ms", {})
    sentence = f"Beside {found.summary.get('open_jobs', 0):,} open jobs, a question takes, in milliseconds: "
    sentence += ", ".join(f"{name} {number(ms)}" for name, ms in asked.items()) + ".\n"
    return _shown(found, table(head, rows), sentence if asked else "")


def _plain(name: str) -> Callable[[Measured], str]:
    return lambda measured: _shown(measured[name], _speeds(measured[name]))


PARTS: dict[str, Callable[[Measured], str]] = {
    "machine": machine,
    "goals": goals,
    "members": members,
    "stages": stages,
    "kinds": kinds,
    "compare": compare,
    "reading": _plain("reading"),
    "peers": peers,
    "isolation": isolation,
    "latency": latency,
    "clickhouse": _plain("clickhouse"),
    "avro": _plain("avro"),
    "ways": ways,
    "ledger": ledger,
    "workers": workers,
    "rows-before": rows_before,
    "large-job": large_job,
}


def shares_of(isolation: Results) -> list[str]:
    """The shares of bad messages, ascending."""
    shares = {name.rpartition(", ")[2] for name in isolation.names}
    return sorted(shares, key=lambda share: float(share.split()[0]))


def _part(found: Results, wanted: Callable[[str], bool]) -> Results:
    lines = [line for line in found.lines if wanted(line["what"])]
    return Results(found.name, [*lines, {**found.summary, "summary": True}])


def _shown(found: Results, *texts: str) -> str:
    if not found:
        commands = {"peers": "make bench-peers", "compare": 'make bench ARGS="compare COMMIT"'}
        command = commands.get(found.name, f'make bench ARGS="{found.name}"')
        return f"Not measured yet: `{command}`.\n"
    return "\n".join(text for text in texts if text)


def _speeds(found: Results) -> str:
    names: Sequence[str] = [name for name in found.names if found.spread(name) is not None]
    head = ("what", "rows/s", "lowest to highest", "CPU µs a row", "peak MB")
    return table(head, [_speed(found, name) for name in names])


def _speed(found: Results, name: str) -> tuple[str, ...]:
    spread = found.spread(name)
    assert spread is not None
    more = (_one(found.spread(name, field)) for field in ("cpu_us_per_row", "peak_mb"))
    return name, number(spread.median), _range(spread), *more


def _one(spread: Spread | None) -> str:
    return "" if spread is None else number(spread.median)


def _range(spread: Spread) -> str:
    return f"{number(spread.low)} to {number(spread.high)}"


def _count(found: Results) -> str:
    return f"{found.lines[0]['rows']:,}" if found else ""
