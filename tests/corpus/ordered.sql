-- windows that partition alike, shown with their key
SELECT o.id, o.customer_id, rank() OVER (PARTITION BY o.customer_id ORDER BY o.amount DESC) AS place, count(*) OVER (PARTITION BY o.customer_id) AS n FROM public.orders o;
--| key: id
--| captured: orders (id, customer_id, amount)
--| state_9_1: Window by (customer_id__1) id__1, customer_id__1, rank__1=rank() OVER (PARTITION BY customer_id__1 ORDER BY amount__1 DESC), count__1=count(*) OVER (PARTITION BY customer_id__1)
--|   Scan public.orders (id__1, customer_id__1, amount__1)
--| final:
--|   Scan state_9_1 (id__1, customer_id__1, rank__1, count__1)

-- windows whose key isn't shown, inside an expression
SELECT o.id, 1 + row_number() OVER (PARTITION BY o.customer_id ORDER BY o.id) AS next FROM public.orders o;
--| key: id
--| captured: orders (id, customer_id)
--| state_9_1: Window by (customer_id__1) id__1, customer_id__1, row_number__1=row_number() OVER (PARTITION BY customer_id__1 ORDER BY id__1)
--|   Scan public.orders (id__1, customer_id__1)
--| final:
--|   Project id__1, next__1=1 + row_number__1
--|     Scan state_9_1 (id__1, customer_id__1, row_number__1)

-- windows of two partitionings, one after the other
SELECT o.id, o.paid, o.customer_id, count(*) OVER (PARTITION BY o.customer_id) AS a, count(*) OVER (PARTITION BY o.paid) AS b FROM public.orders o;
--| key: id
--| captured: orders (id, customer_id, paid)
--| state_9_1: Window by (customer_id__1) id__1, paid__1, customer_id__1, count__1=count(*) OVER (PARTITION BY customer_id__1)
--|   Project id__1, paid__1, customer_id__1
--|     Scan public.orders (id__1, customer_id__1, paid__1)
--| state_9_2: Window by (paid__1) id__1, paid__1, customer_id__1, count__1, count__2=count(*) OVER (PARTITION BY paid__1)
--|   Scan state_9_1 (id__1, paid__1, customer_id__1, count__1)
--| final:
--|   Scan state_9_2 (id__1, paid__1, customer_id__1, count__1, count__2)

-- a window over aggregates
SELECT o.customer_id, sum(count(*)) OVER (PARTITION BY o.paid) AS n FROM public.orders o GROUP BY o.customer_id, o.paid;
--| key: none
--| captured: orders (customer_id, paid)
--| state_9_1: by customer_id__1, paid__1: n rows
--|   Scan public.orders (customer_id__1, paid__1)
--| state_9_2: Window by (paid__1) customer_id__1, paid__1, sum__1=sum(count__1) OVER (PARTITION BY paid__1)
--|   Project customer_id__1, count__1, paid__1
--|     Project customer_id__1="state_9_1_k1", paid__1="state_9_1_k2", count__1="state_9_1_n"
--|       Scan state_9_1 (state_9_1_h, state_9_1_k1, state_9_1_k2, state_9_1_n)
--| final:
--|   Project customer_id__1, sum__1
--|     Scan state_9_2 (customer_id__1, paid__1, sum__1)

-- a filter on the partition goes below the window
SELECT q.id, q.place FROM (SELECT o.id, o.customer_id, rank() OVER (PARTITION BY o.customer_id ORDER BY o.amount) AS place FROM public.orders o) q WHERE q.customer_id = 7 AND q.place = 1;
--| key: id
--| captured: orders (id, customer_id, amount)
--| state_9_1: Window by (customer_id__1) id__1, customer_id__1, rank__1=rank() OVER (PARTITION BY customer_id__1 ORDER BY amount__1) where rank__1 = 1
--|   Filter customer_id__1 = 7
--|     Scan public.orders (id__1, customer_id__1, amount__1)
--| final:
--|   Project id__1, rank__1
--|     Scan state_9_1 (id__1, customer_id__1, rank__1)

-- DISTINCT ON
SELECT DISTINCT ON (o.customer_id) o.customer_id, o.id FROM public.orders o ORDER BY o.customer_id, o.placed DESC;
--| key: customer_id
--| captured: orders (id, customer_id, placed)
--| state_9_1: DistinctOn by (customer_id__1) order customer_id__1 asc nulls last, placed__1 desc nulls first: customer_id__1, id__1
--|   Project customer_id__1, id__1, placed__1
--|     Scan public.orders (id__1, customer_id__1, placed__1)
--| final:
--|   Scan state_9_1 (customer_id__1, id__1)

-- the first rows
SELECT o.id, o.amount FROM public.orders o ORDER BY o.amount DESC NULLS LAST, o.id LIMIT 3;
--| key: id
--| captured: orders (id, amount)
--| state_9_1: TopK order amount__1 desc nulls last, id__1 asc nulls last limit 3
--|   Scan public.orders (id__1, amount__1)
--| final:
--|   Scan state_9_1 (id__1, amount__1)

-- the first rows after some, by a column that isn't shown
SELECT o.id FROM public.orders o ORDER BY o.amount LIMIT 3 OFFSET 2;
--| key: id
--| captured: orders (id, amount)
--| state_9_1: TopK order amount__1 asc nulls last limit (3)::bigint + coalesce((2)::bigint, 0)
--|   Scan public.orders (id__1, amount__1)
--| state_9_2: TopK order amount__1 asc nulls last offset 2 limit 3
--|   Scan state_9_1 (id__1, amount__1)
--| final:
--|   Project id__1
--|     Scan state_9_2 (id__1, amount__1)

-- LIMIT in a derived table
SELECT q.id, c.name FROM (SELECT o.id, o.customer_id FROM public.orders o ORDER BY o.amount FETCH FIRST 3 ROWS WITH TIES) q JOIN public.customers c ON c.id = q.customer_id;
--| key: id
--| captured: customers (id, name); orders (id, customer_id, amount)
--| state_9_1: TopK order amount__1 asc nulls last limit 3 with ties
--|   Scan public.orders (id__1, customer_id__1, amount__1)
--| when orders changed:
--|   Changes public.orders (id__1, customer_id__1, amount__1)
--| final:
--|   Project id__1, name__1
--|     Join id__2 = customer_id__1
--|       Project id__1, customer_id__1
--|         Scan state_9_1 (id__1, customer_id__1, amount__1)
--|       Scan public.customers (id__2, name__1)
--| when customers changed:
--|   Project id__1, name__1
--|     UnionAll
--|       UnionAll
--|         Join id__2 = customer_id__1
--|           Project id__1, customer_id__1
--|             Changes state_9_1 (id__1, customer_id__1, amount__1)
--|           Scan public.customers (id__2, name__1)
--|         Join id__2 = customer_id__1
--|           Project id__1, customer_id__1
--|             Scan state_9_1 (id__1, customer_id__1, amount__1)
--|           Changes public.customers (id__2, name__1)
--|       Negate
--|         Join id__2 = customer_id__1
--|           Project id__1, customer_id__1
--|             Changes state_9_1 (id__1, customer_id__1, amount__1)
--|           Changes public.customers (id__2, name__1)
--| when orders changed:
--|   Project id__1, name__1
--|     Join id__2 = customer_id__1
--|       Project id__1, customer_id__1
--|         Changes state_9_1 (id__1, customer_id__1, amount__1)
--|       Scan public.customers (id__2, name__1)
