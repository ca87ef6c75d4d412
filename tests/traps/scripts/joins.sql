-- A1 T2 rows that meet in one batch, coming on both sides, are counted once
CREATE TABLE l (id int PRIMARY KEY, k int, x int);
CREATE TABLE r (id int PRIMARY KEY, k int, y int);
INSERT INTO l VALUES (1, 1, 10), (2, NULL, 20);
INSERT INTO r VALUES (1, 1, 5), (2, NULL, 6);
STREAM pairs AS SELECT l.id, r.id AS r, x, y FROM l JOIN r ON l.k = r.k;
STREAM total AS SELECT sum(x * y) AS s, count(*) AS n FROM l JOIN r ON l.k = r.k;
BEGIN;
INSERT INTO l VALUES (3, 3, 1), (4, 1, 2);
INSERT INTO r VALUES (3, 3, 7), (4, 1, 8);
COMMIT;
REFRESH;
UPDATE l SET x = x + 1;
UPDATE r SET y = y + 1;
REFRESH;
UPDATE l SET k = 3 WHERE id = 1;
UPDATE r SET k = 1 WHERE id = 3;
DELETE FROM r WHERE id = 4;
REFRESH;

-- A2 T3 the key moves while the old partner goes, at once and in two steps
CREATE TABLE l (id int PRIMARY KEY, k int);
CREATE TABLE r (id int PRIMARY KEY, k int);
INSERT INTO l SELECT n, n FROM generate_series(1, 6) AS n;
INSERT INTO r SELECT n, n FROM generate_series(1, 6) AS n;
STREAM st AS SELECT l.id, r.id AS r FROM l JOIN r ON l.k = r.k;
DELETE FROM l WHERE id = 1;
DELETE FROM r WHERE id = 1;
UPDATE l SET k = 3 WHERE id = 2;
DELETE FROM r WHERE id = 2;
REFRESH;
UPDATE l SET k = 99 WHERE id = 4;
REFRESH;
DELETE FROM r WHERE id = 4;
REFRESH;
UPDATE l SET k = 5 WHERE id = 4;
UPDATE r SET k = 4 WHERE id = 5;
REFRESH;

-- A3 a chain of six tables, of which two, three and all change at once
CREATE TABLE a (i int, j int); CREATE TABLE b (i int, j int); CREATE TABLE c (i int, j int);
CREATE TABLE d (i int, j int); CREATE TABLE e (i int, j int); CREATE TABLE f (i int, j int);
INSERT INTO a SELECT n, n % 3 FROM generate_series(1, 4) AS n;
INSERT INTO b SELECT n % 3, n % 2 FROM generate_series(1, 4) AS n;
INSERT INTO c SELECT n % 2, n FROM generate_series(1, 4) AS n;
INSERT INTO d SELECT n, n % 2 FROM generate_series(1, 4) AS n;
INSERT INTO e SELECT n % 2, n % 3 FROM generate_series(1, 4) AS n;
INSERT INTO f SELECT n % 3, n FROM generate_series(1, 4) AS n;
STREAM st AS SELECT a.i, c.j, f.j AS z FROM a JOIN b ON a.j = b.i JOIN c ON b.j = c.i JOIN d ON c.j = d.i JOIN e ON d.j = e.i JOIN f ON e.j = f.i;
DELETE FROM a WHERE i = 1;
DELETE FROM f WHERE j = 1;
REFRESH;
DELETE FROM b WHERE j = 0;
UPDATE d SET j = 1 - j;
INSERT INTO e VALUES (1, 1), (1, 1);
REFRESH;
INSERT INTO a VALUES (9, 1); INSERT INTO b VALUES (1, 1), (1, 0); UPDATE c SET i = 1 WHERE j = 2;
DELETE FROM d WHERE i = 3; UPDATE e SET j = NULL WHERE i = 0; DELETE FROM f WHERE i = 0;
REFRESH;

