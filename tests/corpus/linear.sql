-- a filter by key
SELECT o.id, o.amount FROM public.orders o WHERE o.paid AND o.amount > 10::numeric;
--| key: id
--| captured: orders (id, amount, paid)
--| final:
--|   Project id__1, amount__1
--|     Filter "paid__1" AND amount__1 > 10::numeric
--|       Scan public.orders (id__1, amount__1, paid__1)

-- a projection that drops the key
SELECT upper(c.name) AS name, c.region FROM public.customers c;
--| key: none
--| captured: customers (name, region)
--| final:
--|   Project name__2=upper(name__1), region__1
--|     Scan public.customers (name__1, region__1)

-- UNION ALL of two tables
SELECT o.id FROM public.orders o UNION ALL SELECT c.id FROM public.customers c;
--| key: none
--| captured: customers (id); orders (id)
--| final:
--|   UnionAll
--|     Scan public.orders (id__1)
--|     Scan public.customers (id__2)
--| when customers changed:
--|   Project id__1="id__2"
--|     Changes public.customers (id__2)
--| when orders changed:
--|   Changes public.orders (id__1)

-- a view, filtered twice
SELECT b.number, b.amount FROM public.big_orders b WHERE b.customer = 7;
--| key: number
--| captured: orders (id, customer_id, amount)
--| final:
--|   Project id__1, amount__1
--|     Filter amount__1 > 100::numeric AND customer_id__1 = 7
--|       Scan public.orders (id__1, customer_id__1, amount__1)

-- a constant beside a column
SELECT 'x'::text AS mark, v.page FROM public.visits v;
--| key: none
--| captured: visits (page)
--| final:
--|   Project mark__1='x'::text, page__1
--|     Scan public.visits (page__1)
