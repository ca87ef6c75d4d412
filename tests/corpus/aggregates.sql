-- counters, sums and averages
SELECT o.customer_id, count(*) AS n, count(o.placed) AS placed, sum(o.amount) AS total, avg(o.amount) AS mean FROM public.orders o GROUP BY o.customer_id;
--| key: customer_id
--| captured: orders (customer_id, amount, placed)
--| state_9_1: by customer_id__1: n rows, c1 count, c2 count, fs1 finite_sum, nan1 count_nan
--|   Project customer_id__1, placed__1, amount__1
--|     Scan public.orders (customer_id__1, amount__1, placed__1)
--| final:
--|   Project customer_id__1="state_9_1_k1", count__1="state_9_1_n", count__2="state_9_1_c1", sum__1=CASE WHEN "state_9_1_nan1" > 0 THEN 'NaN'::numeric WHEN "state_9_1_c2" > 0 THEN "state_9_1_fs1" END, avg__1=CASE WHEN "state_9_1_nan1" > 0 THEN 'NaN'::numeric WHEN "state_9_1_c2" > 0 THEN "state_9_1_fs1" / "state_9_1_c2" END
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_c2, state_9_1_fs1, state_9_1_nan1)

-- minimum and maximum
SELECT v.page, min(v.seconds) AS low, max(v.seen) AS latest FROM public.visits v GROUP BY v.page;
--| key: page
--| captured: visits (page, seconds, seen)
--| state_9_1: by page__1: n rows, min1 min, max1 max
--|   Scan public.visits (page__1, seconds__1, seen__1)
--| final:
--|   Project page__1="state_9_1_k1", min__1="state_9_1_min1", max__1="state_9_1_max1"
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_min1, state_9_1_max1)

-- a sum of numbers with any scale counts NaN and infinities apart
SELECT i.product, sum(i.price) AS total FROM public.items i GROUP BY i.product;
--| key: product
--| captured: items (product, price)
--| state_9_1: by product__1: n rows, c1 count, fs1 finite_sum, nan1 count_nan, pinf1 count_positive_infinity, ninf1 count_negative_infinity
--|   Scan public.items (product__1, price__1)
--| final:
--|   Project product__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 OR ("state_9_1_pinf1" > 0 AND "state_9_1_ninf1" > 0) THEN 'NaN'::numeric WHEN "state_9_1_pinf1" > 0 THEN 'Infinity'::numeric WHEN "state_9_1_ninf1" > 0 THEN '-Infinity'::numeric WHEN "state_9_1_c1" > 0 THEN "state_9_1_fs1" END
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1, state_9_1_pinf1, state_9_1_ninf1)

-- a sum of numbers with any scale is counted while only its value is told
SELECT i.product, COALESCE(sum(i.price), 0) * 2 AS total FROM public.items i GROUP BY i.product HAVING sum(i.price) > 5;
--| key: product
--| captured: items (product, price)
--| state_9_1: by product__1: n rows, c1 count, fs1 finite_sum, nan1 count_nan, pinf1 count_positive_infinity, ninf1 count_negative_infinity
--|   Scan public.items (product__1, price__1)
--| final:
--|   Project product__1, total__1=COALESCE(sum__1, 0) * 2
--|     Filter sum__1 > 5
--|       Project product__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 OR ("state_9_1_pinf1" > 0 AND "state_9_1_ninf1" > 0) THEN 'NaN'::numeric WHEN "state_9_1_pinf1" > 0 THEN 'Infinity'::numeric WHEN "state_9_1_ninf1" > 0 THEN '-Infinity'::numeric WHEN "state_9_1_c1" > 0 THEN "state_9_1_fs1" END
--|         Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1, state_9_1_pinf1, state_9_1_ninf1)

