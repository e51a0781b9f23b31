"""Names that went stay gone: no module defines again what was renamed there, as a name, a method or an attribute."""

import ast
from collections.abc import Iterator

import pytest

from tests.imports import MODULES, inside, is_in, tree_of

RENAMED = {
    "delivery": """
        Carrier Gathering Begun Patience harmful _aside _aside_until _ahead _begin _forsake _landed _timed _clocked
        _sound _may_wait _is_through _end _flight ends_of spans others NEIGHBOURS LARGE QUICK lonely _promptly _isolate
        _alone _begun _gathering
    """,
    "operators": "sides keeper carrier office",
    "dead_letters": """
        PostOffice Letter DeadLettered Place Choice Fate choose Sending Ledger _judge _close _under_way _owed _said
        _names ROOM ROW _Row SECONDS FINAL
    """,
    "reporting": "Teller PACE _hurry _hurry_up _fresh short together halves TOO_LARGE_TO_TAKE SECONDS FINAL",
    "kafka": """
        Member Starts Start Door Outside Told told_by NOTHING Place hold _begin _begin_anew _unstarted _begun _stash
        _knock silent _runs onlooker bounds Spans SECONDS
    """,
    "runtime": """
        Watch Standing InHand Outside carries reached tell listen take_failed standings in_hand cover
    """,
    "sources": "Service window outside",
    "flows": "Journey Lane journey_of journey lanes _lane Source",
    "admin": "Report Failure Target Shape Trial patiently journey lane PATIENCE COMING SECONDS FINAL ROOM",
    "cli": "faults show ask shown Beside BESIDE EXIT_AWAY lane _told",
    "local": "Part PARTS TICK",
    "rows": "Kind kind_of Misfit got loosen loose limits Place Slow _Mixed kind_of_column",
    "formats": """
        hand_on fail_whole _is_anothers _untyped Unlike Broken DecodesAll LooksAhead Asking
    """,
    "formats.items": "_named _whole",
    "writers": """
        End Encodes Evolves order_of rehearse keeps_absent tells_older rolls_back REHEARSAL Frame Unfit Shape
        Alike OneTable Staged Segment Together Bet Lanes Dealt DEALT CALL Spelled Speller spell sieve _sift _sieve_rows
        _foreseen sweep _swept _of_swept Fresh _fresh _keep _held _copied _at_once joins apart
    """,
    "testing": "Patience",
    "api": "Guard Protected Paces Intervals Place",
}
"""Package → what no module of it defines any more."""
FILES = """
    ddl isolate kinds mapping json metrics logs tracing offsets outside watch clients member starts topics headers peek
    resilience letters replay reports telling rates source decode normalize batch upsert dead_letter progress
    aggregate_progress journey check init rewind schemas instants demo
"""
"""Modules that lay at the root."""


def defined_in(module: str) -> Iterator[str]:
    """Every name that a module defines: functions, classes, methods, variables, attributes of `self`, parameters."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@pytest.mark.parametrize("package", RENAMED)
def test_what_was_renamed_is_not_defined_again(package: str) -> None:
    old = set(RENAMED[package].split())
    modules = [module for module in MODULES if is_in(inside(module), package)]

    assert modules
    assert sorted(f"{inside(m)}: {name}" for m in modules for name in set(defined_in(m)) & old) == []


def test_what_was_moved_is_not_at_the_root_again() -> None:
    assert sorted(set(FILES.split()) & {inside(module) for module in MODULES}) == []
