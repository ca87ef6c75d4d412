"""Programs that run inside the writing statement (docs/decisions/0010, docs/internals.md §10).

The deltas are those of a refresh.  What differs is where the changes of a source are found: they are the
statement's own transition tables, or what other statements under way have left to be worked off.  And where
a change can be applied under locks of single rows, it is (``by_rows``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from pg_trickle import programs
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.source import Empty, Scan, Source, State
from pg_trickle.catalog.model import CompileRequest
from pg_trickle.immediate_risks import is_sensitive, may_fail
from pg_trickle.render.additive import add_up, clear_up, is_additive, show_up
from pg_trickle.render.apply import Target, renamed
from pg_trickle.render.feed import Feed, Held, Statement
from pg_trickle.render.onesided import (
    bring,
    can_change,
    can_grow,
    can_renew,
    change_rows,
    comes,
    count,
    grow,
    if_moved,
    insert,
    remove,
    renew,
    take,
    uncount,
)
from pg_trickle.render.reread import is_lookup, overwritten, reread
from pg_trickle.render.select import CommonTables
from pg_trickle.render.settled import add_first, is_settled, is_told_by_extremes, leave, settle
from pg_trickle.render.single import (
    BROUGHT,
    CHANGED,
    TAKEN,
    add_one,
    bring_new,
    hide_one,
    is_one_row,
    is_shown_alone,
    reread_one,
    show_one,
)
from pg_trickle.render.single_extreme import grow_one, search_one
from pg_trickle.render.single_pair import add_and_show, add_shown, bring_one, change_one, take_one
from pg_trickle.render.stage import grouped_delta
from pg_trickle.render.store import Store
from pg_trickle.rewrite.specialise import specialised
from pg_trickle.sides import own_key, pairing
from pg_trickle.stages import Stage

EVENTS = (BROUGHT, CHANGED, TAKEN)


@dataclass(frozen=True, slots=True)
class Alone:
    """What is tried before a program where there is no turn, by event.

    ``one``: it may do all the work where a single row changed.
    ``shown``, ``gone``: those which show and remove the group of a single row after it, in place of the program's
    second statement and its third.
    ``brought``: it shows what an INSERT brought where nothing has changed that since.
    """

    one: dict[str, str] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    brought: dict[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(text for found in self.to_json().values() for text in found.values())

    def to_json(self) -> dict[str, dict[str, str]]:
        """As the engine reads it."""
        return {"one": self.one, "shown": self.shown, "gone": self.gone, "brought": self.brought}


@dataclass(frozen=True, slots=True)
class Immediate:
    """How a stream table is maintained inside a statement.

    ``sources`` holds the program for a statement that changes just that source: each text goes on after
    ``WITH __pgt_delta AS (…)``.  ``held`` is for changes of any sources, read from where they were held back.
    ``by_rows``: the locks of the rows written are enough, in whatever order statements are worked off; nothing
    is ever held back, and a statement that yields 0 is the program's last.
    ``turn``: one transaction at a time; else the programs lock what they need, and NULL means to try again.
    ``sided`` holds by source and event other programs for statements that only bring rows or only take some away.
    ``plain`` holds by source what inserts all that an INSERT brings, where nothing it brings can be there already.
    ``alone``: the statements for where a single row changed, or where nothing changed but what came.
    ``single`` holds by source and event what may do all the work where a single row changed, under the turn.
    ``shared``: sources whose writers may have the turn together (``pg_trickle.sides``).
    ``settings``: whether what is computed may depend on settings of the session.
    ``may_fail``: whether the changes may be beyond evaluation although the query isn't.
    ``deltas``: the delta tables that the programs use; a refresh's may have no need of them.
    """

    sources: dict[int, programs.Program]
    sided: dict[int, dict[str, programs.Program]]
    plain: dict[int, str]
    held: programs.Program
    by_rows: bool
    turn: bool
    alone: Alone
    single: dict[int, dict[str, str]]
    shared: tuple[int, ...]
    settings: bool
    may_fail: bool
    deltas: frozenset[State]

    def to_json(self) -> dict[str, Any]:
        """As the engine reads it."""
        return {
            "sources": {str(oid): list(program) for oid, program in self.sources.items()},
            "sided": {
                str(oid): {event: list(program) for event, program in found.items()}
                for oid, found in self.sided.items()
            },
            "plain": {str(oid): text for oid, text in self.plain.items()},
            "held": list(self.held),
            "by_rows": self.by_rows,
            "turn": self.turn,
            **self.alone.to_json(),
            "single": {str(oid): found for oid, found in self.single.items() if found},
            "shared": list(self.shared),
            "settings": self.settings,
            "may_fail": self.may_fail,
        }


def immediate(
    definition: programs.Definition, sources: dict[int, tuple[str, ...]], request: CompileRequest
) -> Immediate:
    """The programs for the statements of each source."""
    # Who recomputes writes rows of others: where that may come to pass, one at a time does.
    never_recomputes = not _is_parted(request) and not may_fail(request)
    is_free = len(sources) == 1 and never_recomputes
    by_rows, alone = (_by_rows(definition, sources) if is_free else None) or (None, Alone())
    by_groups = _by_groups(definition, Statement()) if is_free and by_rows is None else None
    alone = _alone_in_group(definition) if by_groups is not None else alone
    held: programs.Program = ()
    deltas: frozenset[State] = frozenset()
    if by_rows is not None:
        made = {next(iter(sources)): by_rows}
    elif by_groups is not None:
        made, held = {next(iter(sources)): by_groups}, _by_groups(definition, Held(request.id)) or ()
    else:
        found = {oid: programs.differential(definition, frozenset((oid,)), Statement()) for oid in sources}
        made = {oid: program for oid, (program, _) in found.items()}
        held, deltas = programs.differential(definition, None, Held(request.id))
        deltas = deltas.union(*(used for _, used in found.values()))
    has_turn = by_rows is None and by_groups is None
    pairs = pairing(definition) if never_recomputes and has_turn and _is_plain(request, sources) else ()
    sided = {} if by_rows is not None else {oid: _one_sided(definition, oid, commutes=oid in pairs) for oid in sources}
    single = {oid: _single(definition, oid) for oid in pairs if sided[oid].keys() == set(EVENTS)}
    shared = tuple(single)
    plain = {oid: text for oid in sources if (text := _plain(definition, oid))}
    halves = (program for found in sided.values() for program in found.values())
    ones = tuple(text for found in single.values() for text in found.values())
    rest = (alone.texts, ones, tuple(plain.values()), programs.full(definition))
    all_programs = (*made.values(), *halves, held, *rest)
    texts = [text for program in all_programs for text in program]
    sensitive = is_sensitive(request, texts)
    return Immediate(
        made,
        sided,
        plain,
        held,
        by_rows is not None,
        has_turn,
        alone,
        single,
        shared,
        sensitive,
        may_fail(request),
        deltas,
    )


def _by_rows(
    definition: programs.Definition, sources: dict[int, tuple[str, ...]]
) -> tuple[programs.Program, Alone] | None:
    """The program that needs no more than the locks of the rows it writes, if there is one; and what is tried first."""
    if len(sources) != 1:
        return None
    final, target = definition.final, definition.target
    if not definition.stages and is_lookup(final, target):
        change = specialised(final.delta(), lambda _: True)
        common = _common(change, final)
        one = {event: _printed(reread_one(final, target, change, event)) for event in EVENTS}
        alone = Alone(one, brought={BROUGHT: _printed(bring_new(target, change))})
        return (programs.counting(reread(final, target, change, common), common),), alone
    stage = definition.stages[0] if len(definition.stages) == 1 else None
    if not isinstance(stage, Stage):
        return None
    store = definition.store(stage)
    # What never changes adds nothing.
    change = specialised(stage.below.delta(), lambda _: True)
    if isinstance(change, Empty) or _reads_tables(change) or not is_additive(final, store, target):
        return None
    alone = _alone_by_rows(definition, store, change) if is_one_row(change) else Alone()
    first, second, third = (_common(change) for _ in range(3))
    show = () if store.target else (programs.counting(show_up(final, store, target, change, second), second),)
    return (
        (
            programs.counting(add_up(final, store, change, first), first),
            *show,
            programs.counting(clear_up(final, store, target, change, third), third),
        ),
        alone,
    )


def _alone_by_rows(definition: programs.Definition, store: Store, change: Plan) -> Alone:
    """What is tried before the program of counters for a single row."""
    final, target, stage = definition.final, definition.target, store.stage
    moving = (CHANGED,) if is_shown_alone(final, store, target) else ()
    shown = () if store.target else (BROUGHT, TAKEN, *moving)
    gone = () if store.target else (TAKEN, *moving)
    return Alone(
        {event: _printed(add_one(final, store, target, change, event)) for event in EVENTS},
        {event: _printed(show_one(final, stage, target, change, event, overwritten(target))) for event in shown},
        {event: _printed(hide_one(final, stage, target, change, event)) for event in gone},
    )


def _one_sided(definition: programs.Definition, changed: int, *, commutes: bool) -> dict[str, programs.Program]:
    """The programs for statements of one kind, where they are simpler than for any statement; ``commutes``: if there
    is one for each, others may be at work on the same source.
    """
    final, target = definition.final, definition.target
    if target.key is None or len(definition.stages) > 1:
        return {}
    stage = definition.stages[0] if definition.stages else None
    change = _coming(final if stage is None else stage.below, changed)
    if change is None:
        return {}
    common = CommonTables((change,), feed=Statement(is_net=True))
    if stage is None:
        again = CommonTables((change,), feed=Statement(is_net=True))
        made: dict[str, programs.Program] = {
            BROUGHT: (programs.counting(bring(target, renamed(target, common.select(change)), common), common),),
            TAKEN: (programs.counting(take(target, renamed(target, again.select(change)), again), again),),
        }
        if can_change(target, change):
            made[CHANGED] = (_changed_rows(target, change),)
        return made
    if not isinstance(stage, Stage):
        return {}
    if definition.store(stage).target is not None:
        return _counted(definition, stage, change) if commutes else {}
    grown: dict[str, programs.Program] = {}
    grows, renews = can_grow(final, stage, target), can_renew(final, stage, target)
    adds = commutes and grows and renews
    if grows:
        grown[BROUGHT] = (programs.counting(grow(final, stage, target, change, common, adds=adds), common),)
    if renews:
        for event in (TAKEN, CHANGED):
            first, second = (CommonTables((change,), feed=Statement(is_net=True)) for _ in range(2))
            renewed = renew(final, stage, target, change, first, takes=event == TAKEN, adds=adds)
            removed = remove(final, stage, target, change, second)
            grown[event] = (programs.counting(renewed, first), programs.counting(removed, second))
    return grown


def _counted(definition: programs.Definition, stage: Stage, change: Plan) -> dict[str, programs.Program]:
    """The programs for statements of one kind where the stream table shows all that is counted, and others may be at
    work on the same source.
    """
    final, store = definition.final, definition.store(stage)
    if not is_additive(final, store, definition.target):
        return {}
    made: dict[str, programs.Program] = {}
    for event, side in ((BROUGHT, 1), (CHANGED, 0), (TAKEN, -1)):
        first, second = (CommonTables((change,), feed=Statement(is_net=True)) for _ in range(2))
        added = programs.counting(count(final, store, change, first, side=side), first)
        cleared = programs.counting(uncount(store, change, second), second)
        made[event] = (added,) if event == BROUGHT else (added, cleared)
    return made


def _single(definition: programs.Definition, changed: int) -> dict[str, str]:
    """What is tried before the programs of a source whose changes commute, where a single row of it changed."""
    final, target = definition.final, definition.target
    stage = definition.stages[0] if definition.stages else None
    change = _coming(final if stage is None else stage.below, changed)
    if change is None or not is_one_row(change):
        return {}
    if not isinstance(stage, Stage):
        made = {BROUGHT: bring_one(target, change)}
        if keys := own_key(definition, changed):
            made |= {CHANGED: change_one(target, change, keys), TAKEN: take_one(target, change, keys)}
    elif (store := definition.store(stage)).target is not None:
        made = {event: add_shown(final, store, change, event) for event in EVENTS}
    else:
        made = {event: add_and_show(final, stage, target, change, event) for event in EVENTS}
    return {event: _printed(text) for event, text in made.items()}


def _plain(definition: programs.Definition, changed: int) -> str | None:
    """What inserts all that an INSERT brings as it is: under keys that weren't there before, of rows alone."""
    target = definition.target
    change = _coming(definition.final, changed)
    if definition.stages or target.key is None or change is None:
        return None
    common = CommonTables((change,), feed=Statement(is_net=True))
    return programs.counting(insert(target, renamed(target, common.select(change))), common)


