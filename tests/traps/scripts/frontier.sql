-- F1 F2 T11 who began earlier commits later, with others committing in between
CREATE TABLE t (id int PRIMARY KEY, g int);
INSERT INTO t VALUES (1, 1);
STREAM st AS SELECT id, g FROM t;
STREAM n AS SELECT g, count(*) AS n FROM t GROUP BY g;
ON early: BEGIN;
ON early: INSERT INTO t VALUES (2, 2);
INSERT INTO t VALUES (3, 3);
REFRESH;
ON early: INSERT INTO t VALUES (4, 2);
ON late: BEGIN;
ON late: UPDATE t SET g = 9 WHERE id = 3;
REFRESH;
ON early: COMMIT;
INSERT INTO t VALUES (5, 5);
REFRESH;
ON late: COMMIT;
REFRESH;

-- F4 T12 writes and refreshes in one transaction, with savepoints rolled back and others committing in between
CREATE TABLE t (id int PRIMARY KEY, g int);
INSERT INTO t VALUES (1, 1);
STREAM st AS SELECT id, g FROM t;
STREAM n AS SELECT g, count(*) AS n FROM t GROUP BY g;
BEGIN;
INSERT INTO t VALUES (2, 2);
REFRESH;
ON other: INSERT INTO t VALUES (100, 1);
SAVEPOINT s;
UPDATE t SET g = 7;
REFRESH FULL;
ROLLBACK TO s;
ON other: DELETE FROM t WHERE id = 100;
DELETE FROM t WHERE id = 1;
REFRESH FULL;
INSERT INTO t VALUES (3, 3);
COMMIT;
REFRESH FULL;
INSERT INTO t VALUES (4, 4);
REFRESH;

-- F7 F8 D30 recomputed, maintained, recomputed: counters neither doubled nor lost
CREATE TABLE t (id int PRIMARY KEY, g int, x numeric(10, 2));
INSERT INTO t SELECT n, n % 3, n FROM generate_series(1, 9) AS n;
STREAM st AS SELECT g, sum(x) AS s, avg(x) AS a, stddev(x) AS d FROM t GROUP BY g HAVING count(*) > 1;
UPDATE t SET x = x + 1;
SELECT pgtrickle.reinitialize_stream_table('st');
REFRESH FULL;
UPDATE t SET x = x + 1 WHERE g = 1;
REFRESH;
RECOMPUTE;
DELETE FROM t WHERE id < 4;
REFRESH;
RECOMPUTE;

-- F13 F11 on top of one that is recomputed, and on top of that
CREATE TABLE t (id int PRIMARY KEY, x int);
INSERT INTO t SELECT n, n FROM generate_series(1, 5) AS n;
STREAM FULL a AS SELECT id, x FROM t;
STREAM b AS SELECT x % 2 AS odd, count(*) AS n FROM a GROUP BY x % 2;
STREAM c AS SELECT n FROM b WHERE odd = 1;
UPDATE t SET x = x + 1 WHERE id = 1;
REFRESH;
REFRESH;
DELETE FROM t WHERE x % 2 = 1;
INSERT INTO t VALUES (9, 9);
REFRESH;

-- F19 a refresh that is cancelled half-way leaves nothing half-done
CREATE TABLE t (id int PRIMARY KEY, g int, x int);
INSERT INTO t SELECT n, n % 3, n FROM generate_series(1, 9) AS n;
CREATE FUNCTION inverse(x int) RETURNS int LANGUAGE sql IMMUTABLE RETURN 100 / x;
STREAM sums AS SELECT g, sum(x) AS s, count(*) AS n FROM t GROUP BY g HAVING count(*) > 0;
STREAM st AS SELECT sums.g, inverse(sums.s::int) AS i FROM sums;
UPDATE t SET x = 0 WHERE g = 1;
REFRESH sums;
FAILS '22012' REFRESH st;
INSERT INTO t VALUES (10, 1, 1);
REFRESH;

-- F21 T12 refreshed twice within savepoints
CREATE TABLE t (id int PRIMARY KEY, g int);
INSERT INTO t VALUES (1, 1);
STREAM n AS SELECT g, count(*) AS n FROM t GROUP BY g HAVING count(*) > 0;
STREAM m AS SELECT n, count(*) AS groups FROM (SELECT g, count(*) AS n FROM t GROUP BY g) AS q GROUP BY n;
BEGIN; SAVEPOINT a; INSERT INTO t VALUES (2, 1);
REFRESH;
SAVEPOINT b; INSERT INTO t VALUES (3, 2);
REFRESH FULL;
ROLLBACK TO b;
REFRESH FULL;
RELEASE a; COMMIT;
REFRESH FULL;

-- F22 in another language of messages
SET lc_messages = 'C';
CREATE TABLE t (id int PRIMARY KEY, g int);
STREAM n AS SELECT g, count(*) AS n FROM t GROUP BY g;
INSERT INTO t VALUES (1, 1);
REFRESH;
UPDATE n SET n = 0;
DELETE FROM t;
REFRESH FULL;

-- F18 E8 a table that has long been captured comes into a query
CREATE TABLE t (id int PRIMARY KEY, a int);
CREATE TABLE u (id int PRIMARY KEY, b int);
INSERT INTO t VALUES (1, 1), (2, 2);
INSERT INTO u VALUES (1, 1);
STREAM st AS SELECT id, a FROM t;
STREAM us AS SELECT id, b FROM u;
INSERT INTO u VALUES (2, 2);
UPDATE t SET a = 5 WHERE id = 2;
ALTER STREAM st AS SELECT t.id, u.b FROM t JOIN u USING (id);
UPDATE u SET b = 7;
REFRESH;
