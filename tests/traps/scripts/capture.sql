-- E1 T6 three equal rows without a key, of which one goes and one changes
CREATE TABLE t (a int, b text);
INSERT INTO t VALUES (1, 'x'), (1, 'x'), (1, 'x');
STREAM st AS SELECT a, b FROM t;
STREAM n AS SELECT a, count(*) AS n FROM t GROUP BY a;
DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t);
REFRESH;
UPDATE t SET b = NULL WHERE ctid = (SELECT min(ctid) FROM t);
REFRESH;
UPDATE t SET b = b;
INSERT INTO t VALUES (1, NULL);
REFRESH;

-- E3 E4 E5 keys that are NULL, that all move on, and that change places
CREATE TABLE t (id int, x text, UNIQUE (id) DEFERRABLE INITIALLY IMMEDIATE);
CREATE TABLE p (id int PRIMARY KEY DEFERRABLE, x text);
INSERT INTO t VALUES (1, 'a'), (2, 'b'), (NULL, 'c'), (NULL, 'd');
INSERT INTO p VALUES (1, 'a'), (2, 'b'), (3, 'c');
STREAM st AS SELECT id, x FROM t;
STREAM pt AS SELECT id, x FROM p;
STREAM j AS SELECT p.id, p.x, t.x AS t FROM p JOIN t ON p.id = t.id;
UPDATE t SET id = id + 1;
UPDATE p SET id = id + 1;
REFRESH;
UPDATE p SET id = CASE id WHEN 2 THEN 3 WHEN 3 THEN 2 ELSE id END;
UPDATE t SET id = 9 WHERE x = 'c';
UPDATE t SET x = 'e' WHERE id IS NULL;
REFRESH;

-- E7 T14 columns that are called as the engine's own
CREATE TABLE t (xid int, seq int PRIMARY KEY, w int, action text, lsn text, change_id int, __pgt_w int, __pgt_3 int, ctid_ int);
INSERT INTO t VALUES (1, 1, 1, 'I', '0/0', 1, 1, 1, 1), (2, 2, 1, 'D', NULL, 2, 2, 2, 2);
FAILS '42939' STREAM st AS SELECT * FROM t;
STREAM st AS SELECT xid, seq, w, action, lsn, change_id, __pgt_w AS x, __pgt_3 AS y, ctid_ FROM t;
STREAM bag AS SELECT __pgt_w AS x, w, xid FROM t;
STREAM pg AS SELECT __pgt_w AS x, count(*) AS n, max(__pgt_3) AS k FROM t WHERE __pgt_w < 5 GROUP BY __pgt_w;
STREAM g AS SELECT w, xid, count(*) AS n, sum(seq) AS seq FROM t GROUP BY w, xid;
STREAM j AS SELECT a.seq, b.w FROM t AS a JOIN t AS b ON a.xid = b.seq;
UPDATE t SET w = -1, action = 'U' WHERE seq = 1;
INSERT INTO t VALUES (1, 3, 0, NULL, NULL, NULL, NULL, NULL, NULL);
REFRESH;
DELETE FROM t WHERE w = -1;
UPDATE t SET xid = 3, seq = 5 WHERE seq = 2;
REFRESH;

-- E9 T10 what a transaction writes after its TRUNCATE
CREATE TABLE t (id int PRIMARY KEY, g int);
INSERT INTO t SELECT n, n % 2 FROM generate_series(1, 5) AS n;
STREAM st AS SELECT id, g FROM t;
STREAM n AS SELECT g, count(*) AS n FROM t GROUP BY g;
BEGIN; DELETE FROM t WHERE id = 1; TRUNCATE t; INSERT INTO t VALUES (1, 1), (9, 9); COMMIT;
INSERT INTO t VALUES (10, 1);
REFRESH FULL;
RECOMPUTE;
BEGIN; SAVEPOINT s; TRUNCATE t; ROLLBACK TO s; DELETE FROM t WHERE id = 9; COMMIT;
REFRESH;

