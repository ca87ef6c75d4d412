-- D1 D31 groups that HAVING hides grow, and appear with all they have
CREATE TABLE t (id int PRIMARY KEY, g int, x numeric);
INSERT INTO t SELECT n, n % 3, n FROM generate_series(1, 6) AS n;
STREAM counted AS SELECT g, sum(x) AS s, count(*) AS n FROM t GROUP BY g HAVING count(*) > 3;
STREAM meant AS SELECT g, avg(x) AS a FROM t GROUP BY g HAVING avg(x) > 4 AND min(x) < 4;
STREAM spread AS SELECT g, stddev(x) AS d, max(x) AS m FROM t GROUP BY g HAVING stddev(x) > 2 OR max(x) IS NULL;
INSERT INTO t VALUES (10, 1, 10);
REFRESH;
INSERT INTO t VALUES (11, 1, 11), (12, 2, 12), (13, 7, NULL);
REFRESH;
DELETE FROM t WHERE id IN (1, 12);
REFRESH;
UPDATE t SET g = 1 WHERE g = 2;
REFRESH;

-- D2 D3 extremes leave, with and without ties, and some that come and go between refreshes
CREATE TABLE t (id int PRIMARY KEY, g int, x int);
INSERT INTO t SELECT n, n % 2, n / 2 FROM generate_series(1, 10) AS n;
STREAM st AS SELECT g, min(x) AS low, max(x) AS high, min(id) FILTER (WHERE x > 1) AS first FROM t GROUP BY g;
DELETE FROM t WHERE x = (SELECT min(x) FROM t);
REFRESH;
INSERT INTO t VALUES (20, 0, -5), (21, 1, 99);
DELETE FROM t WHERE id IN (20, 21);
REFRESH;
INSERT INTO t VALUES (22, 0, 1), (23, 0, 1);
REFRESH;
DELETE FROM t WHERE id = 22;
REFRESH;
INSERT INTO t VALUES (24, 0, -7);
DELETE FROM t WHERE id = 23;
UPDATE t SET x = NULL WHERE g = 1;
REFRESH;
UPDATE t SET x = 3 WHERE id = 3;
REFRESH;

-- D4 D5 D26 sums don't drift: means that don't end, CASE over columns that are in nothing else, changes that leave the spread alone
CREATE TABLE t (id int PRIMARY KEY, g int, x numeric(12, 4), kind text);
INSERT INTO t SELECT n, n % 2, n / 3.0, CASE WHEN n % 3 = 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 30) AS n;
STREAM st AS SELECT g, avg(x) AS mean, sum(CASE WHEN kind = 'a' THEN 1 ELSE 0 END) AS a, sum(x * (1 - x)) AS y, stddev(x) AS d, var_pop(x) AS v FROM t GROUP BY g;
UPDATE t SET x = x + 10;
REFRESH;
DELETE FROM t WHERE id = 3;
REFRESH;
UPDATE t SET kind = 'a' WHERE id % 5 = 0;
REFRESH;
UPDATE t SET x = x / 7 WHERE g = 1;
UPDATE t SET g = 0 WHERE id % 7 = 1;
REFRESH;

-- D6 T8 floating-point sums: what is added last isn't what is taken off first; NaN and infinities come and go
CREATE TABLE t (id int PRIMARY KEY, g int, x float8);
INSERT INTO t VALUES (1, 1, 1e16), (2, 1, 1), (3, 1, -1e16), (4, 2, 0.1), (5, 2, 0.2);
STREAM st AS SELECT g, sum(x) AS s, avg(x) AS a, max(x) AS m FROM t GROUP BY g;
DELETE FROM t WHERE id = 1;
INSERT INTO t VALUES (6, 2, 'NaN'), (7, 1, 'Infinity');
REFRESH;
DELETE FROM t WHERE id IN (6, 7);
REFRESH;
INSERT INTO t VALUES (8, 2, '-0'), (9, 3, '-0'), (10, 3, 0);
REFRESH;
DELETE FROM t WHERE id IN (4, 5, 9);
REFRESH;

-- D7 D8 D11 T7 one row without GROUP BY, whatever is left
CREATE TABLE t (id int PRIMARY KEY, x int);
INSERT INTO t VALUES (1, 1), (2, NULL);
STREAM st AS SELECT count(*) AS n, count(x) AS c, sum(x) AS s, avg(x) AS a, min(x) AS m FROM t;
STREAM some AS SELECT sum(x) AS s FROM t HAVING count(*) > 1;
STREAM most AS SELECT n + 1 AS n, s FROM st;
UPDATE t SET x = NULL;
REFRESH;
DELETE FROM t;
REFRESH;
INSERT INTO t VALUES (3, 3);
DELETE FROM t WHERE id = 3;
REFRESH;
INSERT INTO t VALUES (4, 4), (5, 5);
REFRESH;
TRUNCATE t;
REFRESH FULL;
RECOMPUTE;
INSERT INTO t VALUES (6, 6);
REFRESH;

