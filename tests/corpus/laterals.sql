-- a function of the row in FROM
SELECT o.id, g.g FROM public.orders o, LATERAL generate_series(1, o.customer_id) g(g) WHERE o.paid AND g.g > 2;
--| key: none
--| captured: orders (id, customer_id, paid)
--| final:
--|   Project id__1, g__1
--|     Filter g__1 > 2
--|       Lateral LATERAL generate_series(1, __pgt_l.customer_id__1) __pgt_f(g__1)
--|         Filter "paid__1"
--|           Scan public.orders (id__1, customer_id__1, paid__1)

-- LEFT JOIN LATERAL keeps rows without a match
SELECT o.id, g.g FROM public.orders o LEFT JOIN LATERAL generate_series(1, o.customer_id) g(g) ON g.g > 1;
--| key: none
--| captured: orders (id, customer_id)
--| final:
--|   Project id__1, g__1
--|     Lateral LATERAL generate_series(1, __pgt_l.customer_id__1) __pgt_f(g__1) or NULLs, on g__1 > 1
--|       Scan public.orders (id__1, customer_id__1)

-- ordinality and a key
SELECT o.id, g.g, g.place FROM public.orders o, LATERAL generate_series(5, o.customer_id) WITH ORDINALITY g(g, place);
--| key: id, place
--| captured: orders (id, customer_id)
--| final:
--|   Project id__1, g__1, place__1
--|     Lateral LATERAL generate_series(5, __pgt_l.customer_id__1) WITH ORDINALITY __pgt_f(g__1, place__1)
--|       Scan public.orders (id__1, customer_id__1)

-- VALUES joined
SELECT c.id, v.name FROM public.customers c JOIN (VALUES ('n'::text, 'north'::text), ('s'::text, 'south'::text)) v(region, name) ON v.region = c.region;
--| key: none
--| captured: customers (id, region)
--| final:
--|   Project id__1, column2__1
--|     Join column1__1 = region__1
--|       Scan public.customers (id__1, region__1)
--|       Lateral LATERAL (VALUES ('n'::text, 'north'::text), ('s'::text, 'south'::text)) __pgt_f(column1__1, column2__1)
--|         Unit ()

-- VALUES of the row's columns, grouped
SELECT v.kind, sum(v.amount) AS total FROM public.orders o CROSS JOIN LATERAL (VALUES ('a'::text, o.amount), ('b'::text, o.amount * 2)) v(kind, amount) GROUP BY v.kind;
--| key: kind
--| captured: orders (amount)
--| state_9_1: by kind__1: n rows, c1 count, fs1 finite_sum, nan1 count_nan
--|   Project kind__1, amount__2
--|     Lateral LATERAL (VALUES ('a'::text, __pgt_l.amount__1), ('b'::text, __pgt_l.amount__1 * 2)) __pgt_f(kind__1, amount__2)
--|       Scan public.orders (amount__1)
--| final:
--|   Project kind__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 THEN 'NaN'::numeric WHEN "state_9_1_c1" > 0 THEN "state_9_1_fs1" END
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1)

-- a lateral subquery over constants
SELECT o.id, q.y FROM public.orders o, LATERAL (SELECT max(x.v) AS y FROM (VALUES (o.id), (o.customer_id)) x(v)) q;
--| key: none
--| captured: orders (id, customer_id)
--| final:
--|   Project id__1, y__1
--|     Lateral LATERAL (SELECT max(x.v) AS y FROM (VALUES (__pgt_l.id__1), (__pgt_l.customer_id__1)) x(v)) __pgt_f(y__1)
--|       Scan public.orders (id__1, customer_id__1)

-- sets in the select list, in lock step
SELECT o.id, generate_series(1, o.customer_id) AS a, generate_series(1, o.id) + 1 AS b FROM public.orders o;
--| key: none
--| captured: orders (id, customer_id)
--| final:
--|   Project id__1, a__1, b__1
--|     Lateral LATERAL (SELECT generate_series(1, customer_id__1), generate_series(1, id__1) + 1) AS "__pgt_f"("a__1", "b__1")
--|       Scan public.orders (id__1, customer_id__1)

-- a set over groups, grouped by another
SELECT generate_series(1, v.seconds) AS a, generate_series(1::bigint, count(*)) AS b FROM public.visits v GROUP BY (generate_series(1, v.seconds));
--| key: none
--| captured: visits (seconds)
--| state_9_1: by key__1: n rows
--|   Project key__1="key__1__1"
--|     Lateral LATERAL (SELECT generate_series(1, seconds__1)) AS "__pgt_f"("key__1__1")
--|       Scan public.visits (seconds__1)
--| final:
--|   Project key__1, b__1
--|     Lateral LATERAL (SELECT generate_series(1::bigint, count__1)) AS "__pgt_f"("b__1")
--|       Project key__1="state_9_1_k1", count__1="state_9_1_n"
--|         Scan state_9_1 (state_9_1_k1, state_9_1_n)
