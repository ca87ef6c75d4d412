# Joins

-- inner join
SELECT c.name, o.amount FROM customers AS c JOIN orders AS o ON o.customer_id = c.id

-- LEFT JOIN
SELECT c.name, o.amount FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id

-- RIGHT JOIN with a condition on one side
SELECT c.name, o.amount FROM customers AS c RIGHT JOIN orders AS o ON o.customer_id = c.id AND c.region = 'north'

-- FULL JOIN
SELECT c.name, o.amount FROM customers AS c FULL JOIN orders AS o ON o.customer_id = c.id

-- FULL JOIN USING, its merged column grouped by
SELECT id, count(*) AS n FROM customers FULL JOIN orders USING (id) GROUP BY id

-- NATURAL LEFT JOIN
SELECT * FROM (SELECT id AS customer_id, region FROM customers) AS c NATURAL LEFT JOIN (SELECT customer_id, amount FROM orders) AS o

-- JOIN USING with an alias of its columns
SELECT j.id, c.name, o.amount FROM customers AS c FULL JOIN orders AS o USING (id) AS j WHERE j.id > 1

-- join by range
SELECT a.id, b.id AS other FROM orders AS a JOIN orders AS b ON a.amount < b.amount

-- LEFT JOIN by an expression
SELECT a.id, b.id AS other FROM orders AS a LEFT JOIN orders AS b ON a.id + 1 = b.id AND b.amount > 10

-- LEFT JOIN ON true
SELECT c.id, e.a FROM customers AS c LEFT JOIN (SELECT a FROM edges WHERE a > 5) AS e ON true

-- CROSS JOIN
SELECT c.id, e.a FROM customers AS c CROSS JOIN edges AS e

-- joins of joins, outer in inner and inner in outer
SELECT c.name, o.id, l.product FROM customers AS c LEFT JOIN (orders AS o JOIN lines AS l ON l.order_id = o.id) ON o.customer_id = c.id

-- self-join
SELECT x.a, y.b FROM edges AS x JOIN edges AS y ON x.b = y.a

-- join of aggregates
SELECT c.region, s.total FROM customers AS c LEFT JOIN (SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id) AS s ON s.customer_id = c.id

-- join of a set operation
SELECT c.id, u.b FROM customers AS c JOIN (SELECT a, b FROM edges UNION SELECT id, customer_id FROM orders) AS u ON u.a = c.id

# Subqueries

-- EXISTS
SELECT id FROM customers AS c WHERE EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id AND o.amount > 15)

-- NOT EXISTS
SELECT id FROM customers AS c WHERE NOT EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id)

-- IN
SELECT id FROM customers WHERE id IN (SELECT customer_id FROM orders)

-- NOT IN, with NULLs
SELECT id FROM customers WHERE id NOT IN (SELECT customer_id FROM orders WHERE customer_id IS NOT NULL OR amount > 15)

-- IN with several columns
SELECT id FROM orders WHERE (id, customer_id) IN (SELECT order_id, qty FROM lines)

-- = ANY and > ALL
SELECT id FROM orders WHERE customer_id = ANY (SELECT id FROM customers) AND amount > ALL (SELECT price FROM lines WHERE price < 9)

-- EXISTS under OR
SELECT id FROM customers AS c WHERE region = 'west' OR EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id)

-- subquery in CASE
SELECT id, CASE WHEN id IN (SELECT order_id FROM lines) THEN 'has lines' ELSE 'none' END AS what FROM orders

-- scalar subquery, uncorrelated
SELECT id FROM orders WHERE amount > (SELECT avg(amount) FROM orders)

-- scalar subquery, correlated
SELECT id, (SELECT sum(qty) FROM lines AS l WHERE l.order_id = o.id) AS qty FROM orders AS o

-- scalar subquery in HAVING
SELECT customer_id FROM orders GROUP BY customer_id HAVING sum(amount) > (SELECT avg(amount) FROM orders)

-- ARRAY(subquery)
SELECT id, ARRAY(SELECT product FROM lines AS l WHERE l.order_id = o.id ORDER BY product) AS products FROM orders AS o

