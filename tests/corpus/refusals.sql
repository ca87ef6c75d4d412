-- a volatile function
SELECT o.id, random() AS r FROM public.orders o;
--| refused: volatile function random(): it may return something else every time it is called.

-- the time in a column
SELECT o.id, now() AS at FROM public.orders o;
--| refused: time outside a condition: every row would change at every moment; it may stand in WHERE, HAVING and the ON of inner joins.
