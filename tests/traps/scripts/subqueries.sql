-- B3 B19 both sides of EXISTS change in one transaction: a pair comes, a pair goes
CREATE TABLE o (id int PRIMARY KEY, x int);
CREATE TABLE l (oid int, y int);
INSERT INTO o VALUES (1, 1), (2, 2), (3, 3);
INSERT INTO l VALUES (1, 1), (1, 2), (3, NULL);
STREAM met AS SELECT id, x FROM o WHERE EXISTS (SELECT 1 FROM l WHERE l.oid = o.id);
STREAM unmet AS SELECT id, x FROM o WHERE NOT EXISTS (SELECT 1 FROM l WHERE l.oid = o.id AND l.y > 0);
STREAM counted AS SELECT x % 2 AS g, count(*) AS n FROM o WHERE EXISTS (SELECT FROM l WHERE l.oid = o.id) GROUP BY x % 2;
BEGIN;
INSERT INTO o VALUES (4, 4);
INSERT INTO l VALUES (4, 1);
COMMIT;
REFRESH;
BEGIN;
DELETE FROM o WHERE id = 4;
DELETE FROM l WHERE oid = 4;
COMMIT;
REFRESH;
BEGIN;
DELETE FROM o WHERE id = 1;
DELETE FROM l WHERE oid = 1;
INSERT INTO l VALUES (2, 5);
UPDATE o SET x = -x;
COMMIT;
REFRESH;
DELETE FROM l;
REFRESH;

-- B4 B15 every clause of a subquery counts: GROUP BY, HAVING, WHERE, DISTINCT, set operations
CREATE TABLE o (id int PRIMARY KEY, k int);
CREATE TABLE l (id int PRIMARY KEY, oid int, q int);
INSERT INTO o SELECT n, n % 3 FROM generate_series(1, 6) AS n;
INSERT INTO l SELECT n, n % 5, n FROM generate_series(1, 12) AS n;
STREAM by_in AS SELECT id FROM o WHERE id IN (SELECT oid FROM l GROUP BY oid HAVING count(*) > 2);
STREAM by_exists AS SELECT id FROM o WHERE EXISTS (SELECT sum(q) FROM l WHERE l.oid = o.id GROUP BY q / 4 HAVING count(*) > 1);
STREAM by_sum AS SELECT id FROM o WHERE NOT EXISTS (SELECT FROM l WHERE l.oid = o.id HAVING sum(q) > 20);
STREAM by_union AS SELECT id FROM o WHERE k IN (SELECT oid FROM l WHERE q > 10 UNION SELECT q FROM l WHERE oid = 1);
STREAM by_distinct AS SELECT id FROM o WHERE k IN (SELECT DISTINCT oid FROM l);
INSERT INTO l VALUES (20, 3, 1), (21, 3, 2);
DELETE FROM l WHERE id IN (1, 2);
REFRESH;
UPDATE l SET q = q + 10, oid = oid + 1;
REFRESH;
DELETE FROM l WHERE oid > 2;
UPDATE o SET k = 1;
REFRESH;

-- B5 IN compares every column
CREATE TABLE o (id int PRIMARY KEY, a int, b int);
CREATE TABLE l (a int, b int NOT NULL);
INSERT INTO o VALUES (1, 1, 1), (2, 1, 2), (3, NULL, 1), (4, 2, NULL), (5, 2, 2);
INSERT INTO l VALUES (1, 1), (2, 9);
STREAM is_in AS SELECT id FROM o WHERE (a, b) IN (SELECT a, b FROM l);
STREAM not_in AS SELECT id FROM o WHERE (a, b) NOT IN (SELECT a, b FROM l);
STREAM shown AS SELECT id, (a, b) IN (SELECT a, b FROM l) AS found, (a, b) <= ANY (SELECT a, b FROM l) AS less FROM o;
INSERT INTO l VALUES (1, 2);
REFRESH;
INSERT INTO l VALUES (NULL, 1), (2, 2);
DELETE FROM l WHERE b = 9;
REFRESH;
UPDATE o SET b = 1;
DELETE FROM l WHERE a IS NULL;
REFRESH;
DELETE FROM l;
REFRESH;