-- EXISTS with HAVING
SELECT id FROM customers AS c WHERE EXISTS (SELECT customer_id FROM orders AS o WHERE o.customer_id = c.id GROUP BY customer_id HAVING count(*) > 1)

-- EXISTS with LIMIT and OFFSET
SELECT id FROM customers AS c WHERE EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id OFFSET 1) AND NOT EXISTS (SELECT FROM edges AS e WHERE e.a > c.id * 6 LIMIT 1)

-- LIMIT 1 of what is found by its key
SELECT id, (SELECT name FROM customers AS c WHERE c.id = o.customer_id LIMIT 1) AS customer FROM orders AS o

-- LATERAL subquery
SELECT c.id, s.n FROM customers AS c CROSS JOIN LATERAL (SELECT count(*) AS n FROM orders AS o WHERE o.customer_id = c.id) AS s

-- LEFT JOIN LATERAL
SELECT c.id, s.id AS order_id FROM customers AS c LEFT JOIN LATERAL (SELECT o.id FROM orders AS o WHERE o.customer_id = c.id AND o.amount > 15) AS s ON true

-- LATERAL with ORDER BY and LIMIT
SELECT c.id, s.amount FROM customers AS c CROSS JOIN LATERAL (SELECT o.amount FROM orders AS o WHERE o.customer_id = c.id ORDER BY o.amount DESC, o.id LIMIT 1) AS s

-- FULL JOIN in a correlated subquery
SELECT c.id, (SELECT count(*) FROM (SELECT id FROM orders WHERE customer_id = c.id) AS o FULL JOIN (SELECT id FROM orders WHERE amount > c.id) AS p USING (id)) AS n FROM customers AS c

-- LEFT JOIN LATERAL by a condition
SELECT c.id, x.n FROM customers AS c LEFT JOIN LATERAL (SELECT count(*) AS n FROM orders AS o WHERE o.customer_id = c.id) AS x ON x.n > 1 AND c.id NOT IN (SELECT qty FROM lines WHERE qty IS NOT NULL)

-- LATERAL in a join in an outer join
SELECT c.id, x.product, e.kind FROM customers AS c LEFT JOIN (events AS e RIGHT JOIN LATERAL (SELECT l.product, l.qty FROM lines AS l WHERE l.order_id = c.id) AS x ON e.id = x.qty) ON e.id > 1 OR x.product IS NOT NULL

-- LATERAL in a FULL JOIN beside what it refers to
SELECT c.id, x.product, e.kind FROM customers AS c, (events AS e FULL JOIN LATERAL (SELECT l.product, l.qty FROM lines AS l WHERE l.order_id = c.id) AS x ON e.id = x.qty)

-- subquery about both sides in ON of a LEFT JOIN
SELECT c.id, o.id AS oid FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id AND EXISTS (SELECT 1 FROM lines AS l WHERE l.order_id = o.id AND l.qty > c.id)

-- subquery about both sides in ON of a FULL JOIN
SELECT c.id, o.id AS oid FROM customers AS c FULL JOIN orders AS o ON o.customer_id = c.id AND o.amount > (SELECT coalesce(sum(l.qty), 0) * c.id FROM lines AS l WHERE l.order_id = o.id)

-- window in a LATERAL subquery
SELECT c.id, l.r FROM customers c CROSS JOIN LATERAL (SELECT o.id, rank() OVER (ORDER BY o.amount) AS r FROM orders o WHERE o.customer_id = c.id) l

-- derived table
SELECT d.region, d.n FROM (SELECT region, count(*) AS n FROM customers GROUP BY region) AS d WHERE d.n > 1

-- set-returning function in FROM
SELECT o.id, t.tag, t.place FROM orders AS o CROSS JOIN LATERAL unnest(o.tags) WITH ORDINALITY AS t (tag, place)

-- set-returning function in the select list
SELECT id, unnest(tags) AS tag FROM orders

-- jsonb functions in FROM
SELECT o.id, e.value FROM orders AS o CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN jsonb_typeof(o.doc -> 'list') = 'array' THEN o.doc -> 'list' ELSE '[]' END) AS e