-- A4 A5 A6 pairs come through one side and go through the other; the keys aren't shown, many pairs look the same
CREATE TABLE l (id int PRIMARY KEY, k int, x int);
CREATE TABLE r (id int PRIMARY KEY, k int, y int);
INSERT INTO r SELECT n, n % 4, n % 2 FROM generate_series(1, 40) AS n;
STREAM looks AS SELECT l.x, r.y FROM l JOIN r ON l.k = r.k;
STREAM keyed AS SELECT l.id, r.id AS rid, l.x, r.y FROM l JOIN r ON l.k = r.k;
INSERT INTO l SELECT n, n % 4, n % 2 FROM generate_series(1, 40) AS n;
REFRESH;
DELETE FROM r WHERE id <= 10;
REFRESH;
UPDATE l SET x = 1 - x WHERE id > 5;
UPDATE r SET y = 1 - y WHERE id < 35;
REFRESH;
INSERT INTO r SELECT n, n % 4, n % 2 FROM generate_series(1, 10) AS n;
DELETE FROM l WHERE id % 3 = 0;
REFRESH;

-- A9 only a value of a partner changes
CREATE TABLE l (id int PRIMARY KEY, k int);
CREATE TABLE r (k int PRIMARY KEY, name text);
INSERT INTO l VALUES (1, 1), (2, 1), (3, 2);
INSERT INTO r VALUES (1, 'one'), (2, 'two');
STREAM st AS SELECT l.id, r.name FROM l JOIN r USING (k);
UPDATE r SET name = upper(name);
REFRESH;
UPDATE r SET name = NULL WHERE k = 1;
REFRESH;

-- A10 conditions with swapped sides, expressions of both, ranges, constants and none
CREATE TABLE l (id int PRIMARY KEY, a int);
CREATE TABLE r (id int PRIMARY KEY, b int);
INSERT INTO l SELECT n, n % 3 FROM generate_series(1, 5) AS n;
INSERT INTO r SELECT n, n % 3 FROM generate_series(1, 5) AS n;
STREAM swapped AS SELECT l.id, r.b FROM l JOIN r ON r.id = l.id;
STREAM mixed AS SELECT l.id, r.id AS r FROM l JOIN r ON l.a + r.b = 3;
STREAM range AS SELECT l.id, r.id AS r FROM l JOIN r ON r.b BETWEEN l.a AND l.a + 1;
STREAM fixed AS SELECT l.id, r.id AS r FROM l JOIN r ON r.b = 1 AND l.a > 0;
STREAM crossed AS SELECT l.id, r.id AS r FROM l CROSS JOIN r;
UPDATE l SET a = a + 1 WHERE id % 2 = 0;
UPDATE r SET b = 3 - b WHERE id % 2 = 1;
REFRESH;
DELETE FROM l WHERE id = 2;
INSERT INTO r VALUES (9, 1), (10, NULL);
REFRESH;

-- A11 T2 one table many times, once in two derived tables that call it the same
CREATE TABLE t (id int PRIMARY KEY, boss int, x int);
INSERT INTO t SELECT n, n / 2, n % 3 FROM generate_series(1, 9) AS n;
STREAM same AS SELECT p.id, q.id AS q FROM (SELECT s.id, s.x FROM t AS s WHERE s.x > 0) AS p JOIN (SELECT s.id, s.x FROM t AS s WHERE s.x < 2) AS q ON p.x = q.x;
STREAM three AS SELECT a.id, b.id AS b, c.id AS c FROM t AS a JOIN t AS b ON b.id = a.boss JOIN t AS c ON c.id = b.boss;
UPDATE t SET x = (x + 1) % 3, boss = boss + 1 WHERE id IN (1, 2, 5, 8);
REFRESH;
DELETE FROM t WHERE id IN (1, 4);
INSERT INTO t VALUES (10, 10, 1), (11, 10, 1);
REFRESH;

