-- a window of time
SELECT v.page FROM public.visits v WHERE v.seen > (now() - '01:00:00'::interval) AND v.seconds > 1;
--| key: none
--| captured: visits (page, seconds, seen)
--| final:
--|   Project page__1
--|     TimedFilter seen__1 > (now() - '01:00:00'::interval) near "seen__1" >= LEAST($4::timestamp with time zone - '01:00:00'::interval, now() - '01:00:00'::interval) AND "seen__1" <= GREATEST($4::timestamp with time zone - '01:00:00'::interval, now() - '01:00:00'::interval)
--|       Filter seconds__1 > 1
--|         Scan public.visits (page__1, seconds__1, seen__1)

-- the time of one side of a join
SELECT o.id, c.name FROM public.orders o JOIN public.customers c ON c.id = o.customer_id WHERE o.placed = CURRENT_DATE;
--| key: id
--| captured: customers (id, name); orders (id, customer_id, placed)
--| final:
--|   Project id__1, name__1
--|     Join id__2 = customer_id__1
--|       TimedFilter placed__1 = current_date near (current_date IS DISTINCT FROM $4::timestamp with time zone::pg_catalog.date) AND ("placed__1" >= LEAST($4::timestamp with time zone::pg_catalog.date, current_date) AND "placed__1" <= GREATEST($4::timestamp with time zone::pg_catalog.date, current_date))
--|         Scan public.orders (id__1, customer_id__1, placed__1)
--|       Scan public.customers (id__2, name__1)
--| when customers changed:
--|   Project id__1, name__1
--|     UnionAll
--|       UnionAll
--|         Join id__2 = customer_id__1
--|           Elapsed placed__1 = current_date near (current_date IS DISTINCT FROM $4::timestamp with time zone::pg_catalog.date) AND ("placed__1" >= LEAST($4::timestamp with time zone::pg_catalog.date, current_date) AND "placed__1" <= GREATEST($4::timestamp with time zone::pg_catalog.date, current_date))
--|             Scan public.orders (id__1, customer_id__1, placed__1)
--|           Scan public.customers (id__2, name__1)
--|         Join id__2 = customer_id__1
--|           TimedFilter placed__1 = current_date near (current_date IS DISTINCT FROM $4::timestamp with time zone::pg_catalog.date) AND ("placed__1" >= LEAST($4::timestamp with time zone::pg_catalog.date, current_date) AND "placed__1" <= GREATEST($4::timestamp with time zone::pg_catalog.date, current_date))
--|             Scan public.orders (id__1, customer_id__1, placed__1)
--|           Changes public.customers (id__2, name__1)
--|       Negate
--|         Join id__2 = customer_id__1
--|           Elapsed placed__1 = current_date near (current_date IS DISTINCT FROM $4::timestamp with time zone::pg_catalog.date) AND ("placed__1" >= LEAST($4::timestamp with time zone::pg_catalog.date, current_date) AND "placed__1" <= GREATEST($4::timestamp with time zone::pg_catalog.date, current_date))
--|             Scan public.orders (id__1, customer_id__1, placed__1)
--|           Changes public.customers (id__2, name__1)
--| when orders changed:
--|   Project id__1, name__1
--|     Join id__2 = customer_id__1
--|       UnionAll
--|         Filter placed__1 = $4::timestamp with time zone::pg_catalog.date
--|           Changes public.orders (id__1, customer_id__1, placed__1)
--|         Elapsed placed__1 = current_date near (current_date IS DISTINCT FROM $4::timestamp with time zone::pg_catalog.date) AND ("placed__1" >= LEAST($4::timestamp with time zone::pg_catalog.date, current_date) AND "placed__1" <= GREATEST($4::timestamp with time zone::pg_catalog.date, current_date))
--|           Scan public.orders (id__1, customer_id__1, placed__1)
--|       Scan public.customers (id__2, name__1)

-- either of two moments, and an expression
SELECT v.page FROM public.visits v WHERE (v.seen > now() OR v.page IS NULL) AND NOT (now() - v.seen) < '01:00:00'::interval;
--| key: none
--| captured: visits (page, seen)
--| final:
--|   Project page__1
--|     TimedFilter NOT (now() - seen__1) < '01:00:00'::interval near "seen__1" >= ((LEAST($4::timestamp with time zone, now()) - (((extract(epoch FROM ('01:00:00'::interval)) - 453600 * extract(year FROM ('01:00:00'::interval)))::float8 * '1 second'::interval) + '1 second'::interval)))::timestamptz AND "seen__1" <= ((GREATEST($4::timestamp with time zone, now()) - (((extract(epoch FROM ('01:00:00'::interval)) - 453600 * extract(year FROM ('01:00:00'::interval)))::float8 * '1 second'::interval) - '1 second'::interval)))::timestamptz
--|       TimedFilter seen__1 > now() OR page__1 IS NULL near "seen__1" >= LEAST($4::timestamp with time zone, now()) AND "seen__1" <= GREATEST($4::timestamp with time zone, now())
--|         Scan public.visits (page__1, seen__1)

-- groups whose last row is old
SELECT v.page, max(v.seen) AS seen FROM public.visits v GROUP BY v.page HAVING max(v.seen) < (now() - '01:00:00'::interval);
--| key: page
--| captured: visits (page, seen)
--| state_9_1: by page__1: n rows, max1 max
--|   Scan public.visits (page__1, seen__1)
--| final:
--|   TimedFilter max__1 < (now() - '01:00:00'::interval) near "max__1" >= LEAST($4::timestamp with time zone - '01:00:00'::interval, now() - '01:00:00'::interval) AND "max__1" <= GREATEST($4::timestamp with time zone - '01:00:00'::interval, now() - '01:00:00'::interval)
--|     Project page__1="state_9_1_k1", max__1="state_9_1_max1"
--|       Scan state_9_1 (state_9_1_k1, state_9_1_n, state_9_1_max1)

