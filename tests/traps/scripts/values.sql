-- B12 B13 VALUES in a subquery: made of an outer row's columns, and of tables that nobody would watch
CREATE TABLE o (id int PRIMARY KEY, a int, b int);
CREATE TABLE l (a int, b int);
INSERT INTO o VALUES (1, 1, 1), (2, 1, 2), (3, 2, NULL), (4, NULL, 3);
INSERT INTO l VALUES (1, 1), (1, 2), (2, 3), (3, 3);
STREAM greatest_of AS SELECT o.id, (SELECT max(v.x) FROM (VALUES (o.a), (o.b)) AS v(x)) AS x FROM o;
STREAM first_of AS SELECT o.id, (SELECT v.x FROM (VALUES (o.a), (o.b), (0)) AS v(x) ORDER BY v.x DESC NULLS LAST LIMIT 1) AS x FROM o;
STREAM joined AS SELECT o.id FROM o WHERE EXISTS (SELECT FROM (VALUES (o.a), (o.b)) AS v(x) JOIN l ON l.b = v.x);
STREAM beside AS SELECT o.id, q.x, q.b FROM o, LATERAL (SELECT v.x, l.b FROM (VALUES (o.a), (o.b)) AS v(x) LEFT JOIN l ON l.a = v.x) AS q;
STREAM rows AS SELECT o.id FROM o WHERE (o.a, o.b) IN (VALUES (1, 1), (o.b, 3));
STREAM twice AS SELECT o.id, (WITH v(x) AS (VALUES (o.a), (o.b)) SELECT count(*) FROM v JOIN v AS w ON v.x = w.x) AS n FROM o;
STREAM of_table AS SELECT v.x FROM (VALUES ((SELECT max(l.b) FROM l)), (1)) AS v(x);
STREAM for_each AS SELECT o.id, (SELECT sum(v.x) FROM (VALUES ((SELECT max(l.b) FROM l WHERE l.a = o.a)), (o.b)) AS v(x)) AS x FROM o;
UPDATE o SET a = b WHERE id < 3;
UPDATE l SET b = 7 WHERE b = 3;
REFRESH;
DELETE FROM l WHERE b = 7;
INSERT INTO o VALUES (9, 1, 1), (10, NULL, NULL);
REFRESH;
DELETE FROM o WHERE id IN (1, 3);
REFRESH;

-- B12 aggregates of the query around, where a subquery compares, joins, adds and counts by them
CREATE TABLE o (id int PRIMARY KEY, a int, b int);
CREATE TABLE l (a int, b int);
INSERT INTO o VALUES (1, 1, 1), (2, 1, 2), (3, 2, NULL), (4, NULL, 3);
INSERT INTO l VALUES (1, 1), (1, 2), (2, 3), (0, 9);
STREAM compared AS SELECT o.a, (SELECT max(l.b) FROM l WHERE l.a = count(o.b)) AS x FROM o GROUP BY o.a;
STREAM joined AS SELECT o.a, (SELECT max(l.b) FROM l JOIN l AS m ON m.a = l.a AND m.a = count(o.b)) AS x FROM o GROUP BY o.a;
STREAM found AS SELECT o.a FROM o GROUP BY o.a HAVING EXISTS (SELECT FROM l WHERE l.a = count(o.b));
STREAM added AS SELECT o.a, (SELECT sum(l.b + count(o.b)) FROM l) AS x FROM o GROUP BY o.a;
STREAM counted AS SELECT o.a, (SELECT count(*) FROM generate_series(1, count(o.b)) AS g) AS x FROM o GROUP BY o.a;
STREAM listed AS SELECT o.a, (SELECT v.x FROM (VALUES (count(o.b))) AS v(x)) AS x FROM o GROUP BY o.a;
INSERT INTO o VALUES (7, 3, 1), (8, 3, 2);
REFRESH;
DELETE FROM o WHERE id = 1;
UPDATE l SET b = b + 1;
REFRESH;
