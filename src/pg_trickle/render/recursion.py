"""A recursion as SQL: from scratch, and the two statements by which its stage is maintained (algebra/recursion.py).

::

    first    c   the change of B + F(W), W as it is stored; not summed up
             o   where stored rows are that lost a way, and those that follow from them
             m   whether they are so many that all rows had better be derived afresh
             x   them taken out of the store, and y  put into the delta table: K is left; or z, a note of m there

    second   g   them again, from the delta table
             n   what came, from the change of B + F(K); r  what is derived again of the rows of g
             i   both, and what follows from them, which is put into the store
             d   i − g, consolidated: the stage's delta; or all rows from scratch minus all stored, put into the store

Whether a row is stored is asked of an index for each row that is derived (OFFSET 0 keeps it so): what a refresh costs
follows what it derives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from psycopg import sql

from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.plan import names as names_of
from pg_trickle.algebra.recursion import Recursion, given
from pg_trickle.algebra.source import Field, Opaque, Scan
from pg_trickle.recomputed import Recomputed
from pg_trickle.render.apply import Target, apply, located, same_row
from pg_trickle.render.netting import consolidated
from pg_trickle.render.parts import CHANGES_SCHEMA, WEIGHT, leading, listed, names
from pg_trickle.render.recomputed import state_rows
from pg_trickle.render.recursive import union
from pg_trickle.render.select import CommonTables
from pg_trickle.scalar import Column

# True, and taken for a rare case.  PostgreSQL expects a recursion to find ten times as many rows at each step as it
# began with, so that it would sooner read whole tables than look up what follows from a few rows.
_FEW = sql.SQL("{w} * 0 = 0").format(w=WEIGHT)
# Of how many rows what leads to them is followed, and how many bytes of the store allow for one more: a tenth of
# narrow rows.  In a graph in which all lead to all, one edge less puts every row in doubt.
PATIENCE = 1000
BYTES_FOR_ONE_MORE = 400


@dataclass(frozen=True, slots=True)
class Recursive:
    """The stage of a recursion."""

    stage: Recomputed
    operator: Recursion

    @property
    def target(self) -> Target:
        return state_rows(self.stage).target

    @property
    def delta_table(self) -> sql.Identifier:
        return sql.Identifier(CHANGES_SCHEMA, self.stage.state.delta_name)

    @property
    def stored(self) -> Scan:
        """The store, for the recursive reference."""
        pairs = zip(self.operator.found.columns, self.stage.column_names, strict=True)
        return Scan(self.stage.state, tuple(Field(one, name, name) for one, name in pairs))

    def change(self, derived: Plan) -> Plan:
        """C: the change of what the term derives, with the reference replaced by the store."""
        return given(derived, self.operator.name, self.stored)

    def same(self, table: str, rows: str, columns: tuple[str, ...]) -> sql.Composable:
        """Which rows of the store are the same as others, by its index; their ``columns`` are in its order."""
        if self.target.key is None:
            return self.alike(table, rows, columns)
        return located(self.target, table, rows, self._places(columns))

    def alike(self, table: str, rows: str, columns: tuple[str, ...]) -> sql.Composable:
        """The same of rows in the store's columns, in a form that can be hashed."""
        return same_row(self.target, table, rows, self._places(columns))

    def _places(self, columns: tuple[str, ...]) -> dict[str, str]:
        return dict(zip(self.stage.column_names, columns, strict=True))


def add_taken_out(recursive: Recursive, change: Plan, common: CommonTables) -> None:
    """The first statement: take out every stored row of which a way is gone."""
    stage, table = recursive.stage, recursive.target.table
    prefix = stage.state.name
    changed = common.add(f"{prefix}_c", common.select(change))
    gone = common.add(f"{prefix}_o", _gone(recursive, changed, common))
    many = common.add(
        f"{prefix}_m",
        sql.SQL("SELECT count(*) >= {most} AS too_many FROM {o}").format(most=_most(recursive), o=gone),
    )
    taken = common.add_writing(
        f"{prefix}_x",
        sql.SQL(
            "DELETE FROM {table} AS s USING {o} AS o WHERE s.ctid = o.id AND NOT (SELECT m.too_many FROM {m} AS m)"
            " RETURNING {columns}"
        ).format(table=table, o=gone, m=many, columns=names(stage.column_names, "s")),
    )
    hole = {"delta": recursive.delta_table, "columns": leading(stage.column_names), "w": WEIGHT, "x": taken, "m": many}
    common.add_writing(
        f"{prefix}_y",
        sql.SQL("INSERT INTO {delta} ({columns}{w}) SELECT {columns}-1 FROM {x}").format(**hole),
    )
    common.add_writing(
        f"{prefix}_z", sql.SQL("INSERT INTO {delta} ({w}) SELECT 0 FROM {m} AS m WHERE m.too_many").format(**hole)
    )