-- ROWS FROM
SELECT o.id, r.a, r.b FROM orders AS o CROSS JOIN LATERAL ROWS FROM (generate_series(1, o.id), unnest(o.tags)) AS r (a, b)

-- rows of a table as values
SELECT to_jsonb(o) - 'doc' AS j, o.id FROM orders AS o LEFT JOIN customers AS c ON c.id = o.customer_id

-- aggregates of rows of a table
SELECT o.customer_id, count(o) AS n, jsonb_agg(o ORDER BY o.id) AS all_of_them FROM orders AS o GROUP BY o.customer_id

-- rows counted that an outer join may have padded
SELECT c.id, count(o.*) AS n FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id GROUP BY c.id

-- row that an outer join may have padded
SELECT o.id, to_jsonb(c) AS customer FROM orders AS o LEFT JOIN customers AS c ON c.id = o.customer_id

-- rows of a derived table as values
SELECT c.id, (SELECT json_agg(q) FROM (SELECT o.id, o.amount FROM orders AS o WHERE o.customer_id = c.id ORDER BY o.id) AS q) AS orders FROM customers AS c

-- rows of a derived table that an outer join may have padded
SELECT c.id, row_to_json(q) AS latest FROM customers AS c LEFT JOIN LATERAL (SELECT o.id, o.amount FROM orders AS o WHERE o.customer_id = c.id ORDER BY o.id DESC LIMIT 1) AS q ON true

-- function in FROM of subqueries
SELECT g.n, o.amount FROM generate_series((SELECT min(id) FROM orders), (SELECT max(id) + 1 FROM orders)) AS g (n) LEFT JOIN orders AS o ON o.id = g.n

-- function in FROM of a correlated subquery
SELECT c.id, g.n FROM customers AS c CROSS JOIN LATERAL generate_series(1, (SELECT count(*) FROM orders AS o WHERE o.customer_id = c.id)) AS g (n)

-- VALUES of subqueries
SELECT v.label, v.n FROM (VALUES ('customers', (SELECT count(*) FROM customers)), ('orders', (SELECT count(*) FROM orders)), ('none', 0)) AS v (label, n)

-- VALUES
SELECT c.id, v.label FROM customers AS c JOIN (VALUES ('north', 'N'), ('south', 'S')) AS v (region, label) ON v.region = c.region

# Aggregates

-- count, sum, avg, min, max
SELECT customer_id, count(*) AS n, count(amount) AS c, sum(amount) AS s, avg(amount) AS a, min(amount) AS lo, max(amount) AS hi FROM orders GROUP BY customer_id

-- without GROUP BY
SELECT count(*) AS n, sum(amount) AS s, max(placed) AS last FROM orders

-- HAVING
SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id HAVING count(*) > 1

-- FILTER
SELECT customer_id, count(*) FILTER (WHERE amount > 15) AS n FROM orders GROUP BY customer_id

-- DISTINCT in an aggregate
SELECT product, count(DISTINCT order_id) AS orders, sum(DISTINCT qty) AS s FROM lines GROUP BY product

-- DISTINCT of several columns in an aggregate
SELECT product, count(DISTINCT (order_id, qty)) AS n FROM lines GROUP BY product

-- grouping by a row
SELECT ROW(product, qty)::text AS line, count(*) AS n FROM lines GROUP BY ROW(product, qty)

-- ORDER BY in an aggregate
SELECT order_id, string_agg(product, ',' ORDER BY product) AS p, array_agg(qty ORDER BY qty, product) AS q FROM lines GROUP BY order_id

-- gathering from a sorted subquery, in its order
SELECT c.name, (SELECT jsonb_agg(q.id) FROM (SELECT o.id FROM orders AS o WHERE o.customer_id = c.id ORDER BY o.amount DESC, o.id) AS q) AS ids FROM customers AS c

-- gathering from a sorted query of WITH, in its order
WITH q AS (SELECT id FROM orders ORDER BY amount DESC, id) SELECT jsonb_agg(q.id) AS ids FROM q

