-- D21 DISTINCT ON, in a derived table, a WITH query and a view
CREATE TABLE t (id int PRIMARY KEY, g int, x int);
INSERT INTO t SELECT i, i % 3, i * 7 % 5 FROM generate_series(1, 9) AS i;
INSERT INTO t VALUES (20, NULL, 1), (21, NULL, 2);
CREATE VIEW v AS SELECT DISTINCT ON (g) g, id, x FROM t ORDER BY g, x DESC NULLS LAST, id;
STREAM st AS SELECT DISTINCT ON (g) g, id, x FROM t ORDER BY g, x, id;
STREAM hidden AS SELECT DISTINCT ON (g) id FROM t ORDER BY g, x, id DESC;
STREAM derived AS SELECT q.x, count(*) AS n FROM (SELECT DISTINCT ON (g) g, x FROM t ORDER BY g, x) AS q GROUP BY q.x;
STREAM common AS WITH w AS (SELECT DISTINCT ON (g, x) * FROM t ORDER BY g, x, id) SELECT a.id, b.id AS other FROM w AS a JOIN w AS b ON a.x = b.g;
STREAM viewed AS SELECT v.id, t.x FROM v JOIN t ON t.id = v.id WHERE v.g IS NOT NULL;
DELETE FROM t WHERE id IN (SELECT id FROM hidden);
REFRESH;
UPDATE t SET x = -1 WHERE id = 9;
UPDATE t SET g = 5 WHERE id = 8;
REFRESH;
TRUNCATE t;
REFRESH FULL;
INSERT INTO t VALUES (1, NULL, NULL), (2, NULL, 1);
REFRESH;

-- B15 the first rows: what leaves, what enters, what changes places
CREATE TABLE t (id int PRIMARY KEY, x int, note text);
INSERT INTO t SELECT i, i * 7 % 11, 'n' || i FROM generate_series(1, 11) AS i;
STREAM top AS SELECT id, x FROM t ORDER BY x DESC, id LIMIT 3;
STREAM page AS SELECT id, x FROM t ORDER BY x DESC, id LIMIT 3 OFFSET 2;
STREAM rest AS SELECT id, x FROM t ORDER BY x, id OFFSET 4;
STREAM tied AS SELECT x / 3 AS y FROM t ORDER BY 1 FETCH FIRST 2 ROWS WITH TIES;
STREAM unshown AS SELECT note FROM t ORDER BY x NULLS FIRST, id LIMIT 1 + 2;
STREAM everything AS SELECT id FROM t ORDER BY id LIMIT ALL;
STREAM none AS SELECT id FROM t ORDER BY id LIMIT 0;
STREAM inside AS SELECT q.x, t.note FROM (SELECT x, count(*) AS n FROM t GROUP BY x ORDER BY n DESC, x LIMIT 2) AS q JOIN t ON t.x = q.x;
STREAM of_union AS SELECT id FROM t UNION SELECT x FROM t ORDER BY 1 DESC LIMIT 4;
DELETE FROM t WHERE id IN (SELECT id FROM top LIMIT 1);
REFRESH;
INSERT INTO t VALUES (20, 100, 'new'), (21, NULL, 'null'), (22, -5, 'low');
REFRESH;
UPDATE t SET x = -100 WHERE id = 20;
UPDATE t SET note = 'changed' WHERE id = 22;
REFRESH;
INSERT INTO t VALUES (30, 101, 'a');
DELETE FROM t WHERE id = 30;
REFRESH;
DELETE FROM t WHERE x > 5;
REFRESH;
TRUNCATE t;
REFRESH FULL;
INSERT INTO t VALUES (1, 1, 'back');
REFRESH;

-- B15 first rows with duplicates and no key, in the order of their collation
CREATE TABLE t (name text COLLATE "C", x numeric);
INSERT INTO t VALUES ('b', 1), ('B', 1.0), ('a', 1.00), ('a', 1.00), ('A', NULL), (NULL, 2);
STREAM st AS SELECT name, x FROM t ORDER BY name LIMIT 3;
STREAM other AS SELECT name FROM t ORDER BY lower(name) COLLATE "POSIX" DESC, name LIMIT 3;
INSERT INTO t VALUES ('Z', 0), ('aa', 5);
REFRESH;
DELETE FROM t WHERE ctid = (SELECT ctid FROM t WHERE name = 'a' LIMIT 1);
REFRESH;
DELETE FROM t WHERE name = 'B';
REFRESH;

-- B15 LIMIT without ORDER BY isn't decided by the rows
CREATE TABLE t (id int PRIMARY KEY);
FAILS '0A000' STREAM st AS SELECT id FROM t LIMIT 1;
FAILS '0A000' STREAM st AS SELECT q.id FROM (SELECT id FROM t OFFSET 1) AS q;
STREAM st AS SELECT count(*) AS n FROM t LIMIT 1;
INSERT INTO t VALUES (1);
REFRESH;
