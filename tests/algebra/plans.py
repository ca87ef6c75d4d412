"""Plans for the laws: one for each operator and its traps, and any composition of them by Hypothesis."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from hypothesis import strategies as st
from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate, Call, Rule
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.lateral import ITEM, ROW, Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Item, Project, UnionAll
from pg_trickle.algebra.mark import Mark, anti_join, mark, semi_join
from pg_trickle.algebra.order import DistinctOn, Order, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Unit
from pg_trickle.algebra.timed import Timed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.scalar import BOOL, INT4, INT8, NUMERIC, TEXT, UNKNOWN, Column, Scalar, Type, column, composed
from tests.algebra.sources import scan

COMPARISONS = tuple(sql.SQL(text) for text in ("{} = {}", "{} <> {}", "{} < {}", "{} > {}", "{} <= {}", "{} >= {}"))


def named(plan: Plan, name: str) -> Column:
    return next(one for one in plan.columns if one.name == name)


def predicate(template: sql.SQL, *columns: str, equates: bool = False, strict: bool = False) -> Scalar:
    """A condition over columns, which stand in its holes by place."""
    text = template.format(*map(sql.Identifier, columns))
    made = composed(text, frozenset(columns), BOOL)
    made = replace(made, strict=made.columns) if strict else made
    if template in COMPARISONS:
        made = replace(made, compares=(columns[0], columns[1]))
    return replace(made, equates=(columns[0], columns[1])) if equates else made


def equal(left: str, right: str) -> Scalar:
    return predicate(sql.SQL("{} = {}"), left, right, equates=True)


def equal_by(template: sql.SQL, left: str, right: str) -> Scalar:
    """An equality of what is made of a column of either side."""
    return replace(predicate(template, left, right), sides=(frozenset((left,)), frozenset((right,))))


def projected(plan: Plan, *items: tuple[str, str], by_value: bool = False) -> Project:
    """Columns renamed: (new, old) pairs."""
    return Project(plan, tuple(_renamed(new, named(plan, old), by_value) for new, old in items))


def _renamed(name: str, value: Column, by_value: bool) -> Item:
    return Item(Column(name, value.type.by_value if by_value else value.type), column(value))


def call(name: str, value: sql.SQL, of: Type, *columns: str) -> Call:
    text = value.format(*map(sql.Identifier, columns))
    return Call(Column(name, of.by_value), Rule.RECOMPUTE, composed(text, frozenset(columns), of))


def counted(name: str) -> Call:
    return call(name, sql.SQL("count(*)"), INT8)


def summed(name: str, of: Column) -> Call:
    return call(name, sql.SQL("sum({})"), INT8 if of.type.is_integer else NUMERIC, of.name)


def series(plan: Plan, name: str, of: str, *on: Scalar, outer: bool = False, numbered: bool = False) -> Lateral:
    """Each row beside the numbers from one up to a column of it; ``numbered`` counts them down, with ordinality."""
    made = (Column(name, INT4), *([Column(f"{name}_place", INT8)] if numbered else []))
    template = (
        sql.SQL("LATERAL generate_series({of}, 1, -1) WITH ORDINALITY AS {item}({made})")
        if numbered
        else sql.SQL("LATERAL generate_series(1, {of}) AS {item}({made})")
    )
    item = template.format(
        of=sql.Identifier(ROW, of),
        item=sql.Identifier(ITEM),
        made=sql.SQL(", ").join(sql.Identifier(one.name) for one in made),
    )
    text = composed(item, frozenset((of,)), UNKNOWN)
    return Lateral(plan, text, made, outer=outer, on=on, ordinal=made[-1].name if numbered else None)


def _moments(template: sql.SQL, name: str, *more: str, of: Type = BOOL) -> tuple[Scalar, Scalar]:
    """An expression over a column, and the moment, which was 1 and is 2; it may read more."""
    texts = (template.format(sql.Identifier(name), sql.Literal(moment)) for moment in (2, 1))
    now, before = (composed(text, frozenset((name, *more)), of) for text in texts)
    return now, before


PASSING = Timed(*_moments(sql.SQL("{} >= {}"), "r_a"), near=predicate(sql.SQL("{} BETWEEN 1 AND 2"), "r_a"))
R, S, T = scan("r", "r"), scan("s", "s"), scan("r", "t")
ONE_COLUMN = replace(S, fields=S.fields[:1])
R_S = Join(R, S, (equal("r_a", "s_a"),))
LATE = TimedColumn(R, PASSING, Column("late", BOOL))
R_T = Join(R, T, (equal("r_a", "t_a"),))
SIDES = (predicate(sql.SQL("{} > 0"), "r_b"), predicate(sql.SQL("{} < 3"), "s_b"))
TOTALS = Aggregate(
    R, ("r_a",), (counted("n"), summed("total", named(R, "r_b")), call("low", sql.SQL("min({})"), INT4, "r_b"))
)
WIDE = Aggregate(S, ("s_a", "s_b"), (counted("m"), call("most", sql.SQL("max({})"), R.columns[2].type, "s_x")))

LETTERS = Project(
    R,
    (
        *(Item(one, column(one)) for one in R.columns),
        Item(
            Column("r_t", TEXT),
            composed(sql.SQL('ROW(r_a, r_b, r_x)::text COLLATE "C"'), frozenset(("r_a", "r_b", "r_x")), TEXT),
        ),
    ),
)


def ordered(name: str, value: sql.SQL, of: Type) -> Item:
    return Item(Column(name, of), composed(value, frozenset(("r_a", "r_b", "r_t")), of))


def ranked(source: Plan, *keys: str) -> Window:
    """Windows in which only rows that look the same are peers."""
    by = sql.SQL("PARTITION BY {} ").format(sql.SQL(", ").join(map(sql.Identifier, keys))) if keys else sql.SQL("")
    calls = {
        "place": sql.SQL("row_number() OVER ({by}ORDER BY r_t)"),
        "n": sql.SQL("count(*) OVER ({by})"),
        "run": sql.SQL("sum(r_b) OVER ({by}ORDER BY r_b RANGE BETWEEN 1 PRECEDING AND CURRENT ROW)"),
    }
    made = tuple(
        Item(Column(name, INT8), composed(text.format(by=by), frozenset((*keys, "r_b", "r_t")), INT8))
        for name, text in calls.items()
    )
    return Window(source, keys, tuple(one.name for one in source.columns), made)


FIRST_OF_EACH = replace(
    ranked(LETTERS, "r_a"),
    kept=(predicate(sql.SQL("{} <= 1"), "place"), predicate(sql.SQL("{} < 3"), "n")),
    unshown=frozenset(("place", "n", "run", "r_x")),
)


def order(name: str, *, is_ascending: bool = True) -> Order:
    return Order(name, is_ascending, nulls_first=not is_ascending)


def number(n: int) -> Scalar:
    return composed(sql.Literal(n), frozenset(), INT8)


# Groups of r, and rows that ask for some of them by a key, once for r itself.
ASKING = Filter(Aggregate(S, ("s_a",), (counted("asked"),)), (predicate(sql.SQL("{} > 1"), "asked"),))
ASKED = Join(
    Join(R, ASKING, (equal("r_a", "s_a"),)),
    projected(Aggregate(T, ("t_a",), (summed("sum", named(T, "t_b")),)), ("g_a", "t_a"), ("g_sum", "sum")),
    (equal("s_a", "g_a"), predicate(sql.SQL("{} < {}"), "r_b", "g_sum")),
)
# Groups of r, and rows of s that ask for some of them by a match in r.
MATCHED = Filter(R, (predicate(sql.SQL("{} > 0"), "r_b"),))
ASKED_BY_MATCH = Join(
    semi_join(S, MATCHED, (equal("s_a", "r_a"),), mark("met")),
    projected(Aggregate(T, ("t_a", "t_x"), (summed("sum", named(T, "t_b")),)), ("g_a", "t_a"), ("g_sum", "sum")),
    (equal("s_a", "g_a"), predicate(sql.SQL("{} < {}"), "s_b", "g_sum")),
)
LESS = predicate(sql.SQL("{} < {}"), "t_a", "total")
MORE = ordered("more", sql.SQL("sum(r_b) OVER (PARTITION BY r_b)"), INT8)

PLANS: dict[str, Plan] = {
    "scan": R,
    "scan of a type without equality": scan("r", "r", "aj"),
    "constant": Unit(),
    "filter": Filter(R, (predicate(sql.SQL("{} > 1"), "r_a"),)),
    "filter that NULL passes": Filter(R, (predicate(sql.SQL("{} IS DISTINCT FROM 1"), "r_b"),)),
    "filter by time": TimedFilter(R, PASSING),
    "filter by time that NULL passes": TimedFilter(R, Timed(*_moments(sql.SQL("({} > {}) IS NOT TRUE"), "r_b"))),
    "filter by time in another": TimedFilter(TimedFilter(R, PASSING), Timed(*_moments(sql.SQL("{} < {}"), "r_b"))),
    "join of a filter by time": Join(TimedFilter(R, PASSING), S, (equal("r_a", "s_a"),)),
    "left join with a filter by time": LeftJoin(S, TimedFilter(R, PASSING), (equal("r_a", "s_a"),)),
    "filter by time over a join": TimedFilter(R_S, PASSING),
    "column by time": LATE,
    "column by time that is a number": TimedColumn(
        R, Timed(*_moments(sql.SQL("{} - {}"), "r_b", of=INT4)), Column("left", INT4)
    ),
    "column by time for a join": TimedColumn(R_S, PASSING, Column("late", BOOL)),
    "columns by time, one over the other": TimedColumn(
        LATE, Timed(*_moments(sql.SQL("late AND {} < {}"), "r_b", "late")), Column("both", BOOL)
    ),
    "column by time of what is padded": TimedColumn(
        LeftJoin(S, R, (equal("r_a", "s_a"),)), PASSING, Column("late", BOOL)
    ),
    "filter over a column by time": Filter(LATE, (predicate(sql.SQL("late IS NOT TRUE OR {} > 1"), "r_a"),)),
    "left join by a column by time": LeftJoin(LATE, S, (equal("r_a", "s_a"), column(named(LATE, "late")))),
    "aggregate by a column by time": Aggregate(LATE, ("late",), (counted("n"), summed("total", named(R, "r_b")))),
    "aggregate of a filter by time": Aggregate(TimedFilter(R, PASSING), ("r_b",), (counted("n"),)),
    "projection that drops the rest": projected(R, ("one", "r_b")),
    "projection that keeps the scale": projected(R, ("one", "r_x")),
    "projection that computes": Project(
        R, (Item(Column("sum", INT4), composed(sql.SQL("r_a + coalesce(r_b, 0)"), frozenset(("r_a", "r_b")), INT4)),)
    ),
    "sum": UnionAll(R, S),
    "sum of a table with itself": UnionAll(R, T),
    "netted": Consolidate(UnionAll(R, S)),
    "join": R_S,
    "join over numbers of different scale": Join(R, S, (equal("r_x", "s_x"),)),
    "join with any condition": Join(R, S, (predicate(sql.SQL("{} < {}"), "r_a", "s_b"),)),
    "cross join": Join(R, S),
    "join with a constant": Join(Unit(), R),
    "self join": Join(R, T, (equal("r_a", "t_b"),)),
    "join of three": Join(R_S, T, (equal("s_b", "t_b"),)),
    "join of filtered": Join(Filter(R, (predicate(sql.SQL("{} > 0"), "r_b"),)), S, (equal("r_a", "s_a"),)),
    "filter over a join": Filter(R_S, (predicate(sql.SQL("{} > {}"), "r_b", "s_b"),)),
    "lateral": series(R, "one", "r_a"),
    "lateral that keeps rows": series(R, "one", "r_a", predicate(sql.SQL("{} > {}"), "one", "r_b"), outer=True),
    "lateral with ordinality": series(R, "one", "r_a", numbered=True),
    "filter over a lateral": Filter(
        series(R, "one", "r_a"), (predicate(sql.SQL("{} > 1"), "one"), predicate(sql.SQL("{} IS NOT NULL"), "r_b"))
    ),
    "aggregate over a lateral": Aggregate(series(R, "one", "r_a"), ("one",), (counted("n"),)),
    "aggregate": TOTALS,
    "aggregate by two nullable keys": WIDE,
    "aggregate of everything": Aggregate(R, (), (counted("n"), summed("total", named(R, "r_b")))),
    "aggregate over a join": Aggregate(R_S, ("s_b",), (counted("n"), summed("total", named(R, "r_b")))),
    "filter over an aggregate": Filter(TOTALS, (predicate(sql.SQL("{} > 1"), "n"),)),
    "distinct": Aggregate(projected(R, ("one", "r_a"), ("two", "r_b")), ("one", "two"), ()),
    "distinct sum": Aggregate(UnionAll(projected(R, ("one", "r_a")), projected(S, ("two", "s_b"))), ("one",), ()),
    "aggregate over an aggregate": Aggregate(
        TOTALS, ("n",), (counted("groups"), summed("all", named(TOTALS, "total")))
    ),
    "window": ranked(LETTERS, "r_a"),
    "window by two nullable keys": ranked(LETTERS, "r_a", "r_x"),
    "window of everything": ranked(LETTERS),
    "window over a window": replace(ranked(ranked(LETTERS, "r_a"), "r_b"), calls=(MORE,)),
    "filter over a window": Filter(ranked(LETTERS, "r_a"), (predicate(sql.SQL("{} <= 1"), "place"),)),
    "window of which some rows are kept": FIRST_OF_EACH,
    "window of everything of which some rows are kept": replace(ranked(LETTERS), kept=FIRST_OF_EACH.kept),
    "window over a sum": ranked(UnionAll(LETTERS, replace(LETTERS, input=R)), "r_a"),
    "first of each key": DistinctOn(LETTERS, ("r_a",), ("r_b", "r_a"), (order("r_a"), order("r_t"))),
    "first of each key, downwards": DistinctOn(
        LETTERS, ("r_x",), ("r_t",), (order("r_x"), order("r_t", is_ascending=False))
    ),
    "first rows": TopK(LETTERS, (order("r_b"), order("r_t")), number(2)),
    "first rows after some": TopK(LETTERS, (order("r_t", is_ascending=False),), number(2), number(1)),
    "first rows with ties": TopK(LETTERS, (order("r_a"),), number(1), ties=True),
    "all rows but the first": TopK(LETTERS, (order("r_t"),), None, number(2)),
    "aggregate over first rows": Aggregate(
        TopK(LETTERS, (order("r_b"), order("r_t")), number(3)), ("r_a",), (counted("m"),)
    ),
    "join of aggregates": Join(TOTALS, WIDE, (equal("r_a", "s_b"),)),
    "join of an aggregate and its table": Join(TOTALS, T, (equal("r_a", "t_a"),)),
    "mark": Mark(R, S, (equal("r_a", "s_a"),), mark("m")),
    "mark by all that is read of a table": Mark(R, ONE_COLUMN, (equal("r_a", "s_a"),), mark("m")),
    "mark by all that is read of a table with an index": Mark(
        S, replace(R, fields=R.fields[:1]), (equal("s_a", "r_a"),), mark("m")
    ),
    "mark by all that is read, with a condition": Mark(
        R, ONE_COLUMN, (equal("r_a", "s_a"), predicate(sql.SQL("{} > 1"), "s_a")), mark("m")
    ),
    "mark by numbers, of which nothing else is read": Mark(
        R, replace(S, fields=S.fields[2:3]), (equal("r_x", "s_x"),), mark("m")
    ),
    "mark by one column of several": Mark(R, projected(S, ("s_one", "s_a")), (equal("r_a", "s_one"),), mark("m")),
    "mark by two columns": Mark(R, S, (equal("r_a", "s_a"), equal("r_x", "s_x")), mark("m")),
    "mark by the same column twice": Mark(R, S, (equal("r_a", "s_a"), equal("r_b", "s_a")), mark("m")),
    "mark with any condition": Mark(R, S, (predicate(sql.SQL("{} < {}"), "r_a", "s_b"),), mark("m")),
    "mark by a comparison": Mark(
        R, S, (predicate(sql.SQL("{} >= {}"), "r_x", "s_x"), predicate(sql.SQL("{} < 3"), "s_b")), mark("m")
    ),
    "mark by a comparison, turned round": Mark(
        R, S, (predicate(sql.SQL("{} < {}"), "s_x", "r_b"), predicate(sql.SQL("{} > 0"), "r_a")), mark("m")
    ),
    "mark by what is unequal": Mark(R, S, (predicate(sql.SQL("{} <> {}"), "r_a", "s_a"),), mark("m")),
    "mark by a comparison with one row": Mark(
        R,
        Aggregate(S, (), (call("mean", sql.SQL("avg({})"), NUMERIC, "s_x"),)),
        (predicate(sql.SQL("{} > {}"), "r_x", "mean"),),
        mark("m"),
    ),
    "mark with an equality and any condition": Mark(
        R, S, (equal("r_a", "s_a"), predicate(sql.SQL("{} < {}"), "r_b", "s_b")), mark("m")
    ),
    "mark by an equality of expressions": Mark(R, S, (equal_by(sql.SQL("{} + 1 = {}"), "r_a", "s_a"),), mark("m")),
    "mark by an equality of expressions, and by more": Mark(
        S,
        R,
        (equal_by(sql.SQL("{} = abs({})"), "r_a", "s_a"), *SIDES, predicate(sql.SQL("{} < {}"), "r_b", "s_b")),
        mark("m"),
    ),
    "mark of an aggregate by an equality of expressions": Mark(
        TOTALS, T, (equal_by(sql.SQL("{} = {} - 1"), "n", "t_b"),), mark("m")
    ),
    "mark with conditions on either side": Mark(R, S, (equal("r_a", "s_a"), *SIDES), mark("m")),
    "mark by conditions on either side": Mark(R, S, SIDES, mark("m")),
    "anti-join by conditions on either side": anti_join(R, S, SIDES, mark("m")),
    "semi-join by a condition on its rows": semi_join(R, S, SIDES[:1], mark("m")),
    "mark without condition": Mark(R, S, (), mark("m")),
    "mark by its own table": Mark(R, T, (equal("r_a", "t_b"),), mark("m")),
    "mark by a join": Mark(scan("s", "u"), R_T, (equal("u_a", "t_b"),), mark("m")),
    "mark of a join": Mark(R_S, T, (equal("s_b", "t_b"),), mark("m")),
    "mark by an aggregate": Mark(R, WIDE, (equal("r_a", "s_a"), equal("r_b", "m")), mark("met")),
    "mark of rows that are looked up": Mark(TOTALS, S, (equal("r_a", "s_a"), SIDES[1]), mark("met")),
    "mark of an aggregate": Mark(TOTALS, S, (equal("n", "s_a"),), mark("met")),
    "semi-join": semi_join(R, S, (equal("r_a", "s_a"),), mark("m")),
    "anti-join": anti_join(R, S, (equal("r_a", "s_a"),), mark("m")),
    "anti-join with any condition": anti_join(
        R, S, (predicate(sql.SQL("({} = {}) IS NOT FALSE"), "r_a", "s_a"),), mark("m")
    ),
    "semi-join of a join": semi_join(R_S, T, (equal("r_b", "t_a"),), mark("m")),
    "anti-join of joins by columns of one of them": anti_join(
        Join(R_S, scan("s", "u"), (equal("s_a", "u_a"),)), T, (equal("s_b", "t_b"), SIDES[0]), mark("m")
    ),
    "either of two marks": Filter(
        Mark(Mark(R, S, (equal("r_a", "s_a"),), mark("m")), T, (equal("r_b", "t_a"),), mark("o")),
        (predicate(sql.SQL("{} OR NOT {}"), "m", "o"),),
    ),
    "semi-join of an anti-join": semi_join(
        anti_join(R, S, (equal("r_a", "s_a"),), mark("m")), T, (equal("r_b", "t_a"),), mark("o")
    ),
    "left join": LeftJoin(R, S, (equal("r_a", "s_a"),)),
    "left join with conditions on either side": LeftJoin(R, S, (equal("r_a", "s_a"), *SIDES)),
    "left join with any condition": LeftJoin(R, S, (predicate(sql.SQL("{} < {}"), "r_a", "s_b"),)),
    "left join on true": LeftJoin(R, S, ()),
    "left join with its own table": LeftJoin(R, T, (equal("r_a", "t_b"),)),
    "left join with a type without equality": LeftJoin(R, scan("s", "s", "aj"), (equal("r_a", "s_a"),)),
    "left joins in a row": LeftJoin(LeftJoin(R, S, (equal("r_a", "s_a"),)), T, (equal("s_b", "t_b"),)),
    "left join with a left join": LeftJoin(
        scan("s", "u"), LeftJoin(R, S, (equal("r_a", "s_a"),)), (equal("u_b", "s_b"),)
    ),
    "left join with a join": LeftJoin(scan("s", "u"), R_T, (equal("u_a", "t_b"),)),
    "left join of aggregates": LeftJoin(TOTALS, WIDE, (equal("r_a", "s_b"),)),
    "left join without a match": Filter(
        LeftJoin(R, S, (equal("r_a", "s_a"),)), (predicate(sql.SQL("{} IS NULL"), "s_b"),)
    ),
    "filter of the left side of a left join": Filter(
        LeftJoin(R, S, (equal("r_a", "s_a"),)), (predicate(sql.SQL("{} > 0"), "r_b"),)
    ),
    "left join with a match": Filter(
        LeftJoin(R, S, (equal("r_a", "s_a"),)), (predicate(sql.SQL("{} < {}"), "r_b", "s_b", strict=True),)
    ),
    "full join with a match on either side": Filter(
        FullJoin(R, S, (equal("r_a", "s_a"),)), (predicate(sql.SQL("{} < {}"), "r_b", "s_b", strict=True),)
    ),
    "full join with all of one side": Filter(
        FullJoin(R, S, (equal("r_a", "s_a"),)), (predicate(sql.SQL("{} > 0"), "s_b", strict=True),)
    ),
    "aggregate over a left join": Aggregate(
        LeftJoin(R, S, (equal("r_a", "s_a"),)), ("r_a",), (counted("c"), summed("t", named(S, "s_b")))
    ),
    "full join": FullJoin(R, S, (equal("r_a", "s_a"),)),
    "full join with conditions on either side": FullJoin(R, S, (equal("r_a", "s_a"), *SIDES)),
    "full join with its own table": FullJoin(R, T, (equal("r_a", "t_b"),)),
    "full join of a left join": FullJoin(LeftJoin(R, S, (equal("r_a", "s_a"),)), T, (equal("s_b", "t_b"),)),
    "full join with an aggregate": FullJoin(R, WIDE, (equal("r_a", "s_b"),)),
    "join of a full join": Join(FullJoin(R, S, (equal("r_a", "s_a"),)), T, (equal("s_b", "t_b"),)),
    "join with an aggregate of everything": Join(T, Aggregate(R, (), (counted("n"),))),
    "join with a row that only decides": projected(
        Join(T, Aggregate(R, (), (counted("n"), summed("total", named(R, "r_b")))), (LESS,)), ("one", "t_a")
    ),
    "join of a row that only decides": projected(
        Join(Aggregate(R, (), (summed("total", named(R, "r_b")),)), T, (LESS,)), ("one", "t_a"), ("two", "t_x")
    ),
    "join with a row that only decides by equality": projected(
        Join(T, Aggregate(R, (), (counted("n"),)), (equal("t_a", "n"),)), ("one", "t_b")
    ),
}

SHAPES = (
    "scan",
    "filter",
    "timed",
    "project",
    "union",
    "join",
    "join",
    "outer",
    "mark",
    "lateral",
    "aggregate",
    "distinct",
)
# With each, whether it is strict.
_TESTS = (
    (sql.SQL("{} > 1"), True),
    (sql.SQL("{} IS NOT NULL"), False),
    (sql.SQL("{} IS NULL"), False),
    (sql.SQL("coalesce({}, 2) <= 2"), False),
)


@st.composite
def any_plan(draw: st.DrawFn, depth: int = 3) -> Plan:
    """Any plan over r and s that is at most so deep."""
    return draw(_plans(depth, count(1)))


@st.composite
def _plans(draw: st.DrawFn, depth: int, numbers: count[int]) -> Plan:
    if depth == 0:
        return scan(draw(st.sampled_from(["r", "s"])), f"t{next(numbers)}", "abx")
    shape = draw(st.sampled_from(SHAPES))
    below = draw(_plans(0 if shape == "scan" else depth - 1, numbers))
    match shape:
        case "filter":
            test, strict = draw(st.sampled_from(_TESTS))
            return Filter(below, (predicate(test, draw(_some(below)), strict=strict),))
        case "timed":
            condition = Timed(*_moments(sql.SQL("{} > {}"), draw(_some(below))))
            if draw(st.booleans()):
                return TimedFilter(below, condition)
            return TimedColumn(below, condition, Column(f"w{next(numbers)}", BOOL))
        case "project":
            return draw(_projections(below, numbers))
        case "union":
            other = draw(_plans(depth - 1, numbers))
            pairs = [(x.name, y.name) for x in below.columns for y in other.columns if x.type.name == y.type.name]
            if not pairs:
                return below
            one, two = draw(st.sampled_from(pairs))
            # Which of several equal numbers a group shows is free, and one branch may be a group.
            branches = (
                projected(below, (f"u{next(numbers)}", one), by_value=True),
                projected(other, (f"u{next(numbers)}", two), by_value=True),
            )
            return UnionAll(*branches)
        case "join":
            other = draw(_plans(depth - 2 if depth > 1 else 0, numbers))
            return Join(below, other, draw(_conditions(below, other)))
        case "outer":
            other = draw(_plans(depth - 2 if depth > 1 else 0, numbers))
            if draw(st.booleans()):
                return LeftJoin(below, other, draw(_conditions(below, other)))
            return FullJoin(below, other, (equal(draw(_some(below)), draw(_some(other))),))
        case "mark":
            other = draw(_plans(depth - 2 if depth > 1 else 0, numbers))
            how = draw(st.sampled_from([semi_join, anti_join, Mark]))
            return how(below, other, draw(_conditions(below, other)), mark(f"m{next(numbers)}"))
        case "lateral":
            of = draw(_some(below))
            if named(below, of).type not in {INT4, INT8}:
                return below
            name, outer = f"l{next(numbers)}", draw(st.booleans())
            on = (predicate(sql.SQL("{} <> 2"), name),) if outer else ()
            # A total may be large: up to six rows of one will do.
            small = Filter(below, (predicate(sql.SQL("coalesce({} <= 6, true)"), of),))
            return series(small, name, of, *on, outer=outer, numbered=draw(st.booleans()))
        case "aggregate":
            keys = draw(st.lists(_some(below), max_size=2, unique=True))
            value = draw(_some(below))
            calls = (counted(f"n{next(numbers)}"), summed(f"s{next(numbers)}", named(below, value)))
            return Aggregate(below, tuple(keys), calls)
        case "distinct":
            some = draw(st.lists(_some(below), min_size=1, max_size=2, unique=True))
            made = projected(below, *((f"d{next(numbers)}", name) for name in some))
            return Aggregate(made, tuple(one.name for one in made.columns), ())
        case _:
            return below


def _some(plan: Plan) -> st.SearchStrategy[str]:
    return st.sampled_from([one.name for one in plan.columns if one.type is not BOOL])


@st.composite
def _projections(draw: st.DrawFn, plan: Plan, numbers: count[int]) -> Project:
    kept = draw(st.lists(_some(plan), min_size=1, max_size=3))
    return projected(plan, *((f"p{next(numbers)}", name) for name in kept))


@st.composite
def _conditions(draw: st.DrawFn, left: Plan, right: Plan) -> tuple[Scalar, ...]:
    one, other = draw(_some(left)), draw(_some(right))
    how = draw(st.sampled_from(["equal", "less", "none"]))
    if how == "equal":
        return (equal(one, other),)
    return (predicate(sql.SQL("{} < {}"), one, other),) if how == "less" else ()
