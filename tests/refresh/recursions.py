"""Recursive queries over a table of edges and one of roots, and random changes of both."""

from __future__ import annotations

from hypothesis import strategies as st

# Edges and roots repeat, and hold NULLs; cost has equal values that differ.
TABLES = """
CREATE TABLE edges (a int, b int, label text, cost numeric);
CREATE TABLE roots (id int, kind int);
CREATE TABLE tree (id int PRIMARY KEY, parent int, name text NOT NULL);
CREATE TABLE bounds (most int);
INSERT INTO bounds VALUES (3);
"""
REMOVED = "DROP TABLE edges, roots, tree, bounds CASCADE"

SETS = {
    "closure": "r (a, b) AS (SELECT a, b FROM edges UNION SELECT r.a, e.b FROM r JOIN edges AS e ON e.a = r.b)",
    "closure by the other end": "r AS (SELECT b, a FROM edges UNION"
    " SELECT r.b, e.a FROM edges AS e, r WHERE e.b = r.a)",
    "reached from roots": "r AS (SELECT id FROM roots UNION SELECT e.b FROM r JOIN edges AS e ON e.a = r.id)",
    "reached from one": "r AS (SELECT 1 AS id UNION SELECT e.b FROM r JOIN edges AS e ON e.a = r.id)",
    "over two edges": "r AS (SELECT id FROM roots UNION SELECT f.b FROM r JOIN edges AS e ON e.a = r.id"
    " JOIN edges AS f ON f.a = e.b AND f.label = e.label)",
    "but for some": "r AS (SELECT id FROM roots WHERE kind > 0 UNION SELECT e.b FROM r JOIN edges AS e ON e.a = r.id"
    " WHERE NOT EXISTS (SELECT FROM roots AS x WHERE x.id = e.b AND x.kind = 2) AND e.b <> 7)",
    "not in": "r AS (SELECT id FROM roots UNION SELECT e.b FROM r JOIN edges AS e ON e.a = r.id"
    " WHERE e.b NOT IN (SELECT x.kind FROM roots AS x))",
    "with or without an edge": "r (id, depth) AS (SELECT id, 0 FROM roots UNION SELECT coalesce(e.b, r.id), r.depth + 1"
    " FROM r LEFT JOIN edges AS e ON e.a = r.id AND e.label = 'x' WHERE r.depth < 3)",
    "with texts": "r (id, label) AS (SELECT id, 'root'::text FROM roots UNION"
    " SELECT e.b, e.label FROM r JOIN edges AS e ON e.a = r.id)",
    "beside numbers": "r (id, n) AS (SELECT id, 0 FROM roots UNION SELECT e.b, x.n FROM r JOIN edges AS e ON e.a = r.id"
    " CROSS JOIN LATERAL generate_series(1, least(e.b, 2)) AS x (n))",
    "from a union": "r AS (SELECT a FROM edges UNION ALL SELECT id FROM roots UNION SELECT DISTINCT e.b FROM r"
    " JOIN edges AS e ON e.a = r.a AND e.cost > 1)",
    "from groups": "r AS (SELECT a FROM edges GROUP BY a HAVING count(*) > 1 UNION"
    " SELECT g.b FROM r JOIN (SELECT a, max(b) AS b FROM edges GROUP BY a) AS g ON g.a = r.a)",
    "as far as it is set": "r (id, depth) AS (SELECT id, 0 FROM roots UNION SELECT e.b, r.depth + 1 FROM r"
    " JOIN edges AS e ON e.a = r.id WHERE r.depth < (SELECT max(most) FROM bounds))",
    "of anything": "r AS (SELECT id FROM roots UNION SELECT e.b FROM r JOIN edges AS e ON e.a > r.id)",
    "back and forth": "r (a, b) AS (SELECT a, b FROM edges UNION SELECT b, a FROM r)",
}
BAGS = {
    "ways": "r (id, depth) AS (SELECT id, 0 FROM roots UNION ALL SELECT e.b, r.depth + 1 FROM r"
    " JOIN edges AS e ON e.a = r.id WHERE r.depth < 3)",
    "ways upwards": "r AS (SELECT id FROM roots UNION ALL"
    " SELECT e.b FROM r JOIN edges AS e ON e.a = r.id AND e.b > e.a)",
    "costs": "r (id, cost) AS (SELECT id, 0.0 FROM roots UNION ALL SELECT e.b, r.cost + e.cost FROM r"
    " JOIN edges AS e ON e.a = r.id WHERE e.b > r.id)",
    "paths": "r (id, path) AS (SELECT id, ARRAY[id] FROM roots UNION ALL SELECT e.b, r.path || e.b FROM r"
    " JOIN edges AS e ON e.a = r.id WHERE e.b <> ALL (r.path))",
    "a tree": "r (id, name, level) AS (SELECT id, name, 1 FROM tree WHERE parent IS NULL UNION ALL"
    " SELECT t.id, r.name || '/' || t.name, r.level + 1 FROM tree AS t JOIN r ON t.parent = r.id)",
    "documents": "r (id, doc) AS (SELECT id, json_build_object('id', id) FROM roots UNION ALL"
    " SELECT e.b, json_build_object('from', r.doc) FROM r JOIN edges AS e ON e.a = r.id AND e.b > e.a)",
    "counted down": "r (n) AS (SELECT kind FROM roots UNION ALL SELECT n - 1 FROM r WHERE n > 0)",
    "known only": "r AS (SELECT id FROM roots UNION ALL SELECT e.b FROM r JOIN edges AS e ON e.a = r.id AND e.b > e.a"
    " WHERE e.b IN (SELECT x.b FROM edges AS x WHERE x.label IS NOT NULL))",
    "breadth first": "q (id, depth) AS (SELECT id, 0 FROM roots UNION ALL SELECT e.b, q.depth + 1 FROM q"
    " JOIN edges AS e ON e.a = q.id WHERE q.depth < 3) SEARCH BREADTH FIRST BY id SET place,"
    " r AS (SELECT id, depth, place::text AS place FROM q)",
    "until a cycle closes": "q (id, depth) AS (SELECT id, 0 FROM roots UNION ALL SELECT e.b, x.depth + 1"
    " FROM edges AS e JOIN q AS x ON e.a = x.id WHERE x.depth < 3) CYCLE id SET again TO 'yes' DEFAULT 'no' USING way,"
    " r AS (SELECT id, again, way::text AS way FROM q WHERE depth > 0)",
    "depth first, around": "q (id, label, depth) AS (SELECT id, 'root', 0 FROM roots UNION ALL"
    " SELECT e.b, e.label, q.depth + 1 FROM q JOIN edges AS e ON e.a = q.id WHERE q.depth < 3)"
    " SEARCH DEPTH FIRST BY id, depth SET place CYCLE id, label SET again USING way,"
    " r AS (SELECT id, label, again, array_length(way, 1) AS n, place > ARRAY[ROW(2, 0)] AS later FROM q)",
    "copies of constants": "r (id, n) AS (VALUES (1, 0), (1, 0), (2, 1) UNION ALL"
    " SELECT e.b, r.n + 1 FROM r JOIN edges AS e ON e.a = r.id WHERE r.n < 2)",
}
RECURSIONS = {**SETS, **BAGS}
SHOWN = (
    "SELECT * FROM r",
    "SELECT count(*) AS n FROM r",
    "SELECT r.*, x.kind FROM r LEFT JOIN roots AS x ON x.id = 1",
)