-- D9 D10 D27 T5 T7 groups of NULL, and groups of nothing but NULLs
CREATE TABLE t (id int PRIMARY KEY, a int, b text, x int);
INSERT INTO t VALUES (1, NULL, NULL, NULL), (2, NULL, 'b', 1), (3, 1, NULL, NULL), (4, NULL, NULL, 5), (5, 1, 'b', NULL);
STREAM st AS SELECT a, b, sum(x) AS s, count(x) AS c, count(*) AS n, avg(x) AS m FROM t GROUP BY a, b;
STREAM one AS SELECT a, sum(x) AS s, max(x) AS m FROM t GROUP BY a;
UPDATE t SET x = NULL WHERE id = 4;
REFRESH;
DELETE FROM t WHERE id = 1;
REFRESH;
DELETE FROM t WHERE a IS NULL;
REFRESH;
INSERT INTO t VALUES (6, NULL, NULL, 6), (7, NULL, '', 7);
UPDATE t SET b = NULL WHERE id = 5;
REFRESH;

-- D12 T3 groups by place, by function, by CASE, cast and concatenation
CREATE TABLE t (id int PRIMARY KEY, "Name" text, d date, x int);
INSERT INTO t SELECT n, CASE WHEN n % 2 = 0 THEN 'Ab' ELSE 'aB' END, date '2024-01-30' + n, n FROM generate_series(1, 8) AS n;
STREAM place AS SELECT lower("Name"), sum(x) AS "Sum" FROM t GROUP BY 1;
STREAM cases AS SELECT CASE WHEN x > 4 THEN 'big' ELSE "Name" || '!' END AS "Which", count(*) AS n FROM t GROUP BY CASE WHEN x > 4 THEN 'big' ELSE "Name" || '!' END;
STREAM months AS SELECT date_trunc('month', d::timestamp)::date AS m, x % 2 = 0 AS even, count(*) FROM t GROUP BY 1, 2;
STREAM hidden AS SELECT count(*) AS n FROM t GROUP BY "Name", x % 3;
UPDATE t SET "Name" = upper("Name"), d = d + 20 WHERE id IN (1, 2);
REFRESH;
UPDATE t SET x = 9 - x;
DELETE FROM t WHERE id = 5;
REFRESH;

-- D13 D14 D15 parentheses, casts and aggregates deep in expressions
CREATE TABLE t (id int PRIMARY KEY, g int, a numeric(8, 2), b numeric(8, 2), s text);
INSERT INTO t SELECT n, n % 2, n, n / 10.0, n::text FROM generate_series(1, 9) AS n;
STREAM st AS SELECT g, sum(a * (1 - b)) AS net, 100 * sum(a) / (sum(b) + 1) AS share, coalesce(sum(a) FILTER (WHERE b > 0.4), 0) + 1 AS plus,
    sum((s || '0')::int) - -sum(s::int) AS casts, (count(*) > 2) = (max(a) > 5) AS both, -(-sum(a - (b - 1))) AS signs FROM t GROUP BY g;
STREAM linear AS SELECT id, a - (b - 1) AS x, (a + b) * 2 AS y, NOT (a > 3 AND (b < 1 OR s = '5')) AS z, (s || '1')::int % 7 AS m FROM t WHERE NOT (a > 7 OR b IS NULL);
UPDATE t SET a = a + 1, b = 1 - b WHERE id > 3;
REFRESH;
UPDATE t SET s = '12', b = NULL WHERE id = 2;
DELETE FROM t WHERE id = 9;
REFRESH;

-- D16 aggregates that depend on order, whose order changes
CREATE TABLE t (id int PRIMARY KEY, g int, k int, s text);
INSERT INTO t SELECT n, n % 2, -n, chr(96 + n) FROM generate_series(1, 8) AS n;
STREAM st AS SELECT g, string_agg(s, ',' ORDER BY k, id) AS list, array_agg(DISTINCT k % 3 ORDER BY k % 3 DESC) AS mods, count(DISTINCT k / 3) AS n FROM t GROUP BY g;
UPDATE t SET k = -k WHERE id IN (1, 4);
REFRESH;
UPDATE t SET s = NULL WHERE id = 5;
DELETE FROM t WHERE id = 2;
REFRESH;