def _coming(plan: Plan, changed: int) -> Plan | None:
    """How a plan changes where rows come to one source, if all that it gains by that are rows."""
    change = specialised(plan.delta(), lambda table: isinstance(table, Source) and table.oid == changed)
    return change if comes(change) else None


def _changed_rows(target: Target, change: Plan) -> str:
    """The program for an UPDATE: what its old rows showed, and what its new ones show, aren't netted."""
    common = _common()
    sides = (CommonTables((), feed=Statement(is_net=True, side=side)).select(change) for side in (-1, 1))
    before, after = (renamed(target, side) for side in sides)
    return programs.counting(change_rows(target, before, after, common), common)


def _printed(statement: sql.Composable) -> str:
    return statement.as_string(None)


def _by_groups(definition: programs.Definition, feed: Feed) -> programs.Program | None:
    """The program that needs no more than the locks of the groups it changes, if there is one."""
    final, target = definition.final, definition.target
    stage = definition.stages[0] if len(definition.stages) == 1 else None
    if not isinstance(stage, Stage):
        return None
    store = definition.store(stage)
    change = specialised(stage.below.delta(), lambda _: True)
    if isinstance(change, Empty) or _reads_tables(change) or not is_settled(final, store, target):
        return None
    first, third = (CommonTables((grouped_delta(stage, change),), feed=feed) for _ in range(2))
    second = CommonTables((grouped_delta(stage, change), stage.below), feed=feed)
    return (
        programs.counting(add_first(final, store, change, first), first),
        programs.counting(settle(final, store, target, change, second), second),
        programs.counting(leave(final, store, target, change, third), third),
    )