def _most(recursive: Recursive) -> sql.Composable:
    """How many rows are too many to be followed one by one: from there on, recomputing is cheaper."""
    store = sql.Identifier(CHANGES_SCHEMA, recursive.stage.state.name).as_string(None)
    return sql.SQL("{some} + pg_relation_size({store}::regclass) / {bytes}").format(
        some=sql.Literal(PATIENCE), store=sql.Literal(store), bytes=sql.Literal(BYTES_FOR_ONE_MORE)
    )


def _gone(recursive: Recursive, changed: sql.Identifier, common: CommonTables) -> sql.Composable:
    """Where the stored rows are that the change takes away from, and those that follow from them."""
    operator, table = recursive.operator, recursive.target.table
    reached = sql.Identifier(operator.name)
    rows = sql.SQL(
        "SELECT {columns} FROM {reached} AS g CROSS JOIN LATERAL"
        " (SELECT * FROM {table} AS t WHERE t.ctid = g.id OFFSET 0) AS t"
    ).format(columns=names(recursive.stage.column_names, "t"), reached=reached, table=table)
    step = given(operator.step, operator.name, Opaque(rows.as_string(None), operator.found.columns))
    found = sql.SQL(
        "SELECT s.id FROM {rows} AS f CROSS JOIN LATERAL"
        " (SELECT s.ctid AS id FROM {table} AS s WHERE {same} OFFSET 0) AS s"
    )
    lost = sql.SQL("(SELECT * FROM {c} WHERE {w} < 0 AND {few})").format(c=changed, w=WEIGHT, few=_FEW)
    following = sql.SQL("({step})").format(step=common.select(step))
    return sql.SQL(
        "WITH RECURSIVE {reached} (id) AS ({first} UNION {again}) SELECT id FROM {reached} LIMIT {most}"
    ).format(
        reached=reached,
        most=_most(recursive),
        first=found.format(rows=lost, table=table, same=recursive.same("s", "f", names_of(operator))),
        again=found.format(rows=following, table=table, same=recursive.same("s", "f", names_of(operator.step))),
    )


def add_derived(recursive: Recursive, change: Plan, common: CommonTables) -> None:
    """The second statement: what came, what is derived again, and what follows from both; or all rows from scratch."""
    stage, target = recursive.stage, recursive.target
    prefix, columns = stage.state.name, stage.column_names
    hole = {"columns": leading(columns), "w": WEIGHT}
    noted = common.add_writing(
        f"{prefix}_t",
        sql.SQL("DELETE FROM {delta} AS d RETURNING {columns}{w}").format(**hole, delta=recursive.delta_table),
    )
    whole = common.add(
        f"{prefix}_m", sql.SQL("SELECT EXISTS (SELECT FROM {t} WHERE {w} = 0) AS too_many").format(**hole, t=noted)
    )
    taken = common.add(f"{prefix}_g", sql.SQL("SELECT {columns}{w} FROM {t} WHERE {w} < 0").format(**hole, t=noted))
    changed = common.add(
        f"{prefix}_c",
        sql.SQL("SELECT * FROM ({change}) AS c WHERE NOT (SELECT m.too_many FROM {m} AS m)").format(
            change=common.select(change), m=whole
        ),
    )
    again = common.add(f"{prefix}_r", _again(recursive, taken, common))
    new = common.add(f"{prefix}_n", _new(recursive, changed, taken))
    derived = common.add(f"{prefix}_i", _derived(recursive, again, new, common))
    both = sql.SQL("SELECT {columns}1::bigint AS {w} FROM {i} UNION ALL SELECT {columns}{w} FROM {g}").format(
        **hole, i=derived, g=taken
    )
    afresh = _afresh(recursive, whole, common)
    delta = common.add(
        stage.state.delta_name,
        consolidated(_typed(recursive), sql.SQL("{both} UNION ALL {afresh}").format(both=both, afresh=afresh)),
    )
    common.add_writing(
        f"{prefix}_i_in",
        sql.SQL("INSERT INTO {table} ({columns}) SELECT {columns} FROM {i}").format(
            table=target.table, columns=names(columns), i=derived
        ),
    )
    differing = sql.SQL("SELECT * FROM {d} WHERE (SELECT m.too_many FROM {m} AS m)").format(d=delta, m=whole)
    apply(target, differing, common, f"{prefix}_")


