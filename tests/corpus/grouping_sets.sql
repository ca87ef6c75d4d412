-- ROLLUP with subtotals and a grand total
SELECT o.paid, o.placed, count(*) AS n, sum(o.amount) AS total, GROUPING(o.paid, o.placed) AS level FROM public.orders o GROUP BY ROLLUP (o.paid, o.placed);
--| key: none
--| captured: orders (amount, placed, paid)
--| state_9_1: by set__1, paid__1_or_all__1, placed__1_or_all__1: n rows, c1 count, c2 count, fs1 finite_sum, nan1 count_nan
--|   UnionAll
--|     Project real__1, amount__1, set__1, paid__1_or_all__1=CASE WHEN "set__1" IN (1, 2) THEN "paid__1" END, placed__1_or_all__1=CASE WHEN "set__1" IN (1) THEN "placed__1" END
--|       Lateral LATERAL generate_series(1, 3) AS "__pgt_f"("set__1")
--|         Project paid__1, placed__1, real__1=TRUE, amount__1
--|           Scan public.orders (amount__1, placed__1, paid__1)
--|     Project of_none__3=NULL::"pg_catalog"."bool", of_none__4=NULL::"pg_catalog"."numeric", of_none__5="set__2", of_none__6=NULL::"pg_catalog"."bool", of_none__7=NULL::"pg_catalog"."date"
--|       Lateral LATERAL unnest(ARRAY[3]) AS "__pgt_f"("set__2")
--|         Unit ()
--| final:
--|   Project paid__1_or_all__1, placed__1_or_all__1, count__1, sum__1, grouping__1=(ARRAY[0, 1, 3])["set__1"]
--|     Project set__1="state_9_1_k1", paid__1_or_all__1="state_9_1_k2", placed__1_or_all__1="state_9_1_k3", count__1="state_9_1_c1", sum__1=CASE WHEN "state_9_1_nan1" > 0 THEN 'NaN'::numeric WHEN "state_9_1_c2" > 0 THEN "state_9_1_fs1" END
--|       Scan state_9_1 (state_9_1_h, state_9_1_k1, state_9_1_k2, state_9_1_k3, state_9_1_n, state_9_1_c1, state_9_1_c2, state_9_1_fs1, state_9_1_nan1)

-- keys that are never NULL tell the sets apart
SELECT c.region, c.id, count(*) AS n, GROUPING(c.id) AS g FROM public.customers c GROUP BY GROUPING SETS ((c.region), (c.region, c.id));
--| key: region, id
--| captured: customers (id, region)
--| state_9_1: by region__1, id__1_or_all__1: n rows
--|   Project region__1, id__1_or_all__1=CASE WHEN "set__1" IN (2) THEN "id__1" END
--|     Lateral LATERAL generate_series(1, 2) AS "__pgt_f"("set__1")
--|       Project region__1, id__1
--|         Scan public.customers (id__1, region__1)
--| final:
--|   Project region__1, id__1_or_all__1, count__1, grouping__1=1 * ("id__1_or_all__1" IS NOT DISTINCT FROM NULL)::pg_catalog.int4
--|     Project region__1="state_9_1_k1", id__1_or_all__1="state_9_1_k2", count__1="state_9_1_n"
--|       Scan state_9_1 (state_9_1_h, state_9_1_k1, state_9_1_k2, state_9_1_n)

-- an aggregate without a rule, and a set that comes twice
SELECT v.page, array_agg(v.seconds) AS all_of_them FROM public.visits v GROUP BY GROUPING SETS ((), (v.page), (v.page));
--| key: none
--| captured: visits (page, seconds)
--| state_9_1: by set__1, page__1_or_all__1: n rows, v1 value
--|   UnionAll
--|     Project real__1, seconds__1, set__1, page__1_or_all__1=CASE WHEN "set__1" IN (2, 3) THEN "page__1" END
--|       Lateral LATERAL generate_series(1, 3) AS "__pgt_f"("set__1")
--|         Project page__1, real__1=TRUE, seconds__1
--|           Scan public.visits (page__1, seconds__1)
--|     Project of_none__2=NULL::"pg_catalog"."bool", of_none__3=NULL::"pg_catalog"."int4", of_none__4="set__2", of_none__5=NULL::"pg_catalog"."text"
--|       Lateral LATERAL unnest(ARRAY[1]) AS "__pgt_f"("set__2")
--|         Unit ()
--| final:
--|   Project page__1_or_all__1, array_agg__1
--|     Project set__1="state_9_1_k1", page__1_or_all__1="state_9_1_k2", array_agg__1="state_9_1_v1"
--|       Scan state_9_1 (state_9_1_h, state_9_1_k1, state_9_1_k2, state_9_1_n, state_9_1_v1)

-- GROUPING without grouping sets
SELECT v.page, GROUPING(v.page) AS g FROM public.visits v GROUP BY v.page;
--| key: page
--| captured: visits (page)
--| state_9_1: by page__1: n rows
--|   Scan public.visits (page__1)
--| final:
--|   Project page__1, grouping__1=0
--|     Project page__1="state_9_1_k1"
--|       Scan state_9_1 (state_9_1_k1, state_9_1_n)