-- its decimals are told: such a sum is added up afresh
SELECT i.product, sum(i.price) / count(*)::numeric AS mean FROM public.items i GROUP BY i.product;
--| key: product
--| captured: items (product, price)
--| state_9_1: by product__1: n rows, c1 count, fs1 finite_sum, nan1 count_nan, pinf1 count_positive_infinity, ninf1 count_negative_infinity, scs1 scales
--|   Scan public.items (product__1, price__1)
--| final:
--|   Project product__1, mean__1=sum__1 / count__1::numeric
--|     Project product__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 OR ("state_9_1_pinf1" > 0 AND "state_9_1_ninf1" > 0) THEN 'NaN'::numeric WHEN "state_9_1_pinf1" > 0 THEN 'Infinity'::numeric WHEN "state_9_1_ninf1" > 0 THEN '-Infinity'::numeric WHEN "state_9_1_c1" > 0 THEN (trim_scale("state_9_1_fs1") + ('0e-' || 1 * ((length("state_9_1_scs1"::text) - 1) / 16))::numeric) END, count__1="state_9_1_n"
--|       Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1, state_9_1_pinf1, state_9_1_ninf1, state_9_1_scs1)

-- where it is known how many decimals there may be, those that have so many are counted
SELECT i.product, sum(CASE WHEN i.product > 5 THEN i.price::numeric(10, 2) ELSE 0::numeric END) / 7::numeric AS share FROM public.items i GROUP BY i.product;
--| key: product
--| captured: items (product, price)
--| state_9_1: by product__1: n rows, c1 count, fs1 finite_sum, nan1 count_nan, sc1 count_scale, sc2 count_scale
--|   Project product__1, arg__1=CASE WHEN product__1 > 5 THEN price__1::numeric(10, 2) ELSE 0::numeric END
--|     Scan public.items (product__1, price__1)
--| final:
--|   Project product__1, share__1=sum__1 / 7::numeric
--|     Project product__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 THEN 'NaN'::numeric WHEN "state_9_1_c1" > 0 THEN round("state_9_1_fs1", CASE WHEN "state_9_1_sc1" > 0 THEN 2 WHEN "state_9_1_sc2" > 0 THEN 0 END) END
--|       Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1, state_9_1_sc1, state_9_1_sc2)

-- whoever reads a derived table may tell its decimals
SELECT q.product, q.total FROM (SELECT i.product, sum(i.price) AS total FROM public.items i GROUP BY i.product) q;
--| key: product
--| captured: items (product, price)
--| state_9_1: by product__1: n rows, c1 count, fs1 finite_sum, nan1 count_nan, pinf1 count_positive_infinity, ninf1 count_negative_infinity, scs1 scales
--|   Scan public.items (product__1, price__1)
--| final:
--|   Project product__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 OR ("state_9_1_pinf1" > 0 AND "state_9_1_ninf1" > 0) THEN 'NaN'::numeric WHEN "state_9_1_pinf1" > 0 THEN 'Infinity'::numeric WHEN "state_9_1_ninf1" > 0 THEN '-Infinity'::numeric WHEN "state_9_1_c1" > 0 THEN (trim_scale("state_9_1_fs1") + ('0e-' || 1 * ((length("state_9_1_scs1"::text) - 1) / 16))::numeric) END
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1, state_9_1_pinf1, state_9_1_ninf1, state_9_1_scs1)

-- floats are summed up afresh
SELECT i.product, sum(i.weight) AS total FROM public.items i GROUP BY i.product;
--| key: product
--| captured: items (product, weight)
--| state_9_1: by product__1: n rows, v1 value
--|   Scan public.items (product__1, weight__1)
--| final:
--|   Project product__1="state_9_1_k1", sum__1="state_9_1_v1"
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_v1)

-- FILTER
SELECT o.customer_id, count(*) FILTER (WHERE o.paid) AS paid, sum(o.amount) FILTER (WHERE NOT o.paid) AS due FROM public.orders o GROUP BY o.customer_id;
--| key: customer_id
--| captured: orders (customer_id, amount, paid)
--| state_9_1: by customer_id__1: n rows, c1 count, c2 count, fs1 finite_sum, nan1 count_nan
--|   Project customer_id__1, paid__1, amount__1, filter__1=NOT paid__1
--|     Scan public.orders (customer_id__1, amount__1, paid__1)
--| final:
--|   Project customer_id__1="state_9_1_k1", count__1="state_9_1_c1", sum__1=CASE WHEN "state_9_1_nan1" > 0 THEN 'NaN'::numeric WHEN "state_9_1_c2" > 0 THEN "state_9_1_fs1" END
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_c2, state_9_1_fs1, state_9_1_nan1)

