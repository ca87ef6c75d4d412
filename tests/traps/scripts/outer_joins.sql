-- B1 every change of a key's rows on either side of a full join, and of both sides at once
CREATE TABLE l (id int PRIMARY KEY, k int, x int);
CREATE TABLE r (id int PRIMARY KEY, k int, y int);
INSERT INTO l SELECT n, n, n FROM generate_series(1, 20) AS n WHERE n NOT IN (1, 2, 3);
INSERT INTO r SELECT n, n, n * 10 FROM generate_series(1, 20) AS n WHERE n NOT IN (1, 4, 5);
STREAM pairs AS SELECT l.id AS l, r.id AS r, l.x, r.y FROM l FULL JOIN r ON l.k = r.k;
STREAM merged AS SELECT k, sum(l.x) AS x, sum(r.y) AS y, count(*) AS n FROM l FULL JOIN r USING (k) GROUP BY k;
-- come and go: 1 both come, 2 left comes, 4 right comes; 6 left goes, 7 right goes, 8 both go.
INSERT INTO l VALUES (1, 1, 1), (2, 2, 2);
INSERT INTO r VALUES (1, 1, 10), (4, 4, 40);
DELETE FROM l WHERE id IN (6, 8);
DELETE FROM r WHERE id IN (7, 8);
-- updates: 9 left, 10 right, 11 both; with the other side going (12, 13) and coming (3, 5).
UPDATE l SET x = -x WHERE id IN (9, 11, 12, 5);
UPDATE r SET y = -y WHERE id IN (10, 11, 13, 3);
DELETE FROM r WHERE id = 12;
DELETE FROM l WHERE id = 13;
INSERT INTO l VALUES (3, 3, 3);
INSERT INTO r VALUES (5, 5, 50);
REFRESH;
-- keys move: to a free one, to each other's, to NULL.
UPDATE l SET k = k + 1 WHERE id IN (14, 15);
UPDATE r SET k = CASE k WHEN 16 THEN 17 WHEN 17 THEN 16 END WHERE id IN (16, 17, 18);
REFRESH;
UPDATE l SET k = NULL WHERE id > 15;
UPDATE r SET k = NULL WHERE id > 15;
REFRESH;
DELETE FROM l;
REFRESH;
DELETE FROM r;
REFRESH;

-- B2 a sum over a full join is NULL when nothing is left to sum, not 0
CREATE TABLE l (k int, x int);
CREATE TABLE r (k int, y numeric(8, 2));
INSERT INTO l VALUES (1, 1), (2, 2);
INSERT INTO r VALUES (1, 10), (3, 30);
STREAM st AS SELECT coalesce(l.k, r.k) AS k, sum(l.x) AS x, sum(r.y) AS y, avg(r.y) AS a, count(r.y) AS n FROM l FULL JOIN r ON l.k = r.k GROUP BY coalesce(l.k, r.k);
DELETE FROM r WHERE k = 1;
INSERT INTO r VALUES (2, 20);
REFRESH;
DELETE FROM l WHERE k = 2;
UPDATE r SET y = NULL;
REFRESH;

-- B6 two partners of one row come, and go, in one batch
CREATE TABLE l (k int, x text);
CREATE TABLE r (k int, y text);
INSERT INTO l VALUES (1, 'a'), (1, 'a'), (2, 'b');
STREAM st AS SELECT l.k, l.x, r.y FROM l LEFT JOIN r ON l.k = r.k;
INSERT INTO r VALUES (1, 'p'), (1, 'q'), (1, 'q');
REFRESH;
DELETE FROM r WHERE y = 'q';
INSERT INTO r VALUES (2, 's');
REFRESH;
DELETE FROM r;
REFRESH;
INSERT INTO r VALUES (1, 'p'), (1, 'p');
DELETE FROM r;
INSERT INTO r VALUES (2, 't');
REFRESH;

-- B7 a row changes while its last partner goes
CREATE TABLE dept (id int PRIMARY KEY, name text);
CREATE TABLE emp (id int PRIMARY KEY, dept int, name text);
INSERT INTO dept VALUES (1, 'one'), (2, 'two');
INSERT INTO emp VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 2, 'c');
STREAM st AS SELECT d.name AS dept, e.name AS emp FROM dept d LEFT JOIN emp e ON e.dept = d.id;
STREAM counted AS SELECT d.name, count(e.id) AS n FROM dept d LEFT JOIN emp e ON e.dept = d.id GROUP BY d.name;
UPDATE dept SET name = 'uno' WHERE id = 1;
DELETE FROM emp WHERE id = 1;
REFRESH;
UPDATE dept SET name = 'dos' WHERE id = 2;
UPDATE emp SET dept = 1;
REFRESH;

-- B16 names that SQL itself uses
CREATE TABLE "join" (id int PRIMARY KEY, "select" int, "Weird ""Name" text);
CREATE TABLE "left" (id int PRIMARY KEY, "select" int, "from" text);
INSERT INTO "join" VALUES (1, 1, 'a'), (2, 2, 'b');
INSERT INTO "left" VALUES (1, 1, 'x');
STREAM st AS SELECT "outer".id, "outer"."Weird ""Name", "inner"."from" FROM "join" AS "outer" LEFT JOIN "left" AS "inner" USING ("select");
INSERT INTO "left" VALUES (2, 2, 'y');
DELETE FROM "left" WHERE id = 1;
REFRESH;