-- bool_and, bool_or, bit_and, bit_or, bit_xor
SELECT order_id, bool_and(qty > 1) AS a, bool_or(qty > 1) AS b, bit_and(qty) AS c, bit_or(qty) AS d, bit_xor(qty) AS e FROM lines GROUP BY order_id

-- stddev, variance
SELECT product, stddev(qty) AS s, var_pop(qty) AS v FROM lines GROUP BY product

-- corr, covar, regr
SELECT product, regr_count(price, qty) AS n, corr(price::float8, qty::float8) AS c FROM lines GROUP BY product

-- ordered-set and hypothetical-set aggregates
SELECT product, percentile_cont(0.5) WITHIN GROUP (ORDER BY qty) AS median, mode() WITHIN GROUP (ORDER BY qty) AS mode, rank(2) WITHIN GROUP (ORDER BY qty) AS r FROM lines GROUP BY product

-- user-defined aggregate
SELECT order_id, product_of(qty) AS p FROM lines GROUP BY order_id

-- jsonb_agg, jsonb_object_agg
SELECT order_id, jsonb_agg(qty ORDER BY qty, product) AS j,
       jsonb_object_agg(coalesce(product, '?'), qty ORDER BY qty, price) AS o
  FROM lines GROUP BY order_id

-- grouping by an expression and by place
SELECT date_part('month', placed) AS month, amount > 15 AS big, count(*) AS n FROM orders GROUP BY 1, amount > 15

-- functional dependency on a primary key
SELECT c.id, c.name, count(*) AS n FROM customers AS c JOIN orders AS o ON o.customer_id = c.id GROUP BY c.id

-- GROUPING SETS
SELECT product, order_id, sum(qty) AS s, grouping(product, order_id) AS g FROM lines GROUP BY GROUPING SETS ((product), (order_id), ())

-- ROLLUP
SELECT product, order_id, count(*) AS n FROM lines GROUP BY ROLLUP (product, order_id)

-- CUBE
SELECT product, order_id, count(*) AS n FROM lines GROUP BY CUBE (product, order_id)

-- aggregate of an aggregate
SELECT n, count(*) AS times FROM (SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id) AS g GROUP BY n

# DISTINCT and set operations

-- DISTINCT
SELECT DISTINCT product, qty FROM lines

-- DISTINCT ON
SELECT DISTINCT ON (customer_id) customer_id, id, amount FROM orders ORDER BY customer_id, amount DESC NULLS LAST, id

-- UNION ALL
SELECT id FROM customers UNION ALL SELECT customer_id FROM orders

-- UNION
SELECT id FROM customers UNION SELECT customer_id FROM orders

-- INTERSECT
SELECT id FROM customers INTERSECT SELECT customer_id FROM orders

-- INTERSECT ALL
SELECT order_id FROM lines INTERSECT ALL SELECT customer_id FROM orders

-- EXCEPT
SELECT id FROM customers EXCEPT SELECT customer_id FROM orders

-- EXCEPT ALL
SELECT order_id FROM lines EXCEPT ALL SELECT id FROM orders

-- nested set operations
(SELECT id FROM customers UNION SELECT a FROM edges) EXCEPT (SELECT b FROM edges INTERSECT SELECT id FROM orders)

-- set operation of mixed types
SELECT id FROM customers UNION SELECT amount FROM orders

# Window functions

-- row_number, rank, dense_rank
SELECT id, customer_id, row_number() OVER w AS n, rank() OVER w AS r, dense_rank() OVER w AS d FROM orders WINDOW w AS (PARTITION BY customer_id ORDER BY amount DESC NULLS LAST, id)

-- running sum
SELECT id, customer_id, sum(amount) OVER (PARTITION BY customer_id ORDER BY id) AS s FROM orders

-- lag, lead, first_value, nth_value
SELECT id, lag(amount) OVER w AS a, lead(amount, 2, 0.0) OVER w AS b, first_value(id) OVER w AS c, nth_value(id, 2) OVER w AS d FROM orders WINDOW w AS (PARTITION BY customer_id ORDER BY id)

