-- D19 ties, and a row that moves to another partition
CREATE TABLE t (id int PRIMARY KEY, g int, x int);
INSERT INTO t VALUES (1, 1, 5), (2, 1, 5), (3, 1, 7), (4, 2, 1), (5, NULL, 2), (6, NULL, 2);
STREAM st AS SELECT id, g, x, rank() OVER (PARTITION BY g ORDER BY x) AS r, sum(x) OVER (PARTITION BY g) AS s FROM t;
UPDATE t SET g = 2 WHERE id = 2;
REFRESH;
UPDATE t SET g = NULL WHERE id = 3;
DELETE FROM t WHERE id = 5;
REFRESH;
INSERT INTO t VALUES (7, 1, 5), (8, 3, 0);
UPDATE t SET x = x + 1 WHERE g = 2;
REFRESH;

-- D19 two partitionings in one query, and one that is part of the other
CREATE TABLE t (id int PRIMARY KEY, g int, h text, x int);
INSERT INTO t SELECT i, i % 3, chr(65 + i % 4), i FROM generate_series(1, 20) AS i;
STREAM st AS SELECT id, sum(x) OVER (PARTITION BY g) AS a, count(*) OVER (PARTITION BY h) AS b, max(x) OVER (PARTITION BY g, h) AS c FROM t;
UPDATE t SET g = 7, h = 'A' WHERE id < 4;
REFRESH;
DELETE FROM t WHERE h = 'B';
INSERT INTO t VALUES (30, 0, 'C', 100), (31, NULL, NULL, 5);
REFRESH;

-- D20 windows inside expressions and over aggregates
CREATE TABLE t (id int PRIMARY KEY, g int, h int, x int);
INSERT INTO t SELECT i, i % 3, i % 2, i FROM generate_series(1, 12) AS i;
STREAM st AS SELECT g, h, CASE WHEN rank() OVER (PARTITION BY g ORDER BY sum(x)) > 1 THEN 'later' ELSE 'first' END AS place,
    sum(count(*)) OVER (PARTITION BY g) + 1 AS n, count(*) * 2 AS twice FROM t GROUP BY g, h HAVING count(*) > 0;
INSERT INTO t VALUES (20, 0, 0, 500), (21, 1, 5, 1);
REFRESH;
DELETE FROM t WHERE h = 0 AND g = 1;
REFRESH;

-- D19 named windows, frames, EXCLUDE and FILTER
CREATE TABLE t (id int PRIMARY KEY, g int, x int);
INSERT INTO t SELECT i, i % 2, i * 7 % 5 FROM generate_series(1, 12) AS i;
STREAM st AS SELECT id, sum(x) OVER w AS a, count(*) FILTER (WHERE x > 1) OVER (v ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) AS b,
    first_value(x) OVER (w RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS c, lag(x, 1, -1) OVER (v) AS d,
    array_agg(x) OVER (v GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES) AS e
    FROM t WINDOW p AS (PARTITION BY g), w AS (p ORDER BY x), v AS (PARTITION BY g ORDER BY x, id);
UPDATE t SET x = 9 WHERE id IN (3, 4);
REFRESH;
DELETE FROM t WHERE id = 7;
INSERT INTO t VALUES (50, 1, 3);
REFRESH;

-- D19 without PARTITION BY
CREATE TABLE t (id int PRIMARY KEY, x int);
INSERT INTO t SELECT i, i * 3 % 7 FROM generate_series(1, 12) AS i;
STREAM st AS SELECT id, x, row_number() OVER (ORDER BY x, id) AS n FROM t;
STREAM numbered AS SELECT row_number() OVER () AS n FROM t;
DELETE FROM t WHERE id = 5;
UPDATE t SET x = 0 WHERE id = 1;
REFRESH;

-- D19 D22 duplicates without a key, and rows that enter and leave the WHERE
CREATE TABLE t (g numeric, x int, secret int);
INSERT INTO t VALUES (1, 1, 0), (1.0, 1, 0), (1.00, 1, 1), (2, NULL, 0), (2, NULL, 0), (NULL, 3, 0), (NULL, 3, 0);
STREAM st AS SELECT x, count(*) OVER (PARTITION BY g) AS n, sum(x) OVER (PARTITION BY g) AS s FROM t WHERE secret = 0;
UPDATE t SET secret = 1 WHERE ctid IN (SELECT ctid FROM t WHERE g IS NULL LIMIT 1);
REFRESH;
UPDATE t SET secret = 0;
DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE g = 2 LIMIT 1);
REFRESH;
