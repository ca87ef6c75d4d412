"""The measured queries maintained by hand, as short as it can be: how far from that what is generated is.

Statement triggers with transition tables and static PL/pgSQL, each for its query alone.  They don't look whether
another statement is under way, whether their owner may still read the sources, or whether anything was renamed or
written to; joins follow the orders only, and nothing keeps writers of two sides apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Hand:
    """What is stored under which key, and what is done after each kind of statement."""

    stored: LiteralString
    key: LiteralString
    insert: LiteralString
    update: LiteralString
    delete: LiteralString


TAKEN: LiteralString = "DELETE FROM {view} AS v USING gone AS o WHERE v.id = o.id;"
LEFT: LiteralString = (
    "DELETE FROM {view} AS v USING gone AS o WHERE v.id = o.id"
    " AND NOT EXISTS (SELECT FROM came AS n WHERE n.id = o.id AND n.qty > 2);"
)
JOINED: LiteralString = """SELECT o.id, c.region, p.category, o.qty, o.price FROM {rows} AS o
    JOIN public.customers AS c ON c.id = o.customer_id
    JOIN public.products AS p ON p.id = o.product_id WHERE o.qty > 2"""
ONE: LiteralString = "SELECT o.id, o.qty * o.price AS value FROM {rows} AS o WHERE o.qty > 2"
CAME: LiteralString = "(SELECT *, 1 AS w FROM came)"
GONE: LiteralString = "(SELECT *, -1 AS w FROM gone)"
BOTH: LiteralString = "(SELECT *, -1 AS w FROM gone UNION ALL SELECT *, 1 FROM came)"


def _keyed(rows: LiteralString, assigned: LiteralString) -> Hand:
    bring: LiteralString = "INSERT INTO {view} " + rows.replace("{rows}", "came")
    upsert: LiteralString = bring + " ON CONFLICT (id) DO UPDATE SET " + assigned + ";"
    return Hand(rows.replace("{rows}", "{table}"), "id", bring + ";", LEFT + upsert, TAKEN)


CLEARING: LiteralString = """
    WITH applied AS ({added} RETURNING v.n) SELECT bool_or(n = 0) INTO empty FROM applied;
    IF empty THEN DELETE FROM {view} AS v {where}; END IF;"""
EMPTY: LiteralString = "WHERE v.n = 0"


def _counted(
    stored: LiteralString, key: LiteralString, sums: LiteralString, added: LiteralString, empty: LiteralString = EMPTY
) -> Hand:
    """Sums by groups; those without rows are looked for where rows may have gone."""
    add: LiteralString = (
        "INSERT INTO {view} AS v " + sums + " ORDER BY " + key + " ON CONFLICT (" + key + ") DO UPDATE SET " + added
    )
    clear: LiteralString = CLEARING.replace("{added}", add).replace("{where}", empty)
    return Hand(
        stored, key, add.replace("{rows}", CAME) + ";", clear.replace("{rows}", BOTH), clear.replace("{rows}", GONE)
    )


# After the rows of the groups are locked the next statement sees what others have done to them.
LOCKED: LiteralString = """PERFORM FROM {view} AS v WHERE v.customer_id IN (SELECT customer_id FROM gone)
                             ORDER BY v.customer_id FOR NO KEY UPDATE;"""
EXTREMES_CAME: LiteralString = """
    INSERT INTO {view} AS v SELECT customer_id, min(price), max(price), count(*) FROM came
     GROUP BY customer_id ORDER BY 1
        ON CONFLICT (customer_id) DO UPDATE SET least = LEAST(v.least, excluded.least),
           most = GREATEST(v.most, excluded.most), n = v.n + excluded.n;"""
EXTREMES_WENT: LiteralString = """
    UPDATE {view} AS v SET n = v.n - o.n,
           least = CASE WHEN o.least > v.least THEN v.least
                        ELSE (SELECT min(t.price) FROM {table} AS t WHERE t.customer_id = v.customer_id) END,
           most = CASE WHEN o.most < v.most THEN v.most
                       ELSE (SELECT max(t.price) FROM {table} AS t WHERE t.customer_id = v.customer_id) END
      FROM (SELECT customer_id, min(price) AS least, max(price) AS most, count(*) AS n
              FROM gone GROUP BY customer_id) AS o
     WHERE v.customer_id = o.customer_id;"""
EXTREMES_EMPTY: LiteralString = (
    "DELETE FROM {view} AS v USING gone AS o WHERE v.customer_id = o.customer_id AND v.n = 0;"
)

HANDS = {
    "join, filtered": _keyed(
        JOINED, "region = excluded.region, category = excluded.category, qty = excluded.qty, price = excluded.price"
    ),
    "join, few groups: count, sum, avg": _counted(
        """SELECT c.region, p.category, count(*) AS n, sum(o.qty * o.price) AS total, avg(o.price) AS mean,
                  sum(o.price) AS prices
             FROM {table} AS o JOIN customers AS c ON c.id = o.customer_id JOIN products AS p ON p.id = o.product_id
            GROUP BY c.region, p.category""",
        "region, category",
        """SELECT c.region, p.category, sum(o.w), sum(o.w * o.qty * o.price), avg(o.price), sum(o.w * o.price)
             FROM {rows} AS o JOIN public.customers AS c ON c.id = o.customer_id
             JOIN public.products AS p ON p.id = o.product_id GROUP BY c.region, p.category""",
        """n = v.n + excluded.n, total = v.total + excluded.total, prices = v.prices + excluded.prices,
           mean = (v.prices + excluded.prices) / nullif(v.n + excluded.n, 0)""",
    ),
    "many groups: count, sum": _counted(
        "SELECT customer_id, count(*) AS n, sum(qty) AS total FROM {table} GROUP BY customer_id",
        "customer_id",
        "SELECT customer_id, sum(w), sum(w * qty) FROM {rows} AS o GROUP BY customer_id",
        "n = v.n + excluded.n, total = v.total + excluded.total",
        "USING gone AS o WHERE v.customer_id = o.customer_id AND v.n = 0",
    ),
    "few groups: count, sum": _counted(
        "SELECT qty, count(*) AS n, sum(id) AS total FROM {table} GROUP BY qty",
        "qty",
        "SELECT qty, sum(w), sum(w * id) FROM {rows} AS o GROUP BY qty",
        "n = v.n + excluded.n, total = v.total + excluded.total",
    ),
    "min, max by customer": Hand(
        """SELECT customer_id, min(price) AS least, max(price) AS most, count(*) AS n FROM {table}
            GROUP BY customer_id""",
        "customer_id",
        EXTREMES_CAME,
        LOCKED + EXTREMES_CAME + EXTREMES_WENT + EXTREMES_EMPTY,
        LOCKED + EXTREMES_WENT + EXTREMES_EMPTY,
    ),
    "DISTINCT": _counted(
        "SELECT customer_id, qty, count(*) AS n FROM {table} GROUP BY customer_id, qty",
        "customer_id, qty",
        "SELECT customer_id, qty, sum(w) FROM {rows} AS o GROUP BY customer_id, qty",
        "n = v.n + excluded.n",
        "USING gone AS o WHERE v.customer_id = o.customer_id AND v.qty = o.qty AND v.n = 0",
    ),
    "projection, filtered": _keyed(ONE, "value = excluded.value"),
}

NEW: LiteralString = "NEW TABLE AS came"
OLD: LiteralString = "OLD TABLE AS gone"
EVENTS: tuple[tuple[str, LiteralString, LiteralString], ...] = (
    ("insert", "INSERT", NEW),
    ("update", "UPDATE", OLD + " " + NEW),
    ("delete", "DELETE", OLD),
)
FUNCTION: LiteralString = """
CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql {rights} AS {body};
CREATE TRIGGER {function} AFTER {event} ON {table} REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION {function}();
"""
# What it takes to maintain with the rights of somebody else than the writer, and not by his settings.
DEFINER = sql.SQL("SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off")


def create(conn: Connection, shape: str, table: str, *, definer: bool) -> None:
    """Fill a table ``view_<table>`` with a shape's query, and make what maintains it."""
    hand = HANDS[shape]
    view = sql.Identifier("public", f"view_{table}")
    names = {"table": sql.Identifier("public", table), "view": view}
    filled = sql.SQL("CREATE TABLE {} WITH (fillfactor = 85) AS ").format(view)
    conn.execute(filled + sql.SQL(hand.stored).format(**names))
    conn.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(view, sql.SQL(hand.key)))
    for name, event, rows in EVENTS:
        work = sql.SQL(getattr(hand, name)).format(**names)
        body = sql.SQL("DECLARE empty bool; BEGIN {} RETURN NULL; END").format(work)
        conn.execute(
            sql.SQL(FUNCTION).format(
                function=sql.Identifier(f"by_hand_{table}_{name}"),
                rights=DEFINER if definer else sql.SQL(""),
                body=sql.Literal(body.as_string(conn)),
                event=sql.SQL(event),
                table=names["table"],
                rows=sql.SQL(rows),
            )
        )


def drop(conn: Connection, table: str) -> None:
    """Drop what ``create`` made; the triggers go with their table."""
    conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(f"view_{table}")))
    for name, _, _ in EVENTS:
        function = sql.Identifier(f"by_hand_{table}_{name}")
        conn.execute(sql.SQL("DROP FUNCTION {} CASCADE").format(function))