-- B8 B13 a name means the nearest column of that name, and an outer one only where there is no inner
CREATE TABLE a (id int PRIMARY KEY, v int, only_a int);
CREATE TABLE b (id int PRIMARY KEY, v int);
INSERT INTO a VALUES (1, 1, 1), (2, 2, 5), (3, 3, NULL);
INSERT INTO b VALUES (1, 1), (2, 5), (7, 2);
STREAM same_name AS SELECT id FROM a WHERE id IN (SELECT id FROM b WHERE v > 1);
STREAM outward AS SELECT id FROM a WHERE v IN (SELECT v FROM b WHERE b.id = only_a);
STREAM scalar AS SELECT id, (SELECT max(v) FROM b WHERE v <= only_a) AS m FROM a;
STREAM deep AS SELECT id FROM a WHERE EXISTS (SELECT FROM b WHERE EXISTS (SELECT FROM a AS c WHERE c.v = b.v AND c.id = a.id));
STREAM deeper AS SELECT id FROM a WHERE EXISTS (SELECT FROM b WHERE b.v = a.v AND b.v IN (SELECT c.v FROM a AS c WHERE c.only_a < a.v + 4));
UPDATE b SET v = v + 1;
REFRESH;
UPDATE a SET only_a = id, v = 2;
INSERT INTO b VALUES (3, 2);
REFRESH;
DELETE FROM b WHERE id IN (2, 7);
REFRESH;

-- B9 NOT IN: NULLs come and go on either side, and the subquery becomes empty
CREATE TABLE o (id int PRIMARY KEY, x int);
CREATE TABLE l (x int);
INSERT INTO o VALUES (1, 1), (2, 2), (3, NULL);
INSERT INTO l VALUES (1), (5);
STREAM not_in AS SELECT id, x FROM o WHERE x NOT IN (SELECT x FROM l);
STREAM certain AS SELECT id FROM o WHERE id NOT IN (SELECT x FROM l WHERE x IS NOT NULL);
STREAM shown AS SELECT id, x NOT IN (SELECT x FROM l) AS absent, x IN (SELECT x FROM l) IS NULL AS unknown FROM o;
INSERT INTO l VALUES (NULL);
REFRESH;
INSERT INTO o VALUES (4, 1), (5, NULL);
DELETE FROM l WHERE x IS NULL;
REFRESH;
DELETE FROM l;
REFRESH;
INSERT INTO l VALUES (2), (NULL);
UPDATE o SET x = 2 WHERE id = 5;
REFRESH;
DELETE FROM l WHERE x IS NULL;
UPDATE o SET x = NULL WHERE id = 1;
REFRESH;

-- B10 ALL and ANY with NULLs, with nothing to compare with, with every operator
CREATE TABLE o (id int PRIMARY KEY, x int);
CREATE TABLE l (x int, g int);
INSERT INTO o VALUES (1, 1), (2, 2), (3, 3), (4, NULL);
INSERT INTO l VALUES (1, 1), (2, 1), (2, 2);
STREAM every AS SELECT id FROM o WHERE x > ALL (SELECT x FROM l);
STREAM not_every AS SELECT id FROM o WHERE NOT x >= ALL (SELECT x FROM l);
STREAM some AS SELECT id FROM o WHERE x < ANY (SELECT x FROM l);
STREAM none AS SELECT id FROM o WHERE NOT x <> ANY (SELECT x FROM l);
STREAM shown AS SELECT id, x > ALL (SELECT x FROM l) AS a, x = ALL (SELECT x FROM l) AS b, x <> ALL (SELECT x FROM l) AS c,
    x < ANY (SELECT x FROM l WHERE g = o.id) AS d, (x + 1) = ANY (SELECT x FROM l) AS e FROM o;
DELETE FROM l WHERE x = 2;
REFRESH;
INSERT INTO l VALUES (NULL, 1), (3, 3);
REFRESH;
DELETE FROM l WHERE x IS NOT NULL;
REFRESH;
DELETE FROM l;
REFRESH;
INSERT INTO l VALUES (2, 2);
UPDATE o SET x = 2;
REFRESH;

