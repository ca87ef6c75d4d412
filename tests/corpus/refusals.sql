-- a volatile function
SELECT o.id, random() AS r FROM public.orders o;
--| refused: volatile function random(): it may return something else every time it is called.

-- the time
SELECT o.id FROM public.orders o WHERE o.placed > now();
--| refused: now(): its result changes with time or session, without any row changing.