-- booleans
SELECT o.customer_id, bool_and(o.paid) AS every_one, bool_or(o.paid) AS any_one FROM public.orders o GROUP BY o.customer_id;
--| key: customer_id
--| captured: orders (customer_id, paid)
--| state_9_1: by customer_id__1: n rows, c1 count, f1 count_false, t1 count_true
--|   Scan public.orders (customer_id__1, paid__1)
--| final:
--|   Project customer_id__1="state_9_1_k1", bool_and__1=CASE WHEN "state_9_1_c1" > 0 THEN "state_9_1_f1" = 0 END, bool_or__1=CASE WHEN "state_9_1_c1" > 0 THEN "state_9_1_t1" > 0 END
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_f1, state_9_1_t1)

-- aggregates without a rule of their own
SELECT v.page, count(DISTINCT v.customer_id) AS visitors, string_agg(v.page, ','::text ORDER BY v.seen) AS pages FROM public.visits v GROUP BY v.page;
--| key: page
--| captured: visits (customer_id, page, seen)
--| state_9_1: by page__1: n rows, v1 value, v2 value
--|   Project page__1, customer_id__1, seen__1
--|     Scan public.visits (customer_id__1, page__1, seen__1)
--| final:
--|   Project page__1="state_9_1_k1", count__1="state_9_1_v1", string_agg__1="state_9_1_v2"
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_v1, state_9_1_v2)

-- without GROUP BY there is always one row
SELECT count(*) AS n, sum(o.amount) AS total FROM public.orders o;
--| key: none
--| captured: orders (amount)
--| state_9_1: by nothing: n rows, c1 count, fs1 finite_sum, nan1 count_nan
--|   Scan public.orders (amount__1)
--| final:
--|   Project count__1="state_9_1_n", sum__1=CASE WHEN "state_9_1_nan1" > 0 THEN 'NaN'::numeric WHEN "state_9_1_c1" > 0 THEN "state_9_1_fs1" END
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1)

-- HAVING hides groups that the state keeps
SELECT v.page, count(*) AS n FROM public.visits v GROUP BY v.page HAVING sum(v.seconds) > 100;
--| key: page
--| captured: visits (page, seconds)
--| state_9_1: by page__1: n rows, c1 count, s1 sum
--|   Scan public.visits (page__1, seconds__1)
--| final:
--|   Project page__1, count__1
--|     Filter sum__1 > 100
--|       Project page__1="state_9_1_k1", count__1="state_9_1_n", sum__1=CASE WHEN "state_9_1_c1" > 0 THEN "state_9_1_s1" END
--|         Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_s1)

-- an expression over aggregates
SELECT o.customer_id, 100::numeric * sum(o.amount) / count(*)::numeric AS x, COALESCE(sum(o.amount), 0::numeric) + 1::numeric AS y FROM public.orders o GROUP BY o.customer_id;
--| key: customer_id
--| captured: orders (customer_id, amount)
--| state_9_1: by customer_id__1: n rows, c1 count, fs1 finite_sum, nan1 count_nan
--|   Scan public.orders (customer_id__1, amount__1)
--| final:
--|   Project customer_id__1, x__1=(100::numeric * sum__1) / count__1::numeric, y__1=COALESCE(sum__1, 0::numeric) + 1::numeric
--|     Project customer_id__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 THEN 'NaN'::numeric WHEN "state_9_1_c1" > 0 THEN "state_9_1_fs1" END, count__1="state_9_1_n"
--|       Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1)

-- grouped by an expression
SELECT o.customer_id % 10 AS bucket, count(*) AS n FROM public.orders o GROUP BY (o.customer_id % 10);
--| key: bucket
--| captured: orders (customer_id)
--| state_9_1: by key__1: n rows
--|   Project key__1=customer_id__1 % 10
--|     Scan public.orders (customer_id__1)
--| final:
--|   Project key__1="state_9_1_k1", count__1="state_9_1_n"
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n)

