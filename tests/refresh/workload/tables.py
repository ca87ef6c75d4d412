"""Random tables, and statements that write to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tests.refresh.workload.types import INT, MOMENT, TYPES, Type


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Column:
    """A column of a table or of a query's output; ``loose`` as in Type."""

    name: str
    type: Type
    loose: bool = False

    @property
    def sql(self) -> str:
        return quoted(self.name)


@dataclass(frozen=True)
class Relation:
    """Something to select from."""

    name: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Table(Relation):
    """A table; every one has an int column k to join by.  ``key``: none, id, or the nullable k.

    ``shape``: plain, partitioned (by its key, else by k; partitions within partitions, columns in another order) or
    inherited (a child, and a child of that).
    """

    key: str | None = None
    not_null: frozenset[str] = frozenset()
    shape: str = "plain"

    @property
    def definition(self) -> str:
        parts = [f"{one.sql} {one.type.name}{' NOT NULL' if one.name in self.not_null else ''}" for one in self.columns]
        if self.key == "id":
            parts.append("PRIMARY KEY (id)")
        elif self.key:
            parts.append(f"UNIQUE ({quoted(self.key)})")
        made = f"CREATE TABLE {self.name} ({', '.join(parts)})"
        if self.shape == "partitioned":
            return f"{made} PARTITION BY LIST ({self.key or 'k'}); {self._partitions}"
        if self.shape == "inherited":
            more = f"CREATE TABLE {self.name}_2 (more int) INHERITS ({self.name}_1)"
            return f"{made}; CREATE TABLE {self.name}_1 () INHERITS ({self.name}); {more}"
        return made

    @property
    def _partitions(self) -> str:
        name, by = self.name, self.key or "k"
        columns = ", ".join(
            f"{one.sql} {one.type.name}{' NOT NULL' if one.name in self.not_null | {'id'} else ''}"
            for one in reversed(self.columns)
        )
        return "; ".join([
            f"CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES IN (1)",
            f"CREATE TABLE {name}_2 (gone int, {columns}) PARTITION BY LIST ({by})",
            f"ALTER TABLE {name}_2 DROP COLUMN gone",
            f"CREATE TABLE {name}_3 PARTITION OF {name}_2 FOR VALUES IN (2, 3)",
            f"ALTER TABLE {name} ATTACH PARTITION {name}_2 FOR VALUES IN (2, 3)",
            f"CREATE TABLE {name}_4 PARTITION OF {name} DEFAULT",
        ])  # fmt: skip

    @property
    def below(self) -> tuple[Table, ...]:
        """Its partitions or children, to be written by themselves."""
        last = {"plain": 0, "partitioned": 4, "inherited": 2}[self.shape]
        return tuple(replace(self, name=f"{self.name}_{n}", key=None, shape="plain") for n in range(1, last + 1))


# What generated SQL might confuse with its own names.
NAMES = ("a", "b", "Name", "w", "xid", "seq", "select", 'we"ird', "__pgt_w", "n", "größe", "l", "x")


@st.composite
def tables(draw: st.DrawFn, name: str, types: tuple[Type, ...] = TYPES, moving: bool = False) -> Table:
    """A table with an int column k and up to three others, perhaps with an id, and with one of the time."""
    key = draw(st.sampled_from(["id", "id", None, None, "k"]))
    others = draw(
        st.lists(
            st.tuples(st.sampled_from(NAMES), st.sampled_from(types)),
            min_size=1,
            max_size=3,
            unique_by=lambda pair: pair[0],
        )
    )
    columns = [Column("k", INT), *(Column(column, of) for column, of in others)]
    if key == "id":
        columns.insert(0, Column("id", INT))
    columns += [Column("at", MOMENT)] if moving else []
    not_null = draw(st.sets(st.sampled_from([one.name for one in columns]), max_size=2))
    shape = draw(st.sampled_from(["plain", "plain", "plain", "partitioned", "inherited"]))
    return Table(name, tuple(columns), key, frozenset(not_null), shape)


def values(column: Column, nullable: bool = True) -> st.SearchStrategy[str]:
    """A literal of the column's type, or NULL."""
    literals = st.sampled_from([column.type.literal(value) for value in column.type.values])
    return (st.just("NULL") | literals) if nullable else literals


@st.composite
def _row(draw: st.DrawFn, table: Table) -> str:
    def one(column: Column) -> str:
        if column.name == "id":
            return str(draw(st.integers(1, 9)))
        return draw(values(column, column.name not in table.not_null))

    return f"({', '.join(map(one, table.columns))})"