-- E11 E18 seventy columns, of which the last changes, and NULL to the empty string and back
DO $$ BEGIN EXECUTE 'CREATE TABLE t (id int PRIMARY KEY, ' || (SELECT string_agg(format('c%s text', n), ', ') FROM generate_series(1, 70) AS n) || ')'; END $$;
INSERT INTO t (id, c1, c70) VALUES (1, 'a', 'b'), (2, NULL, '');
STREAM st AS SELECT * FROM t;
STREAM one AS SELECT c70, count(*) AS n FROM t GROUP BY c70;
UPDATE t SET c70 = 'c' WHERE id = 1;
UPDATE t SET c70 = NULL, c1 = '' WHERE id = 2;
REFRESH;
UPDATE t SET c1 = NULL, c70 = '' WHERE id = 2;
REFRESH;

-- E12 E13 T15 columns come, go, come again and change names
CREATE TABLE t (id int PRIMARY KEY, gone text, a int, b int);
ALTER TABLE t DROP COLUMN gone;
INSERT INTO t VALUES (1, 1, 10), (2, 2, 20);
STREAM st AS SELECT * FROM t;
STREAM some AS SELECT id, a FROM t;
ALTER TABLE t ADD COLUMN c int DEFAULT 7;
UPDATE t SET c = 8 WHERE id = 1;
INSERT INTO t VALUES (3, 3, 30, 9);
REFRESH FULL;
ALTER TABLE t DROP COLUMN c;
ALTER TABLE t ADD COLUMN c text;
UPDATE t SET c = 'x', b = b + 1;
REFRESH FULL;
ALTER TABLE t RENAME a TO x;
ALTER TABLE t RENAME b TO a;
ALTER TABLE t RENAME x TO b;
UPDATE t SET a = 100 WHERE id = 1;
UPDATE t SET b = 200 WHERE id = 2;
REFRESH FULL;
DELETE FROM t WHERE id = 1;
REFRESH;

-- E14 T14 text that looks like a log, and values too large to stay in their row
CREATE TABLE t (id int PRIMARY KEY, s text, big text, n int);
INSERT INTO t VALUES (1, 'INSERT: id[integer]:1', repeat('x', 3000) || 'end', 1), (2, E'a''b\\c\x1e"[]', NULL, 1);
STREAM st AS SELECT id, s, big, n FROM t;
STREAM bag AS SELECT s, big FROM t;
UPDATE t SET n = 2;
REFRESH;
UPDATE t SET s = 'table public.t: DELETE: (no-tuple-data)' WHERE id = 1;
UPDATE t SET big = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 900) AS i) WHERE id = 2;
REFRESH;
UPDATE t SET n = 3 WHERE id = 2;
DELETE FROM t WHERE id = 1;
REFRESH;

-- E16 T16 inserted under one set of settings, deleted under another, refreshed under a third
CREATE TABLE t (id int, at timestamptz, d date, i interval, f float8, b bytea);
SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex';
INSERT INTO t VALUES (1, '2024-03-31 01:30+00', '2024-03-31', '1 day 02:00', 0.1, '\x01ff'), (2, '2024-10-27 01:30+00', '2024-10-27', '-1 mon', 1e-300, '\x00');
STREAM st AS SELECT at, d, i, f, b FROM t;
STREAM n AS SELECT at, i, count(*) AS n FROM t GROUP BY at, i;
STREAM days AS SELECT at::date AS day, count(*) AS n, min(at::text) AS shown FROM t GROUP BY at::date;
ON tokyo: SET TimeZone = 'Asia/Tokyo';
ON tokyo: SET DateStyle = 'German';
ON tokyo: SET IntervalStyle = 'iso_8601';
ON tokyo: SET extra_float_digits = -10;
ON tokyo: SET bytea_output = 'escape';
ON tokyo: SET search_path = pg_catalog;
ON tokyo: DELETE FROM public.t WHERE id = 1;
ON tokyo: UPDATE public.t SET at = at + '1 hour' WHERE id = 2;
ON york: SET TimeZone = 'America/New_York';
ON york: SET DateStyle = 'SQL, DMY';
ON york: SET IntervalStyle = 'sql_standard';
ON york: SET lc_numeric = 'C';
ON york: INSERT INTO t VALUES (3, '2024-06-01 00:00+00', '2024-06-01', '3 days', 0.30000000000000004, '\x5c');
ON york: SELECT pgtrickle.refresh_stream_table(name) FROM unnest(ARRAY['st', 'n', 'days']) AS name;
REFRESH;
ON tokyo: UPDATE public.t SET id = id + 1, at = at + '1 day' WHERE id = 3;
REFRESH;