def _afresh(recursive: Recursive, whole: sql.Identifier, common: CommonTables) -> sql.Composable:
    """The rows from scratch and, taken away, those that are stored: if all are to be derived again."""
    fresh = leading((name for name in names_of(recursive.operator)), "n")
    return sql.SQL(
        "SELECT {fresh}{w} FROM ({rows}) AS n WHERE (SELECT m.too_many FROM {m} AS m)"
        " UNION ALL SELECT {stored}-1 FROM {table} AS s WHERE (SELECT m.too_many FROM {m} AS m)"
    ).format(
        fresh=fresh,
        w=WEIGHT,
        rows=common.select(recursive.operator),
        m=whole,
        stored=leading(recursive.stage.column_names, "s"),
        table=recursive.target.table,
    )


def _typed(recursive: Recursive) -> tuple[Column, ...]:
    return tuple(replace(column, name=name) for name, column in recursive.stage.columns)


def _again(recursive: Recursive, taken: sql.Identifier, common: CommonTables) -> sql.Composable:
    """The rows of those taken out that follow from the base or from what is left, as often as they do."""
    operator, columns = recursive.operator, recursive.stage.column_names
    once = consolidated(
        _typed(recursive),
        sql.SQL("SELECT {columns}1::bigint AS {w} FROM {g}").format(columns=leading(columns), w=WEIGHT, g=taken),
    )
    # Apart, so that PostgreSQL may look up in either what it looks for.
    return sql.SQL(" UNION ALL ").join(
        sql.SQL(
            "SELECT {columns} FROM ({once}) AS o JOIN ({rows}) AS f ON {same} WHERE (SELECT EXISTS (SELECT FROM {g}))"
        ).format(
            columns=names(columns, "o"),
            once=once,
            rows=common.select(rows),
            same=recursive.alike("o", "f", names_of(rows)),
            g=taken,
        )
        for rows in (operator.base, given(operator.step, operator.name, recursive.stored))
    )


def _new(recursive: Recursive, changed: sql.Identifier, taken: sql.Identifier) -> sql.Composable:
    """What came: of a set, what isn't stored; of a bag, as often as it did, but for the rows that are derived again."""
    columns = names_of(recursive.operator)
    hole = {
        "columns": names(columns, "f"),
        "w": WEIGHT,
        "few": _FEW,
        "summed": consolidated(
            recursive.operator.columns,
            sql.SQL("SELECT {columns}{w} FROM {c}").format(columns=leading(columns), w=WEIGHT, c=changed),
        ),
        "table": recursive.target.table,
        "g": taken,
    }
    if recursive.operator.is_set:
        return sql.SQL(
            "SELECT {columns} FROM ({summed}) AS f WHERE f.{w} > 0 AND {few}"
            " AND NOT EXISTS (SELECT FROM {table} AS s WHERE {same} OFFSET 0)"
        ).format(**hole, same=recursive.same("s", "f", columns))
    return sql.SQL(
        "SELECT {columns} FROM ({summed}) AS f CROSS JOIN generate_series(1, f.{w}) WHERE f.{w} > 0 AND {few} AND {few}"
        " AND NOT EXISTS (SELECT FROM {g} AS g WHERE {same})"
    ).format(**hole, same=recursive.alike("g", "f", columns))


def _derived(recursive: Recursive, again: sql.Identifier, new: sql.Identifier, common: CommonTables) -> sql.Composable:
    """What follows from rows, with them.  The rows of the store come first: they say of which type the columns are."""
    operator = recursive.operator
    step = sql.SQL("SELECT {columns} FROM ({step}) AS f").format(
        columns=names(names_of(operator.step), "f"), step=common.select(operator.step)
    )
    if operator.is_set:
        step = sql.SQL("{step} WHERE NOT EXISTS (SELECT FROM {table} AS s WHERE {same} OFFSET 0)").format(
            step=step, table=recursive.target.table, same=recursive.same("s", "f", names_of(operator.step))
        )
    return sql.SQL(
        "WITH RECURSIVE {found} ({given}) AS ((SELECT * FROM {r} UNION ALL SELECT * FROM {n}) {union} {step})"
        " SELECT {values} FROM {found}"
    ).format(
        found=sql.Identifier(operator.name),
        given=names(names_of(operator.found)),
        r=again,
        n=new,
        union=union(operator),
        step=step,
        values=listed(
            sql.SQL("{found} AS {name}").format(found=sql.Identifier(one), name=sql.Identifier(name))
            for one, name in zip(names_of(operator.found), recursive.stage.column_names, strict=True)
        ),
    )