def _is_plain(request: CompileRequest, sources: Iterable[int]) -> bool:
    """Whether all sources are ordinary tables that show their owner every row."""
    found = {one.oid: one for one in request.relations}
    return all(found[oid].kind == "table" for oid in sources) and not any(one.policy for one in request.relations)


def _alone_in_group(definition: programs.Definition) -> Alone:
    """What is tried before that program for a single row."""
    final, target, stage = definition.final, definition.target, definition.stages[0]
    if not isinstance(stage, Stage) or definition.store(stage).target is not None or not can_grow(final, stage, target):
        return Alone()
    change = specialised(stage.below.delta(), lambda _: True)
    if not is_one_row(change):
        return Alone()
    action = if_moved(target)
    # Where nothing is shown but extremes, a row that goes leaves what is shown, or has it looked for.
    showing = (BROUGHT, CHANGED) if is_told_by_extremes(final, Store(stage)) else EVENTS
    return Alone(
        {event: _printed(grow_one(final, stage, change, event)) for event in EVENTS},
        {event: _printed(show_one(final, stage, target, change, event, action)) for event in showing},
        {event: _printed(search_one(final, stage, target, change, event, action)) for event in (TAKEN, CHANGED)},
    )


def _is_parted(request: CompileRequest) -> bool:
    """Whether a source has partitions: one that comes later is noticed by the notes of what is under way."""
    return any(one.kind == "partitioned" for one in request.relations)


def _common(*plans: Plan) -> CommonTables:
    return CommonTables(plans, feed=Statement())


def _reads_tables(plan: Plan) -> bool:
    return any(isinstance(node, Scan) and isinstance(node.table, Source) for node in distinct(plan))