-- over a join of three
SELECT c.region, sum(i.price) AS total FROM public.orders o JOIN public.items i ON i.order_id = o.id JOIN public.customers c ON c.id = o.customer_id GROUP BY c.region;
--| key: region
--| captured: customers (id, region); orders (id, customer_id); items (order_id, price)
--| state_9_1: by region__1: n rows, c1 count, fs1 finite_sum, nan1 count_nan, pinf1 count_positive_infinity, ninf1 count_negative_infinity
--|   Project region__1, price__1
--|     Join order_id__1 = id__1
--|       Join id__2 = customer_id__1
--|         Scan public.orders (id__1, customer_id__1)
--|         Scan public.customers (id__2, region__1)
--|       Scan public.items (order_id__1, price__1)
--| when customers changed:
--|   Project region__1, price__1
--|     Join order_id__1 = id__1
--|       Join id__2 = customer_id__1
--|         Scan public.orders (id__1, customer_id__1)
--|         Changes public.customers (id__2, region__1)
--|       Scan public.items (order_id__1, price__1)
--| when orders changed:
--|   Project region__1, price__1
--|     Join order_id__1 = id__1
--|       Join id__2 = customer_id__1
--|         Changes public.orders (id__1, customer_id__1)
--|         Scan public.customers (id__2, region__1)
--|       Scan public.items (order_id__1, price__1)
--| when items changed:
--|   Project region__1, price__1
--|     Join order_id__1 = id__1
--|       Join id__2 = customer_id__1
--|         Scan public.orders (id__1, customer_id__1)
--|         Scan public.customers (id__2, region__1)
--|       Changes public.items (order_id__1, price__1)
--| final:
--|   Project region__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 OR ("state_9_1_pinf1" > 0 AND "state_9_1_ninf1" > 0) THEN 'NaN'::numeric WHEN "state_9_1_pinf1" > 0 THEN 'Infinity'::numeric WHEN "state_9_1_ninf1" > 0 THEN '-Infinity'::numeric WHEN "state_9_1_c1" > 0 THEN "state_9_1_fs1" END
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1, state_9_1_pinf1, state_9_1_ninf1)
--| when customers changed:
--|   Project region__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 OR ("state_9_1_pinf1" > 0 AND "state_9_1_ninf1" > 0) THEN 'NaN'::numeric WHEN "state_9_1_pinf1" > 0 THEN 'Infinity'::numeric WHEN "state_9_1_ninf1" > 0 THEN '-Infinity'::numeric WHEN "state_9_1_c1" > 0 THEN "state_9_1_fs1" END
--|     Changes state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1, state_9_1_pinf1, state_9_1_ninf1)
--| when orders changed:
--|   Project region__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 OR ("state_9_1_pinf1" > 0 AND "state_9_1_ninf1" > 0) THEN 'NaN'::numeric WHEN "state_9_1_pinf1" > 0 THEN 'Infinity'::numeric WHEN "state_9_1_ninf1" > 0 THEN '-Infinity'::numeric WHEN "state_9_1_c1" > 0 THEN "state_9_1_fs1" END
--|     Changes state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1, state_9_1_pinf1, state_9_1_ninf1)
--| when items changed:
--|   Project region__1="state_9_1_k1", sum__1=CASE WHEN "state_9_1_nan1" > 0 OR ("state_9_1_pinf1" > 0 AND "state_9_1_ninf1" > 0) THEN 'NaN'::numeric WHEN "state_9_1_pinf1" > 0 THEN 'Infinity'::numeric WHEN "state_9_1_ninf1" > 0 THEN '-Infinity'::numeric WHEN "state_9_1_c1" > 0 THEN "state_9_1_fs1" END
--|     Changes state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_nan1, state_9_1_pinf1, state_9_1_ninf1)

-- DISTINCT
SELECT DISTINCT v.page, v.customer_id FROM public.visits v;
--| key: page, customer_id
--| captured: visits (customer_id, page)
--| state_9_1: by page__1, customer_id__1: n rows
--|   Project page__1, customer_id__1
--|     Scan public.visits (customer_id__1, page__1)
--| final:
--|   Project page__1="state_9_1_k1", customer_id__1="state_9_1_k2"
--|     Scan state_9_1 (state_9_1_h, state_9_1_k1, state_9_1_k2, state_9_1_n)

-- UNION
SELECT o.id FROM public.orders o UNION SELECT c.id FROM public.customers c;
--| key: id
--| captured: customers (id); orders (id)
--| state_9_1: by id__1: n rows
--|   UnionAll
--|     Scan public.orders (id__1)
--|     Scan public.customers (id__2)
--| when customers changed:
--|   Project id__1="id__2"
--|     Changes public.customers (id__2)
--| when orders changed:
--|   Changes public.orders (id__1)
--| final:
--|   Project id__1="state_9_1_k1"
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n)
--| when customers changed:
--|   Project id__1="state_9_1_k1"
--|     Changes state_9_1 (state_9_1_k1, state_9_1_n)
--| when orders changed:
--|   Project id__1="state_9_1_k1"
--|     Changes state_9_1 (state_9_1_k1, state_9_1_n)

