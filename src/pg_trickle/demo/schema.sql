-- The demonstration's database.  Three roles, as the product advises: the flight desk owns and writes the sources and knows
-- nothing of stream tables; the analyst owns the stream tables and may only read the sources; the worker has its own.

CREATE ROLE flight_desk LOGIN;
CREATE ROLE flight_analyst LOGIN;
GRANT CREATE ON SCHEMA public TO flight_desk;

SET ROLE flight_desk;

CREATE TABLE public.airlines (
    carrier text NOT NULL,
    name    text NOT NULL
);

CREATE TABLE public.airports (
    faa   text             NOT NULL,
    name  text             NOT NULL,
    lat   double precision NOT NULL,
    lon   double precision NOT NULL,
    alt   integer          NOT NULL,
    tz    integer          NOT NULL,
    dst   text             NOT NULL,
    tzone text
);

CREATE TABLE public.planes (
    tailnum      text    NOT NULL,
    year         integer,
    type         text    NOT NULL,
    manufacturer text    NOT NULL,
    model        text    NOT NULL,
    engines      integer NOT NULL,
    seats        integer NOT NULL,
    speed        integer,
    engine       text    NOT NULL
);

CREATE TABLE public.weather (
    origin     text             NOT NULL,
    year       integer          NOT NULL,
    month      integer          NOT NULL,
    day        integer          NOT NULL,
    hour       integer          NOT NULL,
    temp       double precision,
    dewp       double precision,
    humid      double precision,
    wind_dir   integer,
    wind_speed double precision,
    wind_gust  double precision,
    precip     double precision NOT NULL,
    pressure   double precision,
    visib      double precision NOT NULL,
    time_hour  timestamptz      NOT NULL
);

CREATE TABLE public.flights (
    year           integer     NOT NULL,
    month          integer     NOT NULL,
    day            integer     NOT NULL,
    dep_time       timestamptz,
    sched_dep_time timestamptz NOT NULL,
    dep_delay      integer,
    arr_time       timestamptz,
    sched_arr_time timestamptz NOT NULL,
    arr_delay      integer,
    carrier        text        NOT NULL,
    flight         integer     NOT NULL,
    tailnum        text,
    origin         text        NOT NULL,
    dest           text        NOT NULL,
    air_time       integer,
    distance       integer     NOT NULL,
    hour           integer     NOT NULL,
    minute         integer     NOT NULL,
    time_hour      timestamptz NOT NULL
);
