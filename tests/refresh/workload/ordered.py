"""Parts of random queries that look at rows in an order: windows, DISTINCT ON, LIMIT.

Where the order is open the answer is PostgreSQL's free choice.  So rows are told apart by all that is shown of
them, to the letter, or the function doesn't care which of several peers it meets.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.refresh.workload.types import COUNT, INT, NUMBER, TEXT
from tests.refresh.workload.values import Value

Parts = tuple[str, list[Value], str]
_UNBOUNDED = "UNBOUNDED PRECEDING"
_PEERS = (
    "", "", f" RANGE BETWEEN {_UNBOUNDED} AND UNBOUNDED FOLLOWING", " RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING",
    " GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW", f" RANGE {_UNBOUNDED} EXCLUDE TIES",
    " GROUPS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW", f" RANGE {_UNBOUNDED} EXCLUDE GROUP",
)  # fmt: skip
_ROWS = ("", " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", f" ROWS {_UNBOUNDED} EXCLUDE CURRENT ROW")


def _letters(values: list[Value]) -> str:
    return ", ".join(one.type.text(one.sql) for one in values)


@st.composite
def windowed(draw: st.DrawFn, shown: list[Value], values: list[Value]) -> Parts:
    """Outputs some of which are windows, of one or several partitionings."""
    keys = [one.sql for one in values if one.type.comparable]
    calls = draw(st.lists(_calls(shown, values, keys), min_size=1, max_size=3))
    wrapped = [replace(one, sql=f"({one.sql}) + 1") if draw(st.integers(0, 5)) == 0 else one for one in calls]
    named = ""
    if draw(st.integers(0, 3)) == 0:
        partition = f"PARTITION BY {draw(st.sampled_from(keys))}" if keys else ""
        named = f" WINDOW by_key AS ({partition}), named AS (by_key ORDER BY {_letters([*shown, *values])})"
        over = st.sampled_from(["named", "(named ROWS 1 PRECEDING)", "by_key", "(by_key RANGE UNBOUNDED PRECEDING)"])
        wrapped += draw(st.lists(over.map(lambda one: Value(f"count(*) OVER {one}", COUNT)), min_size=1, max_size=2))
    return "", [*shown, *wrapped], f"{named}{draw(st.sampled_from(['', '', ' ORDER BY 1']))}"


@st.composite
def _calls(draw: st.DrawFn, shown: list[Value], values: list[Value], keys: list[str]) -> Value:
    some: st.SearchStrategy[list[str]] = st.lists(st.sampled_from(keys), max_size=2) if keys else st.just([])
    by = draw(some) if draw(st.integers(0, 4)) else []
    partition = f"PARTITION BY {', '.join(by)} " if by else ""
    # By all that any of the windows reads: what are peers for one of them may be told apart by another.
    order = f"{partition}ORDER BY {_letters([*shown, *values])}"
    choices = [
        Value(f"row_number() OVER ({order})", COUNT),
        Value(f"rank() OVER ({order})", COUNT),
        Value(f"count(*) OVER ({partition})", COUNT),
        Value(f"count(*) FILTER (WHERE {shown[0].sql} IS NOT NULL) OVER ({order})", COUNT),
        Value(f"ntile(2) OVER ({order})", INT),
        Value(f"dense_rank() OVER ({order})", COUNT),
        Value(f"(100 * cume_dist() OVER ({order}))::int", INT),
    ]
    for one in shown:
        if one.type is INT:
            peers, rows = draw(st.sampled_from(_PEERS)), draw(st.sampled_from(_ROWS))
            choices += [
                Value(f"sum({one.sql}) OVER ({partition}ORDER BY {one.sql}{peers})", COUNT),
                Value(f"lag({one.sql}) OVER ({order})", INT),
                Value(f"lead({one.sql}, 2, 0) OVER ({order})", INT),
                Value(f"last_value({one.sql}) OVER ({order}{rows})", INT),
                Value(f"max({one.sql}) OVER ({order}{rows})", INT),
                Value(f"nth_value({one.sql}, 2) OVER ({order})", INT),
                Value(f"avg({one.sql}) OVER ({partition})", NUMBER, True),
            ]
    return draw(st.sampled_from(choices))


@st.composite
def first(draw: st.DrawFn, shown: list[Value], values: list[Value]) -> Parts:
    """Some of the rows, by their order."""
    hidden = [draw(st.sampled_from(values))] if draw(st.integers(0, 2)) == 0 else []
    direction = draw(st.sampled_from(["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]))
    order = f"{_letters([*hidden, *shown])}{direction}"
    limit = f" LIMIT {draw(st.integers(0, 4))}"
    match draw(st.sampled_from(["limit", "limit", "offset", "ties", "rest"])):
        case "offset":
            return "", shown, f" ORDER BY {order}{limit} OFFSET {draw(st.integers(0, 2))}"
        case "ties":
            return "", shown, f" ORDER BY {shown[0].type.text(shown[0].sql)}{direction} FETCH FIRST 2 ROWS WITH TIES"
        case "rest":
            return "", shown, f" ORDER BY {order} OFFSET 2"
        case _:
            return "", shown, f" ORDER BY {order}{limit}"


@st.composite
def distinct_on(draw: st.DrawFn, shown: list[Value], values: list[Value]) -> Parts:
    """The first row of each key."""
    hidden = [draw(st.sampled_from(values))] if draw(st.integers(0, 2)) == 0 else []
    direction = draw(st.sampled_from(["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]))
    key = draw(st.sampled_from([one for one in values if one.type.comparable])).sql
    some = draw(st.sampled_from(["", "", f" LIMIT {draw(st.integers(0, 4))}"]))
    order = f"{key}{direction}, {_letters([*hidden, *shown])}{direction}"
    return f"DISTINCT ON ({key}) ", shown, f" ORDER BY {order}{some}"


@st.composite
def gathered(draw: st.DrawFn, shown: list[Value], values: list[Value], source: str, key: Value | None) -> Parts:
    """Aggregates of a sorted subquery that say no order, of all rows or in groups; first its text, for FROM."""
    hidden = [draw(st.sampled_from(values))] if draw(st.booleans()) else []
    direction = draw(st.sampled_from(["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]))
    listed = [f"{one.sql} AS x{place}" for place, one in enumerate(shown)]
    listed += [f"{key.sql} AS g"] if key else []
    known = [f"{one.type.text(one.sql)} AS y{place}" for place, one in enumerate(shown)]
    # What it is sorted by may be shown, and be named or counted there; or not be shown.
    order, more = _letters([*hidden, *shown]), list[str]()
    match draw(st.sampled_from(["hidden", "hidden", "named", "counted"])):
        case "named":
            order, more = ", ".join(f"y{place}" for place, _ in enumerate(shown)), known
        case "counted":
            order, more = ", ".join(str(len(listed) + place) for place, _ in enumerate(known, 1)), known
    below = f"SELECT {', '.join([*listed, *more])} FROM {source} ORDER BY {order}{direction}"
    below = f"({draw(_layers(below, [one.rpartition(' AS ')[2] for one in listed]))}) AS gathered"
    if key is None and draw(st.integers(0, 3)) == 0:
        return below, *draw(_as_they_come(shown))
    some = []
    for place, one in enumerate(shown):
        text = one.type.text(f"gathered.x{place}")
        made = [f"string_agg(coalesce({text}, '-'), ',')", f"array_agg({text})::text", f"jsonb_agg({text})::text"]
        made.append(f"jsonb_agg({_built([('x', text), (f'y{place}', text)])})::text")
        some.append(Value(draw(st.sampled_from(made)), TEXT))
    if draw(st.booleans()):
        some.append(Value("length(string_agg('n', '') FILTER (WHERE gathered.x0 IS NOT NULL))", INT))
    if draw(st.booleans()):
        # Rows as values: of what is sorted no type has a name.
        some.append(Value("(count(*) FILTER (WHERE to_jsonb(gathered) ->> 'x0' IS NULL))::int", INT))
    return below, [*([Value("gathered.g", key.type)] if key else []), *some], " GROUP BY gathered.g" if key else ""


@st.composite
def _layers(draw: st.DrawFn, below: str, names: list[str]) -> str:
    """The sorted subquery with others over it that only select, as Prisma nests them."""
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        listed = [f"layer.{name}" for name in names]
        where = draw(st.sampled_from(["", "", f" WHERE {listed[0]} IS NOT NULL"]))
        common = (
            f"WITH layer AS {draw(st.sampled_from(['', 'MATERIALIZED ']))}({below}) " if draw(st.booleans()) else ""
        )
        items = "layer" if common else f"({below}) AS layer"
        below = f"{common}SELECT {', '.join(listed)} FROM {items}{where}"
    return below


@st.composite
def _as_they_come(draw: st.DrawFn, shown: list[Value]) -> tuple[list[Value], str]:
    """Rows of a sorted subquery chosen, or numbered, by the order in which they come."""
    listed = [replace(one, sql=f"gathered.x{place}") for place, one in enumerate(shown)]
    counted = draw(st.sampled_from([[], [Value("row_number() OVER ()", COUNT)]]))
    limits = ["" if counted else " LIMIT 2", " LIMIT 3", " OFFSET 1", " LIMIT 2 OFFSET 1"]
    return [*listed, *counted], draw(st.sampled_from(limits))


def _built(fields: list[tuple[str, str]]) -> str:
    """A row of what is around it, as Hasura builds its documents."""
    listed = ", ".join(f"{value} AS {name}" for name, value in fields)
    return f"to_jsonb((SELECT built FROM (SELECT {listed}) AS built))"