-- distinct arguments are a stage of their own
SELECT v.page, count(DISTINCT v.customer_id) AS visitors, sum(v.seconds) AS total, count(*) AS n FROM public.visits v GROUP BY v.page;
--| key: page
--| captured: visits (customer_id, page, seconds)
--| state_9_1: by distinct__1, distinct__2: n rows
--|   Project distinct__1="page__1", distinct__2="arg__1"
--|     Filter "arg__1" IS DISTINCT FROM NULL
--|       Project page__1, arg__1="customer_id__1"
--|         Scan public.visits (customer_id__1, page__1)
--| state_9_2: by page__1: n rows, c1 count, c2 count, s1 sum, c3 count
--|   UnionAll
--|     Project page__1, real__1, arg__2, once__1=CASE WHEN FALSE THEN "arg__1" END
--|       Project page__1, real__1=TRUE, arg__1="customer_id__1", arg__2="seconds__1"
--|         Scan public.visits (customer_id__1, page__1, seconds__1)
--|     Project beside__1="distinct__1", beside__2=NULL::"pg_catalog"."bool", beside__4=NULL::"pg_catalog"."int4", beside__5="distinct__2"
--|       Project distinct__1="state_9_1_k1", distinct__2="state_9_1_k2"
--|         Scan state_9_1 (state_9_1_h, state_9_1_k1, state_9_1_k2, state_9_1_n)
--| final:
--|   Project page__1="state_9_2_k1", count__1="state_9_2_c1", sum__1=CASE WHEN "state_9_2_c2" > 0 THEN "state_9_2_s1" END, count__2="state_9_2_c3"
--|     Scan state_9_2 (state_9_2_k1, state_9_2_n, state_9_2_c1, state_9_2_c2, state_9_2_s1, state_9_2_c3)

-- variance, deviation and bits
SELECT o.customer_id, variance(o.amount) AS v, stddev_pop(o.id) AS d, bit_xor(o.id) AS x, bit_or(o.id) AS b FROM public.orders o GROUP BY o.customer_id;
--| key: customer_id
--| captured: orders (id, customer_id, amount)
--| state_9_1: by customer_id__1: n rows, c1 count, fs1 finite_sum, fsq1 finite_squares, nan1 count_nan, s1 sum, sq1 squares, x1 xor, bo1 bit_or
--|   Project customer_id__1, amount__1, id__1
--|     Scan public.orders (id__1, customer_id__1, amount__1)
--| final:
--|   Project customer_id__1="state_9_1_k1", variance__1=CASE WHEN "state_9_1_c1" > 1 THEN CASE WHEN "state_9_1_nan1" > 0 THEN 'NaN'::numeric ELSE (SELECT CASE WHEN q.d > 0 THEN q.d / ("state_9_1_c1"::numeric * ("state_9_1_c1" - 1)) ELSE 0::numeric END FROM (SELECT "state_9_1_c1"::numeric * "state_9_1_fsq1" - "state_9_1_fs1"::numeric * "state_9_1_fs1") AS q(d)) END END, stddev_pop__1=(SELECT CASE WHEN q.v = 'NaN' THEN q.v ELSE round(sqrt(round(q.v, 2 * scale(q.v) + 4 + length(trunc(q.v)::text))), scale(q.v)) END FROM (SELECT CASE WHEN "state_9_1_n" > 0 THEN CASE WHEN 0 > 0 THEN 'NaN'::numeric ELSE (SELECT CASE WHEN q.d > 0 THEN q.d / ("state_9_1_n"::numeric * "state_9_1_n") ELSE 0::numeric END FROM (SELECT "state_9_1_n"::numeric * "state_9_1_sq1" - "state_9_1_s1"::numeric * "state_9_1_s1") AS q(d)) END END) AS q(v)), bit_xor__1=CASE WHEN "state_9_1_n" > 0 THEN "state_9_1_x1" END, bit_or__1="state_9_1_bo1"
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_c1, state_9_1_fs1, state_9_1_fsq1, state_9_1_nan1, state_9_1_s1, state_9_1_sq1, state_9_1_x1, state_9_1_bo1)