-- B7 B6 outer joins on outer joins, on ranges, on nothing, with aggregates on either side
CREATE TABLE a (id int PRIMARY KEY, k int);
CREATE TABLE b (id int PRIMARY KEY, k int, n int);
CREATE TABLE c (k int, z text);
INSERT INTO a SELECT i, i % 4 FROM generate_series(1, 8) AS i;
INSERT INTO b SELECT i, i % 5, i FROM generate_series(1, 6) AS i;
INSERT INTO c VALUES (1, 'x'), (2, 'y'), (2, 'y'), (NULL, 'n');
STREAM chain AS SELECT a.id, b.n, c.z FROM a LEFT JOIN b ON a.k = b.k LEFT JOIN c ON c.k = b.n;
STREAM inside AS SELECT a.id, b.n, c.z FROM a LEFT JOIN (b LEFT JOIN c ON c.k = b.n) ON a.k = b.k;
STREAM full_left AS SELECT a.id, b.n, c.z FROM a FULL JOIN b ON a.k = b.k LEFT JOIN c ON c.k = b.n AND a.id IS NOT NULL;
STREAM ranges AS SELECT a.id, b.id AS b FROM a LEFT JOIN b ON a.k < b.k AND b.n > 2;
STREAM always AS SELECT a.id, c.z FROM a LEFT JOIN c ON true;
STREAM flagged AS SELECT a.id, b.n FROM a LEFT JOIN b ON a.k = b.k AND a.id > 3;
STREAM missing AS SELECT a.id FROM a LEFT JOIN b ON a.k = b.k WHERE b.id IS NULL;
STREAM summed AS SELECT a.id, s.n FROM a LEFT JOIN (SELECT k, sum(n) AS n FROM b GROUP BY k) AS s ON s.k = a.k;
DELETE FROM b WHERE k = 1;
INSERT INTO c VALUES (3, 'z');
UPDATE a SET k = k + 1 WHERE id < 4;
REFRESH;
DELETE FROM c;
UPDATE b SET k = 1, n = 1;
REFRESH;
DELETE FROM b;
INSERT INTO c VALUES (9, 'w');
REFRESH;
INSERT INTO b VALUES (1, 3, 9), (2, 3, NULL);
DELETE FROM a WHERE id = 1;
REFRESH;

-- T4 the last partner goes, or the first comes, while the row on the other side changes
CREATE TABLE l (id int PRIMARY KEY, k int, x int);
CREATE TABLE r (id int PRIMARY KEY, k int, y int);
INSERT INTO l VALUES (1, 1, 1), (2, 2, 2), (3, NULL, 3);
INSERT INTO r VALUES (1, 1, 10), (2, 9, 20);
STREAM padded AS SELECT l.id, l.x, r.id AS r, r.y FROM l LEFT JOIN r ON l.k = r.k;
STREAM mirrored AS SELECT l.id, l.x, r.id AS r, r.y FROM l RIGHT JOIN r ON l.k = r.k;
STREAM every AS SELECT l.id, l.x, r.id AS r, r.y FROM l FULL JOIN r ON l.k = r.k;
DELETE FROM r WHERE id = 1;
UPDATE l SET x = 11 WHERE id = 1;
INSERT INTO r VALUES (3, 2, 30);
UPDATE l SET x = 12 WHERE id = 2;
REFRESH;
DELETE FROM l WHERE id = 2;
INSERT INTO r VALUES (4, 1, 40), (5, 1, 50);
REFRESH;
UPDATE l SET k = 9, x = 0 WHERE id = 1;
DELETE FROM r WHERE id = 4;
REFRESH;

-- A13 an insert takes the padded row away
CREATE TABLE l (id int PRIMARY KEY);
CREATE TABLE r (id int PRIMARY KEY, l int);
INSERT INTO l VALUES (1), (2);
STREAM st AS SELECT l.id, r.id AS r FROM l LEFT JOIN r ON r.l = l.id;
STREAM n AS SELECT count(*) AS n, count(r.id) AS c FROM l LEFT JOIN r ON r.l = l.id;
INSERT INTO r VALUES (1, 1);
REFRESH;
INSERT INTO r VALUES (2, 1), (3, 2), (4, 7);
REFRESH;

-- A15 groups by the merged column of a FULL JOIN
CREATE TABLE l (k int, x int);
CREATE TABLE r (k int, y int);
INSERT INTO l VALUES (1, 1), (2, 2);
INSERT INTO r VALUES (2, 20), (3, 30);
STREAM st AS SELECT k, sum(x) AS x, sum(y) AS y FROM l FULL JOIN r USING (k) GROUP BY k;
DELETE FROM l WHERE k = 2;
INSERT INTO l VALUES (3, 3);
REFRESH;
DELETE FROM r;
INSERT INTO r VALUES (1, NULL), (4, 4);
REFRESH;