-- A14 F10 a stream table joined with the table that it is made of
CREATE TABLE t (id int PRIMARY KEY, g int, x int);
INSERT INTO t SELECT n, n % 3, n FROM generate_series(1, 9) AS n;
STREAM sums AS SELECT g, sum(x) AS s FROM t GROUP BY g;
STREAM share AS SELECT t.id, t.x, sums.s FROM t JOIN sums USING (g);
UPDATE t SET x = x * 2, g = (g + 1) % 3 WHERE id < 4;
REFRESH;
UPDATE t SET x = x + 1 WHERE id = 9;
REFRESH sums;
UPDATE t SET x = x + 1 WHERE id = 8;
DELETE FROM t WHERE g = 0;
REFRESH share;
REFRESH;

-- A7 A16 E1 T6 rows without a key: one copy of three goes, while the other side changes
CREATE TABLE l (k int, x int);
CREATE TABLE r (k int, y int);
INSERT INTO l VALUES (1, 1), (1, 1), (1, 1), (2, 2), (NULL, 1), (NULL, 1);
INSERT INTO r VALUES (1, 1), (1, 1), (2, 1);
STREAM st AS SELECT l.k, l.x, r.y FROM l JOIN r ON l.k = r.k;
STREAM shown AS SELECT y FROM l JOIN r ON l.k = r.k;
DELETE FROM l WHERE ctid = (SELECT min(ctid) FROM l WHERE k = 1);
INSERT INTO r VALUES (1, 1), (1, 2);
REFRESH;
UPDATE l SET x = 5 WHERE ctid = (SELECT min(ctid) FROM l WHERE k = 1);
DELETE FROM r WHERE ctid = (SELECT min(ctid) FROM r WHERE k = 1);
REFRESH;
DELETE FROM l;
INSERT INTO l VALUES (1, 1), (1, 1);
REFRESH;

-- A17 a condition on top of a join inside a derived table, joined on
CREATE TABLE a (id int PRIMARY KEY, x int);
CREATE TABLE b (id int PRIMARY KEY, y int);
CREATE TABLE c (id int PRIMARY KEY, z int);
INSERT INTO a SELECT n, n % 4 FROM generate_series(1, 8) AS n;
INSERT INTO b SELECT n, n % 3 FROM generate_series(1, 8) AS n;
INSERT INTO c SELECT n, n % 2 FROM generate_series(1, 8) AS n;
STREAM st AS SELECT q.id, q.x, c.z FROM (SELECT a.id, a.x, b.y FROM a JOIN b ON a.id = b.id WHERE a.x > b.y) AS q JOIN c ON q.y = c.id;
UPDATE a SET x = 3 - x;
UPDATE c SET z = z + 1;
REFRESH;
UPDATE b SET y = y + 1 WHERE id < 5;
DELETE FROM c WHERE id = 2;
UPDATE a SET x = 9 WHERE id = 8;
REFRESH;

-- B16 T14 names that are words of SQL, or look like nothing
CREATE TABLE "select" ("join" int PRIMARY KEY, "Weird ""Name" text, "größe" int, "from" int);
CREATE TABLE "where" ("order" int PRIMARY KEY, "__w" int, "l.k" int);
INSERT INTO "select" VALUES (1, 'a', 1, 1), (2, 'b', 2, 1);
INSERT INTO "where" VALUES (1, 7, 1), (2, 8, 2);
STREAM st AS SELECT "join"."Weird ""Name" AS "group", "on"."l.k" AS "Zeile.1", sum("join"."größe") AS "a_name_that_is_as_long_as_names_may_be_in_postgresql_sixty_three" FROM "select" AS "join" JOIN "where" AS "on" ON "join"."from" = "on"."order" GROUP BY 1, 2;
UPDATE "select" SET "größe" = 5, "from" = 2 WHERE "join" = 1;
INSERT INTO "where" VALUES (3, 3, 3);
REFRESH;
DELETE FROM "where" WHERE "order" = 1;
REFRESH;