@st.composite
def inserts(draw: st.DrawFn, table: Table) -> str:
    """Rows, some of which may be there already."""
    rows = ", ".join(draw(st.lists(_row(table), min_size=1, max_size=4)))
    into = f"INSERT INTO {table.name} ({', '.join(one.sql for one in table.columns)}) VALUES {rows}"
    if table.key is None:
        return into
    key, last = quoted(table.key), table.columns[-1].sql
    update = f" ON CONFLICT ({key}) DO UPDATE SET {last} = excluded.{last}"
    return into + draw(st.sampled_from([" ON CONFLICT DO NOTHING", " ON CONFLICT DO NOTHING", update, ""]))


@st.composite
def alterations(draw: st.DrawFn, table: Table) -> str:
    """A statement that alters the table, or what is below it, and leaves the columns that queries read."""
    name = table.name
    choices = [
        f"ALTER TABLE {name} ADD COLUMN further int DEFAULT 1",
        f"ALTER TABLE {name} ADD COLUMN further float8 DEFAULT random()",
        f"ALTER TABLE {name} DROP COLUMN further",
        f"VACUUM FULL {name}",
        *(f"ALTER TABLE {name} ALTER {quoted(column)} DROP NOT NULL" for column in sorted(table.not_null)),
    ]
    if table.key:
        of = f"{name}_{'pkey' if table.key == 'id' else f'{table.key}_key'}"
        choices += [f"ALTER TABLE {name} DROP CONSTRAINT {of}"] * 2
    if table.shape == "partitioned":
        choices += [f"ALTER TABLE {name} DETACH PARTITION {name}_{place}" for place in (1, 2, 4)]
        bounds = {1: "FOR VALUES IN (1)", 2: "FOR VALUES IN (2, 3)", 4: "DEFAULT"}
        choices += [f"ALTER TABLE {name} ATTACH PARTITION {name}_{place} {bounds[place]}" for place in bounds] * 2
    if table.shape == "inherited":
        choices += [f"ALTER TABLE {name}_1 NO INHERIT {name}", f"ALTER TABLE {name}_1 INHERIT {name}"] * 2
    return draw(st.sampled_from(choices))


@st.composite
def _where(draw: st.DrawFn, table: Table) -> str:
    column = draw(st.sampled_from(table.columns))
    some = f"ctid IN (SELECT ctid FROM {table.name} AS t ORDER BY t::text LIMIT {draw(st.integers(1, 2))})"
    choices = [some, some, f"{column.sql} IS NULL", "true", "k > 1"]
    if column.type.comparable:
        choices.append(f"{column.sql} = {draw(values(column, False))}")
    return draw(st.sampled_from(choices))


@st.composite
def writes(draw: st.DrawFn, table: Table) -> str:
    """A statement that writes to the table."""
    table = draw(st.sampled_from([*[table] * len(table.below), *table.below] or [table]))
    column = draw(st.sampled_from(table.columns))
    value = (
        str(draw(st.integers(1, 9))) if column.name == "id" else draw(values(column, column.name not in table.not_null))
    )
    where = draw(_where(table))
    name = table.name
    columns = ", ".join(one.sql for one in table.columns)
    choices = [
        f"DELETE FROM {name} WHERE {where}",
        f"UPDATE {name} SET {column.sql} = {value} WHERE {where}",
        f"UPDATE {name} SET {column.sql} = {value} WHERE {where}",
        f"UPDATE {name} SET {column.sql} = {column.sql} WHERE {where}",
        f"UPDATE {name} SET k = CASE k WHEN 1 THEN 2 WHEN 2 THEN 1 ELSE k END",
        f"UPDATE {name} SET k = k + 1 WHERE {where}",
        f"WITH gone AS (DELETE FROM {name} WHERE {where} RETURNING {columns})"
        f" INSERT INTO {name} ({columns}) SELECT * FROM gone",
    ]
    if table.key == "id":
        choices += [
            f"UPDATE {name} SET id = id + 10",
            f"UPDATE {name} SET id = -id",
            f"MERGE INTO {name} AS t USING (VALUES (1), (2), (3)) AS m (id) ON t.id = m.id"
            f" WHEN MATCHED AND t.k = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET k = 1"
            f" WHEN NOT MATCHED THEN INSERT ({columns}) VALUES {draw(_row(table))}",
        ]
    if draw(st.integers(0, 19)) == 19:
        return f"TRUNCATE {name}"
    if draw(st.booleans()):
        return draw(inserts(table))
    return draw(st.sampled_from(choices))