-- B11 EXISTS and IN under OR: both hold, then one, then none
CREATE TABLE o (id int PRIMARY KEY, k int);
CREATE TABLE a (k int);
CREATE TABLE b (k int);
INSERT INTO o VALUES (1, 1), (2, 2), (3, NULL), (4, 4);
INSERT INTO a VALUES (1), (2);
INSERT INTO b VALUES (1);
STREAM either AS SELECT id FROM o WHERE EXISTS (SELECT FROM a WHERE a.k = o.k) OR k IN (SELECT k FROM b);
STREAM both AS SELECT id FROM o WHERE EXISTS (SELECT FROM a WHERE a.k = o.k) AND k IN (SELECT k FROM b);
STREAM xor AS SELECT id FROM o WHERE EXISTS (SELECT FROM a WHERE a.k = o.k) <> EXISTS (SELECT FROM b WHERE b.k = o.k);
STREAM neither AS SELECT id FROM o WHERE NOT (k IN (SELECT k FROM a) OR k IN (SELECT k FROM b) OR id = 4);
DELETE FROM a WHERE k = 1;
REFRESH;
DELETE FROM b;
REFRESH;
INSERT INTO a VALUES (4), (4), (NULL);
INSERT INTO b VALUES (4), (2);
REFRESH;
DELETE FROM a WHERE k IS NULL;
DELETE FROM o WHERE id = 2;
REFRESH;

-- B12 a subquery in every place where an expression may stand
CREATE TABLE o (id int PRIMARY KEY, k int, x int);
CREATE TABLE l (k int, y int);
INSERT INTO o SELECT n, n % 4, n FROM generate_series(1, 8) AS n;
INSERT INTO l VALUES (1, 10), (1, 20), (2, 5), (NULL, 7);
STREAM selected AS SELECT id, CASE WHEN EXISTS (SELECT FROM l WHERE l.k = o.k) THEN 'yes' ELSE 'no' END AS c,
    coalesce((SELECT sum(y) FROM l WHERE l.k = o.k), -1) AS s, abs((SELECT min(y) FROM l) - x) AS d,
    NOT EXISTS (SELECT FROM l WHERE y > x * 3) AS big FROM o;
STREAM argument AS SELECT k, sum((SELECT count(*) FROM l WHERE l.k = o.k)) AS n, count(*) FILTER (WHERE k IN (SELECT k FROM l)) AS f,
    max(CASE WHEN EXISTS (SELECT FROM l WHERE l.y = o.x) THEN x END) AS m FROM o GROUP BY k;
STREAM having AS SELECT k, count(*) AS n FROM o GROUP BY k HAVING sum(x) > (SELECT avg(y) FROM l) OR EXISTS (SELECT FROM l WHERE l.k = o.k);
STREAM over_groups AS SELECT k, sum(x) AS s, (SELECT count(*) FROM l WHERE l.k = o.k) AS n, max(x) IN (SELECT y FROM l) AS f FROM o GROUP BY k;
STREAM grouped AS SELECT EXISTS (SELECT FROM l WHERE l.k = o.k) AS e, count(*) AS n FROM o GROUP BY EXISTS (SELECT FROM l WHERE l.k = o.k);
STREAM on_inner AS SELECT o.id, l.y FROM o JOIN l ON o.k = l.k AND NOT EXISTS (SELECT FROM l AS m WHERE m.k = l.k AND m.y > o.x + 15);
STREAM on_left AS SELECT o.id, l.y FROM o LEFT JOIN l ON o.k = l.k AND l.y < (SELECT max(y) FROM l) AND o.x > (SELECT min(k) FROM l);
STREAM sorted AS SELECT id FROM o WHERE x > 2 ORDER BY (SELECT max(y) FROM l WHERE l.k = o.k);
STREAM listed AS SELECT DISTINCT (SELECT max(y) FROM l WHERE l.k = o.k) AS m FROM o;
STREAM united AS SELECT id FROM o WHERE EXISTS (SELECT FROM l WHERE l.k = o.k) UNION ALL SELECT (SELECT count(*) FROM l)::int;
INSERT INTO l VALUES (3, 30), (2, 50);
REFRESH;
DELETE FROM l WHERE k = 1;
UPDATE o SET x = x + 1, k = k + 1 WHERE id < 4;
REFRESH;
UPDATE l SET y = -y;
DELETE FROM o WHERE id > 6;
REFRESH;
DELETE FROM l;
REFRESH;
INSERT INTO l VALUES (0, 0);
INSERT INTO o VALUES (20, 0, 0), (21, NULL, NULL);
REFRESH;