-- frames: ROWS, RANGE, GROUPS, EXCLUDE
SELECT id, sum(amount) OVER (PARTITION BY customer_id ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) AS a, count(*) OVER (PARTITION BY customer_id ORDER BY placed RANGE BETWEEN interval '7 days' PRECEDING AND CURRENT ROW) AS b FROM orders

-- several partitions in one query
SELECT id, count(*) OVER (PARTITION BY customer_id) AS a, count(*) OVER (PARTITION BY placed) AS b FROM orders

-- without PARTITION BY
SELECT id, row_number() OVER (ORDER BY amount DESC NULLS LAST, id) AS n FROM orders

-- over an aggregate
SELECT customer_id, sum(amount) AS s, rank() OVER (ORDER BY sum(amount) DESC NULLS LAST) AS r FROM orders GROUP BY customer_id

# ORDER BY and LIMIT

-- ORDER BY without LIMIT
SELECT id, amount FROM orders ORDER BY amount

-- ORDER BY … LIMIT
SELECT id, amount FROM orders ORDER BY amount DESC NULLS LAST, id LIMIT 2

-- ORDER BY … LIMIT … OFFSET
SELECT id, amount FROM orders ORDER BY id LIMIT 2 OFFSET 1

-- FETCH FIRST … WITH TIES
SELECT order_id, product FROM lines ORDER BY order_id FETCH FIRST 2 ROWS WITH TIES

-- LIMIT of a sorted subquery
SELECT q.id FROM (SELECT id, amount FROM orders ORDER BY amount DESC NULLS LAST, id) AS q WHERE q.amount > 5 LIMIT 2

-- LIMIT without ORDER BY
--! DIFFERENTIAL refuses LIMIT without ORDER BY
SELECT id FROM orders LIMIT 2

-- FOR UPDATE
--! DIFFERENTIAL refuses FOR UPDATE
SELECT id FROM orders FOR UPDATE

# WITH

-- WITH, used twice
WITH t AS (SELECT customer_id, sum(amount) AS s FROM orders GROUP BY customer_id) SELECT x.customer_id, y.s FROM t AS x JOIN t AS y ON x.s < y.s

-- WITH MATERIALIZED, nested
WITH t AS MATERIALIZED (WITH u AS (SELECT id FROM orders WHERE amount > 15) SELECT id FROM u) SELECT l.product FROM lines AS l JOIN t ON t.id = l.order_id

-- WITH RECURSIVE, UNION
WITH RECURSIVE reach (a, b) AS (SELECT a, b FROM edges UNION SELECT r.a, e.b FROM reach AS r JOIN edges AS e ON e.a = r.b) SELECT a, b FROM reach

-- WITH RECURSIVE, UNION ALL
WITH RECURSIVE path (a, b, steps) AS (SELECT a, b, 1 FROM edges UNION ALL SELECT p.a, e.b, p.steps + 1 FROM path AS p JOIN edges AS e ON e.a = p.b WHERE p.steps < 3) SELECT a, b, steps FROM path

-- WITH RECURSIVE, SEARCH and CYCLE
WITH RECURSIVE path (a, b) AS (SELECT a, b FROM edges UNION ALL SELECT e.a, e.b FROM path AS p JOIN edges AS e ON e.a = p.b) SEARCH BREADTH FIRST BY a SET place CYCLE b SET again USING way SELECT a, b, again FROM path

-- WITH RECURSIVE, read twice
WITH RECURSIVE reach (b) AS (SELECT b FROM edges WHERE a = 1 UNION SELECT e.b FROM reach AS r JOIN edges AS e ON e.a = r.b) SELECT x.b, y.b AS c FROM reach AS x JOIN reach AS y ON x.b < y.b

# Expressions

-- CASE, COALESCE, NULLIF, GREATEST
SELECT id, CASE WHEN amount > 15 THEN 'big' WHEN amount IS NULL THEN 'none' END AS size, coalesce(amount, 0) AS a, nullif(id, 3) AS n, greatest(amount, 15) AS g FROM orders

-- numbers and dates put into texts by ||
SELECT id || ':' || amount AS label, placed || 'x' AS day, 'no. ' || id AS n FROM orders

