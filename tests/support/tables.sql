-- Small tables in which everything occurs that makes SQL hard: NULLs, duplicates, rows without a partner.

CREATE TABLE customers (id int PRIMARY KEY, name text, region text NOT NULL);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, amount numeric(10,2), placed date, tags text[], doc jsonb);
CREATE TABLE lines (order_id int, product text, qty int, price numeric);
CREATE TABLE edges (a int NOT NULL, b int NOT NULL);
CREATE TABLE events (id int PRIMARY KEY, ts timestamptz NOT NULL, kind text);
CREATE TABLE parted (id int, part int, v int) PARTITION BY LIST (part);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
CREATE TABLE parent (id int, v int);
CREATE TABLE child (extra text) INHERITS (parent);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (x int, y text);
CREATE TABLE typed (id int PRIMARY KEY, m mood, d positive, p pair, r int4range, j json, twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE VIEW big_orders AS SELECT id, customer_id, amount FROM orders WHERE amount > 20;
CREATE VIEW big_customers AS SELECT c.id, c.name, b.amount FROM customers AS c JOIN big_orders AS b ON b.customer_id = c.id;
CREATE MATERIALIZED VIEW stored AS SELECT region, count(*) AS n FROM customers GROUP BY region;
CREATE FUNCTION orders_of(int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM public.orders WHERE customer_id = $1';
CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE AGGREGATE product_of(int) (sfunc = int4mul, stype = int, initcond = '1');

INSERT INTO customers VALUES (1, 'ann', 'north'), (2, 'bob', 'south'), (3, NULL, 'north'), (4, 'dan', 'west');
INSERT INTO orders VALUES
    (1, 1, 10.00, '2024-01-01', '{a,b}', '{"n": 1}'), (2, 1, 30.50, '2024-01-02', '{}', '{"n": 2, "list": [1, 2]}'),
    (3, 2, NULL, NULL, NULL, NULL), (4, NULL, 20.00, '2024-02-01', '{b}', '[]'), (5, 9, 50.00, '2024-02-03', '{c,c}', '{}');
INSERT INTO lines VALUES
    (1, 'pen', 2, 1.5), (1, 'pen', 2, 1.5), (1, 'ink', 1, 7.25), (2, 'pen', NULL, 1.50), (3, NULL, 4, NULL), (8, 'cup', 1, 9);
INSERT INTO edges VALUES (1, 2), (2, 3), (3, 4), (2, 5), (6, 7), (7, 6);
INSERT INTO events SELECT n, now() - n * interval '20 minutes', CASE WHEN n % 3 > 0 THEN 'kind ' || n % 2 END FROM generate_series(0, 8) AS n;
INSERT INTO parted VALUES (1, 1, 10), (2, 2, 20), (2, 2, 20);
INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (2, 2, 'x');
INSERT INTO typed VALUES (1, 'sad', 3, ROW(1, 'a'), '[1,4)', '{"a": 1}'), (2, NULL, NULL, NULL, NULL, NULL);
REFRESH MATERIALIZED VIEW stored;