-- B14 a scalar subquery goes from nothing to a row and back, and is refused two
CREATE TABLE o (id int PRIMARY KEY, k int);
CREATE TABLE one (id int PRIMARY KEY, v text);
CREATE TABLE l (k int, v text);
INSERT INTO o VALUES (1, 1), (2, 2), (3, NULL);
STREAM whole AS SELECT o.id, (SELECT v FROM one) AS v, (SELECT v FROM l WHERE l.k = o.k) AS w, (SELECT upper(v) FROM one WHERE one.id = o.k) AS u FROM o;
STREAM filtered AS SELECT o.id FROM o WHERE (SELECT v FROM one) = 'a';
STREAM alone AS SELECT (SELECT v FROM one) AS v, ARRAY(SELECT v FROM l ORDER BY v DESC) AS a;
INSERT INTO one VALUES (1, 'a');
INSERT INTO l VALUES (1, 'x'), (7, 'z');
REFRESH;
UPDATE one SET v = 'b';
INSERT INTO l VALUES (2, 'y'), (7, 'z'), (NULL, 'n'), (NULL, 'n');
REFRESH;
DELETE FROM one;
DELETE FROM l WHERE k = 1;
REFRESH;
INSERT INTO one VALUES (1, 'a'), (2, 'b');
FAILS '21000' REFRESH whole;
FAILS '21000' REFRESH alone;
DELETE FROM one WHERE id = 1;
INSERT INTO l VALUES (1, 'x'), (1, 'xx');
FAILS '21000' REFRESH whole;
DELETE FROM l WHERE v = 'xx';
REFRESH;

-- B2 B12 B14 correlated aggregates: of nothing, by expressions, by ranges, of every kind
CREATE TABLE o (id int PRIMARY KEY, k int, lo int, hi int);
CREATE TABLE l (k int, y int, z numeric(8, 2));
INSERT INTO o SELECT n, n % 4, n, n + 3 FROM generate_series(1, 8) AS n;
INSERT INTO o VALUES (9, NULL, NULL, NULL);
INSERT INTO l SELECT n % 3, n, n / 2.0 FROM generate_series(1, 9) AS n;
STREAM of_nothing AS SELECT id, (SELECT count(*) FROM l WHERE l.k = o.k) AS n, (SELECT count(DISTINCT y) FROM l WHERE l.k = o.k AND y > 4) AS d,
    (SELECT sum(y) + 1 FROM l WHERE l.k = o.k) AS s, (SELECT coalesce(max(y), -1) FROM l WHERE l.k = o.k) AS m,
    (SELECT string_agg(y::text, ',' ORDER BY y) FROM l WHERE l.k = o.k) AS t FROM o;
STREAM expressions AS SELECT id, (SELECT avg(z) FROM l WHERE l.k + 1 = o.k * 1) AS a FROM o;
STREAM ranges AS SELECT id, (SELECT count(*) FROM l WHERE l.y BETWEEN o.lo AND o.hi) AS n, (SELECT min(z) FROM l WHERE l.y > o.lo) AS m FROM o;
STREAM thresholds AS SELECT id FROM o WHERE lo > (SELECT 0.5 * sum(y) FROM l WHERE l.k = o.k);
STREAM kept AS SELECT id, (SELECT sum(y) FROM l WHERE l.k = o.k HAVING count(*) > 2) AS s FROM o;
STREAM arrays AS SELECT id, ARRAY(SELECT y FROM l WHERE l.k = o.k ORDER BY y DESC) AS a, ARRAY(SELECT z FROM l WHERE l.y > o.lo ORDER BY z, y) AS b FROM o;
STREAM twice AS SELECT id, (SELECT max(y) FROM l WHERE l.k = o.k) - (SELECT min(y) FROM l WHERE l.k = o.k) AS span FROM o;
STREAM own AS SELECT id FROM o WHERE lo = (SELECT max(p.lo) FROM o AS p WHERE p.k = o.k);
STREAM outside AS SELECT id, (SELECT count(*) + o.lo FROM l WHERE l.y < o.hi) AS n, (SELECT sum(y + o.lo) FROM l WHERE l.k = o.k) AS s FROM o;
DELETE FROM l WHERE k = 1;
INSERT INTO l VALUES (3, 30, 1.25), (NULL, 5, 0);
REFRESH;
UPDATE o SET k = 3, lo = lo - 1 WHERE id < 3;
UPDATE l SET y = y + 1;
REFRESH;
DELETE FROM l;
REFRESH;
INSERT INTO l VALUES (2, NULL, NULL), (0, 4, 9.99);
DELETE FROM o WHERE id = 4;
REFRESH;