-- arrays, rows and json
SELECT id, tags || ARRAY['x'] AS t, tags[1] AS first, doc ->> 'n' AS n, doc @> '{"n": 1}' AS one FROM orders

-- IS DISTINCT FROM, BETWEEN, LIKE, SIMILAR TO, regular expressions
SELECT id FROM customers WHERE name IS DISTINCT FROM 'bob' AND (name LIKE 'a%' OR name SIMILAR TO '(d|e)%' OR name ~ '^l' OR id BETWEEN 2 AND 3)

-- immutable function of one's own
SELECT id, doubled(id) AS twice FROM orders

-- row comparison
SELECT id FROM orders WHERE (customer_id, id) > (1, 1)

-- COLLATE and casts
SELECT name COLLATE "C" AS name, id::text || '!' AS t FROM customers WHERE name COLLATE "C" < 'c'

-- STABLE function of one's own
--! every mode runs it at each refresh
SELECT id, orders_of(id) AS n FROM customers

-- volatile function
--! DIFFERENTIAL refuses volatile function random()
--! AUTO refuses volatile function random()
SELECT id, random() AS r FROM orders

-- session value
--! every mode runs it at each refresh
SELECT id, CURRENT_USER AS who FROM orders

# Time

-- rows of the last hour
SELECT id, kind FROM events WHERE ts > now() - interval '1 hour'

-- grouped rows of the last hour
SELECT kind, count(*) AS n FROM events WHERE ts > now() - interval '1 hour' AND ts <= now() GROUP BY kind

-- time in an aggregate's FILTER
SELECT kind, count(*) AS n, count(DISTINCT id) FILTER (WHERE ts > now() - interval '1 hour') AS late FROM events GROUP BY kind

-- time in CASE
SELECT id, CASE WHEN ts > now() - interval '1 hour' THEN 'new' ELSE 'old' END AS state FROM events

-- time in CASE in an aggregate
SELECT kind, sum(CASE WHEN ts > now() - interval '1 hour' THEN 1 ELSE 0 END) AS late FROM events GROUP BY kind

-- time in FILTER of an aggregate that is read again
SELECT kind, array_agg(id ORDER BY id) FILTER (WHERE ts > now() - interval '1 hour') AS late FROM events GROUP BY kind

-- time in ON of an outer join
SELECT a.id, b.id AS later FROM events AS a LEFT JOIN events AS b ON b.kind = a.kind AND b.ts > now() - interval '1 hour'

-- time about both sides in ON of an outer join
SELECT a.id, b.id AS later FROM events AS a LEFT JOIN events AS b ON b.kind = a.kind AND b.ts > now() - a.id * interval '20 minutes'

-- time named by WITH
WITH t AS (SELECT now() - interval '1 hour' AS since) SELECT e.id, e.kind FROM events AS e CROSS JOIN t WHERE e.ts > t.since

-- days from today
SELECT id, CURRENT_DATE - ts::date AS days FROM events

-- time in the select list
--! a part of it has no rule
SELECT id, now() - ts AS age FROM events

# Sources

-- table without a key
SELECT product, qty FROM lines

-- view on a view
SELECT name, sum(amount) AS s FROM big_customers GROUP BY name

-- partitioned table
SELECT part, sum(v) AS s FROM parted GROUP BY part

-- one partition
SELECT id, v FROM parted_1

-- table with inheritance children
SELECT id, v FROM parent

-- ONLY the parent
--! a part of it has no rule
SELECT id, v FROM ONLY parent

-- materialized view
SELECT region, n FROM stored WHERE n > 0

-- system catalog
--! DIFFERENTIAL refuses system catalog "pg_class"
SELECT relname::text AS relname FROM pg_class WHERE relname = 'customers'

-- enums, domains, composites, ranges, json, generated columns
SELECT id, m, d, p, r, j, twice FROM typed

-- grouped by an enum, a composite, a range
SELECT m, p, r, count(*) AS n FROM typed GROUP BY m, p, r

# Constants

-- without FROM
SELECT 1 AS one, 'x' AS x