def query(recursion: str, shown: str = SHOWN[0]) -> str:
    """The defining query over one of RECURSIONS."""
    return f"WITH RECURSIVE {RECURSIONS[recursion]} {shown}"


_nodes = st.integers(1, 6).map(str) | st.just("NULL")
_labels = st.sampled_from(["'x'", "'y'", "NULL"])
_costs = st.sampled_from(["1", "1.0", "1.5", "NULL"])
_edge = st.builds("({}, {}, {}, {})".format, _nodes, _nodes, _labels, _costs)
_root = st.builds("({}, {})".format, _nodes, st.sampled_from(["0", "1", "2", "NULL"]))


def _inserted(table: str, row: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    return st.lists(row, min_size=1, max_size=most).map(lambda rows: f"INSERT INTO {table} VALUES {', '.join(rows)}")


# A node's parent has a smaller number, so that the tree is one.
_grown = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 8)), min_size=1, max_size=5).map(
    lambda pairs: (
        "INSERT INTO tree SELECT DISTINCT ON (id) id, CASE WHEN parent BETWEEN 1 AND id - 1 THEN parent END,"
        f" 'n' || id FROM (VALUES {', '.join(map(str, pairs))}) AS n (id, parent) ON CONFLICT (id) DO UPDATE"
        " SET parent = excluded.parent, name = tree.name || '*'"
    )
)
first = st.tuples(_inserted("edges", _edge, 9), _inserted("roots", _root, 3), _grown)
changes = st.one_of(
    _inserted("edges", _edge, 3),
    _inserted("edges", _edge, 1),
    _inserted("roots", _root, 2),
    _grown,
    st.builds("DELETE FROM edges WHERE a = {}".format, _nodes),
    st.builds("DELETE FROM edges WHERE (a, b) IN (({}, {}))".format, _nodes, _nodes),
    st.builds("DELETE FROM edges WHERE ctid IN (SELECT ctid FROM edges WHERE b = {} LIMIT 1)".format, _nodes),
    st.builds("UPDATE edges SET b = {} WHERE a = {}".format, _nodes, _nodes),
    st.builds("UPDATE edges SET a = b, b = a WHERE b = {}".format, _nodes),
    st.builds("UPDATE edges SET label = {}, cost = {} WHERE a = {}".format, _labels, _costs, _nodes),
    st.builds("DELETE FROM roots WHERE id = {}".format, _nodes),
    st.builds("UPDATE roots SET kind = 2 - kind WHERE id > {}".format, _nodes),
    st.builds("DELETE FROM tree WHERE id = {}".format, _nodes),
    st.builds("UPDATE bounds SET most = {}".format, st.integers(1, 3)),
)
batches = st.lists(st.lists(changes, min_size=1, max_size=3), min_size=1, max_size=4)
