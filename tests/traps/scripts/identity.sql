-- T8 E17 equal values that aren't the same, in columns, groups and joins
CREATE TABLE t (id int PRIMARY KEY, n numeric, f float8, i interval, j jsonb);
INSERT INTO t VALUES (1, 1.0, 0, '1 day', '{"a": 1.0}'), (2, 1.00, '-0', '24:00', '{"a": 1.00}'), (3, 2, 1, '1 mon', '[]');
STREAM st AS SELECT id, n, f, i, j FROM t;
STREAM bag AS SELECT n, f, i, j FROM t;
STREAM pairs AS SELECT a.id, b.id AS b, a.n, b.i FROM t AS a JOIN t AS b ON a.n = b.n AND a.f = b.f;
STREAM sums AS SELECT id, sum(n) AS n FROM t GROUP BY id;
UPDATE t SET n = 1.00, i = '24:00', f = '-0' WHERE id = 1;
REFRESH;
UPDATE t SET n = 1.000, j = '{"a": 1}' WHERE id IN (1, 2);
REFRESH;
UPDATE t SET i = '30 days', f = 0 WHERE id = 3;
DELETE FROM t WHERE id = 2;
REFRESH;

-- T8 text for which case makes no difference
CREATE EXTENSION citext;
CREATE TABLE t (id int PRIMARY KEY, s citext, x int);
INSERT INTO t VALUES (1, 'abc', 1), (2, 'x', 2);
STREAM st AS SELECT id, s FROM t;
STREAM bag AS SELECT s FROM t;
STREAM g AS SELECT s, sum(x) AS x FROM t GROUP BY s;
STREAM j AS SELECT a.id, b.id AS b, a.s FROM t AS a JOIN t AS b ON a.s = b.s;
UPDATE t SET s = 'X' WHERE id = 1;
REFRESH st bag j;
INSERT INTO t VALUES (3, 'Y', 3);
DELETE FROM t WHERE id = 1;
REFRESH;

-- T9 E2 E23 types that have no equality, or no order
CREATE TABLE t (id int PRIMARY KEY, j json, x txid_snapshot, p point, b jsonb, u uuid, y bytea, a json[], bits bit(3));
INSERT INTO t VALUES (1, '{"a":1}', '10:20:10', '(1,2)', '{"b": 2}', '00000000-0000-0000-0000-000000000001', '\x00', ARRAY['{}'::json], B'101'),
    (2, '{"a": 1}', '10:20:', '(1,2.0)', '{"b": 2.0}', NULL, NULL, '{}', NULL);
STREAM st AS SELECT * FROM t;
STREAM bag AS SELECT j, x, p, b, u, y, a, bits FROM t;
STREAM n AS SELECT b, u, y, count(*) AS n FROM t GROUP BY b, u, y;
UPDATE t SET j = '{"a":  1}', x = '10:20:11', p = '(3,4)' WHERE id = 1;
REFRESH;
INSERT INTO t SELECT 3, j, x, p, b, u, y, a, bits FROM t WHERE id = 2;
REFRESH;
DELETE FROM t WHERE id = 2;
UPDATE t SET a = NULL, y = '\x', u = NULL WHERE id = 1;
REFRESH;

-- T14 composites, enums, arrays, domains, ranges; generated and dropped columns
CREATE TYPE pair AS (a int, b text);
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN small AS int CHECK (VALUE < 100);
CREATE TABLE t (id small PRIMARY KEY, gone int, c pair, m mood, a int[], ms mood[], r int4range, twice int GENERATED ALWAYS AS (d * 2) STORED, d small DEFAULT 3);
ALTER TABLE t DROP COLUMN gone;
INSERT INTO t (id, c, m, a, ms, r) VALUES (1, (1, 'x'), 'sad', '{1,2}', '{sad}', '[1,3)'), (2, (NULL, NULL), NULL, '{}', NULL, 'empty');
STREAM st AS SELECT * FROM t;
STREAM g AS SELECT c, m, a, r, count(*) AS n, sum(d) AS d FROM t GROUP BY c, m, a, r;
STREAM u AS SELECT DISTINCT m, ms FROM t;
UPDATE t SET c = (1, 'y'), m = 'ok', a = a || 3, r = '[1,4)' WHERE id = 1;
INSERT INTO t (id, c, m) VALUES (3, NULL, 'sad');
REFRESH;
ALTER TYPE mood ADD VALUE 'meh' BEFORE 'ok';
UPDATE t SET m = 'meh', ms = '{meh,NULL}' WHERE id = 2;
REFRESH FULL;
UPDATE t SET d = d + 1, id = id + 10;
REFRESH;
