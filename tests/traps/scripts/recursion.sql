-- G1 an edge goes, and another path is left; then a cycle that nothing reaches any more
CREATE TABLE e (a int, b int);
INSERT INTO e VALUES (1, 2), (2, 3), (1, 3), (3, 4);
STREAM st AS WITH RECURSIVE r AS (SELECT a, b FROM e UNION SELECT r.a, e.b FROM r JOIN e ON e.a = r.b) SELECT a, b FROM r;
DELETE FROM e WHERE a = 2;
REFRESH;
INSERT INTO e VALUES (4, 1), (10, 11), (11, 12), (12, 11);
REFRESH;
DELETE FROM e WHERE a = 10;
REFRESH;
DELETE FROM e WHERE a = 4;
REFRESH;

-- G2 G3 in one batch an edge goes and one comes; edges that only the recursive term reads
CREATE TABLE roots (id int PRIMARY KEY);
CREATE TABLE e (a int, b int);
INSERT INTO roots VALUES (1);
INSERT INTO e VALUES (1, 2), (2, 3);
STREAM st AS WITH RECURSIVE r (id, depth) AS (SELECT id, 0 FROM roots UNION ALL SELECT e.b, r.depth + 1 FROM r JOIN e ON e.a = r.id WHERE r.depth < 9)
    SELECT r.depth, count(*) AS n FROM r GROUP BY r.depth;
STREAM joined AS WITH RECURSIVE r AS (SELECT id FROM roots UNION SELECT e.b FROM r, e WHERE e.a = r.id) SELECT r.id, x.id AS root FROM r LEFT JOIN roots AS x ON x.id = r.id;
DELETE FROM e WHERE a = 1;
INSERT INTO e VALUES (2, 4);
REFRESH;
INSERT INTO e VALUES (1, 4), (4, 5);
DELETE FROM e WHERE b = 3;
REFRESH;
DELETE FROM roots;
REFRESH;

-- G4 an aggregate, EXCEPT and NOT EXISTS inside the recursive term
CREATE TABLE e (a int, b int);
INSERT INTO e VALUES (1, 2), (2, 3), (3, 1), (3, 9);
STREAM st AS WITH RECURSIVE r AS (SELECT 1 AS id UNION SELECT s.b FROM r CROSS JOIN LATERAL (SELECT e.b FROM e WHERE e.a = r.id EXCEPT SELECT 9) AS s) SELECT id FROM r;
STREAM no AS WITH RECURSIVE r AS (SELECT 1 AS id UNION SELECT e.b FROM r JOIN e ON e.a = r.id WHERE NOT EXISTS (SELECT FROM e AS x WHERE x.a = e.b AND x.b = 9)) SELECT id FROM r;
DELETE FROM e WHERE b = 9;
REFRESH;
INSERT INTO e VALUES (2, 9);
REFRESH;

-- G5 SEARCH and CYCLE
CREATE TABLE e (a int, b int);
INSERT INTO e VALUES (1, 2), (2, 3), (3, 1);
STREAM deep AS WITH RECURSIVE r AS (SELECT a, b FROM e WHERE a = 1 UNION ALL SELECT e.a, e.b FROM r JOIN e ON e.a = r.b) CYCLE a SET again USING path
    SELECT a, b, again, path::text AS path FROM r;
STREAM found AS WITH RECURSIVE r (x, y) AS (SELECT a, b FROM e WHERE a = 1 UNION ALL SELECT e.a, e.b FROM r JOIN e ON e.a = r.y WHERE e.b > r.y) SEARCH BREADTH FIRST BY x SET place
    SELECT x, y, place::text AS place FROM r;
DELETE FROM e WHERE a = 3;
REFRESH;
INSERT INTO e VALUES (3, 4), (3, 5);
REFRESH;

-- G6 a chain of 150
CREATE TABLE e (a int PRIMARY KEY, b int);
INSERT INTO e SELECT i, i + 1 FROM generate_series(1, 150) AS i;
STREAM st AS WITH RECURSIVE r AS (SELECT 1 AS id UNION SELECT e.b FROM r JOIN e ON e.a = r.id) SELECT count(*) AS n, max(id) AS last FROM r;
DELETE FROM e WHERE a = 100;
REFRESH;
INSERT INTO e VALUES (100, 120);
REFRESH;

-- G7 two paths to a node count twice
CREATE TABLE e (a int, b int);
INSERT INTO e VALUES (1, 2), (1, 3), (2, 4), (3, 4);
STREAM st AS WITH RECURSIVE r AS (SELECT 1 AS id UNION ALL SELECT e.b FROM r JOIN e ON e.a = r.id) SELECT id FROM r;
DELETE FROM e WHERE b = 2;
REFRESH;
INSERT INTO e VALUES (1, 3);
REFRESH;

-- T18 what has no rule is a part of a query that has: recomputed on its own, when its own tables change
CREATE TABLE a (id int PRIMARY KEY, x int);
CREATE TABLE b (id int PRIMARY KEY, x int);
INSERT INTO a VALUES (1, 1), (2, 2), (3, 2);
INSERT INTO b VALUES (1, 10), (2, 20);
STREAM st AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < (SELECT max(x) FROM a)), w AS (SELECT i, i * 10 AS x FROM n)
    SELECT b.id, w.i, count(*) AS c FROM b JOIN w ON w.x = b.x GROUP BY b.id, w.i;
UPDATE b SET x = 30 WHERE id = 1;
REFRESH;
INSERT INTO a VALUES (4, 3);
REFRESH;
DELETE FROM a;
REFRESH;