-- D22 D23 T3 a row leaves a filter on a column that isn't shown, and others change within it
CREATE TABLE t (id int PRIMARY KEY, x int, flag boolean, note text);
INSERT INTO t SELECT n, n, n % 2 = 0, 'n' FROM generate_series(1, 6) AS n;
STREAM st AS SELECT x FROM t WHERE flag;
STREAM uniq AS SELECT DISTINCT x % 2 AS m FROM t WHERE flag;
UPDATE t SET flag = false WHERE id = 2;
UPDATE t SET note = 'other', x = x + 10 WHERE id = 4;
REFRESH;
UPDATE t SET flag = NULL, note = 'x' WHERE id = 4;
UPDATE t SET flag = true WHERE id = 1;
UPDATE t SET note = 'unused';
REFRESH;

-- D25 T1 rows changed several times, or within their group, between refreshes
CREATE TABLE t (id int PRIMARY KEY, g int, x int);
INSERT INTO t SELECT n, n % 2, n FROM generate_series(1, 6) AS n;
STREAM st AS SELECT g, sum(x) AS s FROM t GROUP BY g;
STREAM copy AS SELECT id, g, x FROM t;
UPDATE t SET x = x + 1;
UPDATE t SET x = x + 1 WHERE id = 3;
REFRESH;
UPDATE t SET x = x + 1;
UPDATE t SET x = x - 1;
INSERT INTO t VALUES (9, 9, 9);
DELETE FROM t WHERE id = 9;
DELETE FROM t WHERE id = 1;
INSERT INTO t VALUES (1, 1, 3);
REFRESH;

-- D28 D29 D32 aggregates of aggregates that go by the same name: new groups, and the group of NULL
CREATE TABLE t (id int PRIMARY KEY, g int, h int, x int);
INSERT INTO t SELECT n, n % 4, n % 2, n FROM generate_series(1, 12) AS n;
STREAM groups AS SELECT count(*) AS n FROM (SELECT g, sum(x) FROM t GROUP BY g) AS q;
STREAM total AS SELECT total, sum(n) AS n FROM (SELECT g, h, sum(x) AS total, count(*) AS n FROM t GROUP BY g, h) AS q GROUP BY total;
STREAM best AS SELECT h, max(total) AS total, min(total) AS low FROM (SELECT g, h, sum(x) AS total FROM t GROUP BY g, h) AS q GROUP BY h HAVING count(*) > 1;
INSERT INTO t VALUES (20, 9, 1, 9), (21, NULL, NULL, 1);
REFRESH;
INSERT INTO t VALUES (22, NULL, 1, NULL);
DELETE FROM t WHERE g = 0;
REFRESH;
UPDATE t SET g = NULL WHERE g = 1;
REFRESH;
DELETE FROM t WHERE g IS NULL;
REFRESH;

-- D24 T6 DISTINCT and UNION count what they hide
CREATE TABLE t (a int, b text);
CREATE TABLE u (a int, b text);
INSERT INTO t VALUES (1, 'x'), (1, 'x'), (1, NULL), (NULL, NULL), (NULL, NULL);
INSERT INTO u VALUES (1, 'x'), (2, 'y');
STREAM d AS SELECT DISTINCT a, b FROM t;
STREAM b AS SELECT a, b FROM t UNION SELECT a, b FROM u;
STREAM e AS SELECT a FROM t UNION ALL SELECT a FROM u UNION ALL SELECT a + 1 FROM t;
DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE b = 'x');
REFRESH;
DELETE FROM t WHERE b = 'x';
DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a IS NULL);
REFRESH;
DELETE FROM u;
DELETE FROM t;
REFRESH;
INSERT INTO u VALUES (NULL, NULL), (NULL, NULL), (3, '');
INSERT INTO t VALUES (3, '');
REFRESH;

-- T13 sums beyond the range of their arguments
CREATE TABLE t (id int PRIMARY KEY, g int, i int, b bigint, n numeric);
INSERT INTO t SELECT n, n % 2, 2147483647, 9223372036854775807, 1e40 FROM generate_series(1, 6) AS n;
STREAM st AS SELECT g, sum(i) AS i, sum(b) AS b, sum(n) AS n, avg(b) AS a, sum(i::bigint * 4) AS m FROM t GROUP BY g;
STREAM over AS SELECT sum(b) AS b FROM t;
INSERT INTO t SELECT n, n % 2, -2147483648, 9223372036854775807, -1e40 FROM generate_series(7, 12) AS n;
REFRESH;
DELETE FROM t WHERE id < 12;
REFRESH;