-- E24 T10 every way to write: COPY, ON CONFLICT, MERGE, WITH, cascades, triggers, views
CREATE TABLE p (id int PRIMARY KEY, x int);
CREATE TABLE c (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE, y int DEFAULT 5, twice int GENERATED ALWAYS AS (y * 2) STORED);
CREATE FUNCTION shift() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.x := coalesce(NEW.x, 0) + 1; RETURN NEW; END $$;
CREATE TRIGGER shift BEFORE INSERT OR UPDATE ON p FOR EACH ROW EXECUTE FUNCTION shift();
CREATE VIEW big AS SELECT id, x FROM p WHERE x > 0;
INSERT INTO p VALUES (1, 1), (2, 2), (3, 3);
INSERT INTO c (p) VALUES (1), (1), (2);
STREAM st AS SELECT p.id, p.x, c.id AS c, c.y, c.twice FROM p JOIN c ON c.p = p.id;
STREAM n AS SELECT p, sum(twice) AS s FROM c GROUP BY p;
INSERT INTO p VALUES (1, 10), (4, 4) ON CONFLICT (id) DO UPDATE SET x = excluded.x;
INSERT INTO p VALUES (1, 0) ON CONFLICT DO NOTHING;
REFRESH;
MERGE INTO p USING (VALUES (2, 20), (5, 5), (3, NULL)) AS v (id, x) ON p.id = v.id WHEN MATCHED AND v.x IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET x = v.x WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.x);
REFRESH;
WITH new AS (INSERT INTO p VALUES (7, 7) RETURNING id), gone AS (DELETE FROM c WHERE y = 5 AND p = 2 RETURNING id) INSERT INTO c (p, y) SELECT 5, count(*) FROM gone;
INSERT INTO c (p) VALUES (7);
REFRESH;
UPDATE p SET id = 70 WHERE id = 7;
DELETE FROM p WHERE id = 1;
REFRESH;
INSERT INTO big VALUES (8, 8);
UPDATE big SET x = 80 WHERE id = 8;
SET session_replication_role = replica;
INSERT INTO c (p, y) VALUES (8, 1), (8, 2);
RESET session_replication_role;
REFRESH;

-- E21 E19 two consumers of one buffer at their own pace, cleaned up in between
CREATE TABLE t (id int PRIMARY KEY, x int);
INSERT INTO t VALUES (1, 1);
STREAM fast AS SELECT id, x FROM t;
STREAM slow AS SELECT sum(x) AS s FROM t;
INSERT INTO t VALUES (2, 2);
REFRESH fast;
SELECT pgtrickle_changes.worker_housekeeping();
UPDATE t SET x = 5 WHERE id = 2;
REFRESH fast;
SELECT pgtrickle_changes.worker_housekeeping();
DELETE FROM t WHERE id = 1;
REFRESH slow;
SELECT pgtrickle_changes.worker_housekeeping();
REFRESH;

-- E20 copies come and go over and over, and are cleaned up in between
CREATE TABLE t (a int);
STREAM st AS SELECT a FROM t;
STREAM n AS SELECT a, count(*) AS n FROM t GROUP BY a;
INSERT INTO t SELECT 1 FROM generate_series(1, 50);
DELETE FROM t WHERE ctid IN (SELECT ctid FROM t LIMIT 20);
REFRESH st;
SELECT pgtrickle_changes.worker_housekeeping();
DELETE FROM t WHERE ctid IN (SELECT ctid FROM t LIMIT 20);
INSERT INTO t SELECT 1 FROM generate_series(1, 5);
REFRESH;
DELETE FROM t;
REFRESH;
