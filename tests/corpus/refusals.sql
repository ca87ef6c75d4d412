-- a volatile function
SELECT o.id, random() AS r FROM public.orders o;
--| refused: volatile function random(): it may return something else every time it is called.

-- a value of the session
SELECT o.id, CURRENT_USER AS who FROM public.orders o;
--| refused: session value: it changes without any row changing.