-- counts of what is over
SELECT v.page, count(*) AS n FROM public.visits v WHERE v.seen <= CURRENT_TIMESTAMP(3) GROUP BY v.page;
--| key: page
--| captured: visits (page, seen)
--| state_9_1: by page__1: n rows
--|   Project page__1
--|     TimedFilter seen__1 <= current_timestamp(3) near "seen__1" >= LEAST($4::timestamp with time zone::timestamp (3) with time zone, current_timestamp(3)) AND "seen__1" <= GREATEST($4::timestamp with time zone::timestamp (3) with time zone, current_timestamp(3))
--|       Scan public.visits (page__1, seen__1)
--| final:
--|   Project page__1="state_9_1_k1", count__1="state_9_1_n"
--|     Scan state_9_1 (state_9_1_k1, state_9_1_n)

-- two windows of time beside a count of all
SELECT v.page, count(*) AS n, count(*) FILTER (WHERE v.seen > (now() - '1 day'::interval)) AS day, count(DISTINCT v.customer_id) FILTER (WHERE v.seen > (now() - '7 days'::interval)) AS week FROM public.visits v GROUP BY v.page;
--| key: page
--| captured: visits (customer_id, page, seen)
--| state_9_1: by distinct__1, distinct__2: n rows
--|   Project distinct__1="page__1", distinct__2="arg__1"
--|     Filter "arg__1" IS DISTINCT FROM NULL AND "filter__2"
--|       Project page__1, arg__1="customer_id__1", filter__2="timed__2"
--|         TimedColumn timed__2 = seen__1 > (now() - '7 days'::interval) near "seen__1" >= LEAST($4::timestamp with time zone - '7 days'::interval, now() - '7 days'::interval) AND "seen__1" <= GREATEST($4::timestamp with time zone - '7 days'::interval, now() - '7 days'::interval)
--|           Scan public.visits (customer_id__1, page__1, seen__1)
--| state_9_2: by page__1: n rows, c1 count, c2 count, c3 count
--|   UnionAll
--|     Project page__1, real__1, filter__1, once__1=CASE WHEN FALSE THEN "arg__1" END
--|       Project page__1, real__1=TRUE, filter__1="timed__1", arg__1="customer_id__1"
--|         TimedColumn timed__1 = seen__1 > (now() - '1 day'::interval) near "seen__1" >= LEAST($4::timestamp with time zone - '1 day'::interval, now() - '1 day'::interval) AND "seen__1" <= GREATEST($4::timestamp with time zone - '1 day'::interval, now() - '1 day'::interval)
--|           Scan public.visits (customer_id__1, page__1, seen__1)
--|     Project beside__1="distinct__1", beside__2=NULL::"pg_catalog"."bool", beside__3=NULL::"pg_catalog"."bool", beside__6="distinct__2"
--|       Project distinct__1="state_9_1_k1", distinct__2="state_9_1_k2"
--|         Scan state_9_1 (state_9_1_h, state_9_1_k1, state_9_1_k2, state_9_1_n)
--| final:
--|   Project page__1="state_9_2_k1", count__1="state_9_2_c1", count__2="state_9_2_c2", count__3="state_9_2_c3"
--|     Scan state_9_2 (state_9_2_k1, state_9_2_n, state_9_2_c1, state_9_2_c2, state_9_2_c3)

-- a moment that WITH names, in conditions alone, is one that they say themselves
WITH t AS (SELECT now() - '01:00:00'::interval AS since) SELECT v.page FROM (public.visits v CROSS JOIN t) WHERE v.seen > t.since;
--| key: none
--| captured: visits (page, seen)
--| final:
--|   Project page__1
--|     TimedFilter seen__1 > (now() - '01:00:00'::interval) near "seen__1" >= LEAST($4::timestamp with time zone - '01:00:00'::interval, now() - '01:00:00'::interval) AND "seen__1" <= GREATEST($4::timestamp with time zone - '01:00:00'::interval, now() - '01:00:00'::interval)
--|       Scan public.visits (page__1, seen__1)

-- an interval added to the column is taken from the moment
SELECT v.page FROM public.visits v WHERE v.seen + '01:00:00'::interval > now() AND EXTRACT(epoch FROM (now() - v.seen)) < 3600::numeric;
--| key: none
--| captured: visits (page, seen)
--| final:
--|   Project page__1
--|     TimedFilter extract ('epoch' FROM now() - seen__1) < 3600::numeric near "seen__1" >= ((LEAST($4::timestamp with time zone, now()) - (((3600::numeric) + 1)::float8 * '1 second'::interval)))::timestamptz AND "seen__1" <= ((GREATEST($4::timestamp with time zone, now()) - (((3600::numeric) - 1)::float8 * '1 second'::interval)))::timestamptz
--|       TimedFilter (seen__1 + '01:00:00'::interval) > now() near "seen__1" >= ((LEAST($4::timestamp with time zone, now()) - ('01:00:00'::interval)))::timestamptz AND "seen__1" <= ((GREATEST($4::timestamp with time zone, now()) - ('01:00:00'::interval)))::timestamptz
--|         Scan public.visits (page__1, seen__1)