-- B17 rules under rules: semi- and anti-joins of aggregates, of outer joins, of each other
CREATE TABLE s (id int PRIMARY KEY, n int);
CREATE TABLE l (o int, s int, late boolean);
INSERT INTO s SELECT n, n FROM generate_series(1, 4) AS n;
INSERT INTO l VALUES (1, 1, true), (1, 2, false), (2, 2, true), (2, 3, true), (3, 1, true), (4, 4, false), (5, 4, true);
STREAM waiting AS SELECT s.id, count(*) AS n FROM s JOIN l AS a ON a.s = s.id
    WHERE a.late AND EXISTS (SELECT FROM l AS b WHERE b.o = a.o AND b.s <> a.s)
      AND NOT EXISTS (SELECT FROM l AS c WHERE c.o = a.o AND c.s <> a.s AND c.late) GROUP BY s.id;
STREAM outer_met AS SELECT s.id, b.o FROM s LEFT JOIN (SELECT o, s FROM l WHERE EXISTS (SELECT FROM s AS t WHERE t.n = l.o)) AS b ON b.s = s.id;
STREAM summed AS SELECT id FROM s WHERE n < (SELECT count(*) FROM l LEFT JOIN s AS t ON t.id = l.o WHERE t.id IS NULL OR t.n IN (SELECT s.n FROM s WHERE s.n > 1));
UPDATE l SET late = NOT late WHERE o IN (1, 2);
REFRESH;
DELETE FROM l WHERE s = 2;
UPDATE s SET n = n + 1;
REFRESH;
INSERT INTO l VALUES (3, 3, NULL), (5, 5, true);
DELETE FROM s WHERE id = 1;
REFRESH;

-- B8 subqueries without anything to change, and correlated with nothing but it
CREATE TABLE o (id int PRIMARY KEY, x int);
INSERT INTO o VALUES (1, 1), (2, NULL);
STREAM sets AS SELECT id, EXISTS (SELECT FROM unnest(ARRAY[1, o.x]) AS u(v) WHERE u.v = o.id + 1) AS six, (SELECT sum(g.n) FROM generate_series(1, o.x) AS g(n)) AS seven FROM o;
STREAM st AS SELECT id, (SELECT 1) AS one, (SELECT o.x + 1) AS two, EXISTS (SELECT 1 WHERE o.x > 0) AS three, x IN (SELECT o.id) AS four, (SELECT count(*)) AS five FROM o;
INSERT INTO o VALUES (3, 3);
REFRESH;
DELETE FROM o WHERE id = 1;
UPDATE o SET x = -x;
REFRESH;

-- B14 a scalar subquery never has two rows, though its old row and a new outer one, or the other way round, make two
CREATE TABLE o (id int PRIMARY KEY, k int);
CREATE TABLE l (id int PRIMARY KEY, k int, v int);
INSERT INTO o VALUES (1, 1);
INSERT INTO l VALUES (1, 1, 10), (2, 2, 20), (3, 2, 30);
STREAM st AS SELECT o.id, (SELECT v FROM l WHERE l.k = o.k) AS v FROM o;
DELETE FROM l WHERE id = 3;
INSERT INTO o VALUES (2, 2);
REFRESH;
DELETE FROM o WHERE id = 1;
INSERT INTO l VALUES (4, 1, 11);
REFRESH;
UPDATE l SET k = 3 - k WHERE id <> 4;
UPDATE o SET k = NULL;
REFRESH;
