-- What comes after the load: keys, statistics, and who may do what.

SET ROLE flight_desk;

ALTER TABLE public.airlines ADD PRIMARY KEY (carrier);
ALTER TABLE public.airports ADD PRIMARY KEY (faa);
ALTER TABLE public.planes   ADD PRIMARY KEY (tailnum);
ALTER TABLE public.weather  ADD PRIMARY KEY (origin, time_hour);
ALTER TABLE public.flights  ADD PRIMARY KEY (time_hour, carrier, flight);
ANALYZE public.airlines, public.airports, public.planes, public.weather, public.flights;

RESET ROLE;

GRANT USAGE, CREATE ON SCHEMA public TO flight_analyst;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO flight_analyst;
GRANT USAGE ON SCHEMA pgtrickle TO flight_analyst;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO flight_analyst;

-- The same queries as plain views, to compare with, and as materialized views, to race.
CREATE SCHEMA plain AUTHORIZATION flight_analyst;
CREATE SCHEMA materialized AUTHORIZATION flight_analyst;
