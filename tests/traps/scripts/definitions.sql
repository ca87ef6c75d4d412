-- F11 F13 F12 a chain of three, of which the middle changes, or nothing does
CREATE TABLE t (id int PRIMARY KEY, g int, x numeric);
INSERT INTO t SELECT n, n % 3, n FROM generate_series(1, 9) AS n;
STREAM one AS SELECT g, sum(x) AS s FROM t GROUP BY g;
STREAM two AS SELECT g, s FROM one WHERE s > 12::numeric(10, 2);
STREAM three AS SELECT count(*) AS n, sum(s) AS s FROM two;
UPDATE t SET x = x + 1 WHERE g = 1;
REFRESH;
UPDATE t SET x = 100 WHERE id = 3;
REFRESH;
REFRESH;
DELETE FROM t WHERE g = 2;
REFRESH;
SELECT pgtrickle.reinitialize_stream_table('one');
UPDATE t SET x = 0 WHERE g = 1;
REFRESH FULL;


-- F10 a diamond: two arms of one table joined again
CREATE TABLE t (id int PRIMARY KEY, g int, x int);
INSERT INTO t SELECT n, n % 3, n FROM generate_series(1, 9) AS n;
STREAM low AS SELECT g, min(x) AS m FROM t GROUP BY g;
STREAM high AS SELECT g, max(x) AS m FROM t GROUP BY g;
STREAM span AS SELECT low.g, high.m - low.m AS span FROM low JOIN high ON low.g = high.g;
UPDATE t SET x = -x WHERE id IN (1, 2, 9);
REFRESH;
INSERT INTO t VALUES (20, 7, 1), (21, 7, 5);
DELETE FROM t WHERE g = 0;
REFRESH;

-- E8 F18 a new query reads another column and another table, both of which have changed meanwhile
CREATE TABLE t (id int PRIMARY KEY, a int, b int);
CREATE TABLE u (id int PRIMARY KEY, c int);
INSERT INTO t VALUES (1, 1, 10), (2, 2, 20);
INSERT INTO u VALUES (1, 5);
STREAM st AS SELECT id, a FROM t;
STREAM other AS SELECT id, c FROM u;
UPDATE t SET a = 7, b = 11 WHERE id = 1;
INSERT INTO u VALUES (2, 6);
ALTER STREAM st AS SELECT t.id, t.b, u.c FROM t JOIN u ON t.id = u.id;
UPDATE t SET b = 12 WHERE id = 1;
DELETE FROM u WHERE id = 2;
REFRESH;
ON other: UPDATE u SET c = c + 1;
REFRESH;

-- G9 G10 a view in the query gets another definition, and a column is added
CREATE TABLE t (id int PRIMARY KEY, a int);
INSERT INTO t VALUES (1, 1), (2, 2);
CREATE VIEW v AS SELECT id, a FROM t WHERE a > 1;
STREAM st AS SELECT * FROM v;
INSERT INTO t VALUES (3, 3);
REFRESH;
ALTER TABLE t ADD COLUMN b int DEFAULT 5;
CREATE OR REPLACE VIEW v AS SELECT id, a, b FROM t WHERE a < 3;
UPDATE t SET a = 0 WHERE id = 3;
REFRESH FULL;
INSERT INTO t VALUES (4, 1), (5, 9);
REFRESH;

-- G11 comments, strings and dollar quotes that look like SQL
CREATE TABLE t (id int PRIMARY KEY, s text);
INSERT INTO t VALUES (1, 'SELECT 1 FROM t'), (2, '-- x');
STREAM st AS SELECT id, s /* FROM nowhere -- */ FROM t WHERE s <> 'WHERE x; DROP TABLE t' AND s <> $x$ FROM y $x$;
UPDATE t SET s = 'LIMIT 1' WHERE id = 2;
INSERT INTO t VALUES (3, 'WHERE x; DROP TABLE t'), (4, '%s $1 {}');
REFRESH;

-- G13 the same query twice, and two queries with the same WITH
CREATE TABLE t (id int PRIMARY KEY, g int);
INSERT INTO t SELECT n, n % 2 FROM generate_series(1, 5) AS n;
STREAM a AS WITH w AS (SELECT g, count(*) AS n FROM t GROUP BY g) SELECT g, n FROM w;
STREAM b AS WITH w AS (SELECT g, count(*) AS n FROM t GROUP BY g) SELECT g, n FROM w;
STREAM c AS WITH w AS (SELECT g, max(id) AS n FROM t GROUP BY g) SELECT g, n FROM w WHERE n > 2;
INSERT INTO t VALUES (9, 1);
REFRESH;

-- B15 T18 ORDER BY in a derived table changes nothing, and WITH is read as often as it is named
CREATE TABLE t (id int PRIMARY KEY, g int);
INSERT INTO t SELECT n, n % 3 FROM generate_series(1, 7) AS n;
STREAM st AS WITH w AS (SELECT id, g FROM t WHERE id > 1 ORDER BY id) SELECT x.id, y.id AS y FROM w x JOIN w y ON x.g = y.g ORDER BY 1;
UPDATE t SET g = 0 WHERE id IN (1, 2);
REFRESH;
DELETE FROM t WHERE id = 3;
REFRESH;

-- G9 T14 a label changes, of an enum below a domain, in an array, in a composite of both
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN feeling AS mood;
CREATE TYPE both_of_them AS (f feeling, l mood[]);
CREATE TABLE t (id int PRIMARY KEY, d feeling, a mood[], c both_of_them);
INSERT INTO t VALUES (1, 'sad', '{sad,ok}', ('ok', '{sad}'));
STREAM d AS SELECT id, d::text AS x FROM t;
STREAM a AS SELECT id, a::text AS x FROM t;
STREAM c AS SELECT id, c::text AS x FROM t;
ALTER TYPE mood RENAME VALUE 'sad' TO 'blue';
REFRESH FULL;
INSERT INTO t VALUES (2, 'blue', '{}', NULL);
REFRESH;
