-- What a call asks for: schedules and choices, in the one spelling that is stored.

CREATE FUNCTION pgtrickle_changes.schedule_seconds(p_schedule text) RETURNS double precision
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_part    text[];
    v_seconds float8 := 0;
    v_least   float8 := pgtrickle_changes.setting('min_schedule_seconds')::float8;
    v_most    CONSTANT float8 := 36500 * 86400.0;
BEGIN
    IF p_schedule IS NULL OR p_schedule = 'calculated' THEN
        RETURN NULL;
    ELSIF p_schedule ~ '^\d+(\.\d+)?$' THEN
        v_seconds := p_schedule::float8;
    ELSIF p_schedule ~ '^(\d+[smhdw]\s*)+$' THEN
        FOR v_part IN SELECT m FROM regexp_matches(p_schedule, '(\d+)([smhdw])', 'g') AS m LOOP
            v_seconds := v_seconds + v_part[1]::float8 * CASE v_part[2]
                WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 ELSE 604800 END;
        END LOOP;
    ELSIF pgtrickle_changes.is_cron(p_schedule) THEN
        RETURN NULL;
    ELSE
        RAISE EXCEPTION 'invalid schedule "%"', p_schedule
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'It is no duration, not "calculated", and no cron expression of a time that ever comes.',
                  HINT = 'Write ''30s'', ''1h30m'', ''2w'', a number of seconds, ''*/5 * * * *'', ''@hourly'' or ''calculated''.';
    END IF;
    IF v_seconds < v_least THEN
        RAISE EXCEPTION 'schedule "%" is too short', p_schedule
            USING ERRCODE = 'invalid_parameter_value', DETAIL = format('The least is %s s.', v_least),
                  HINT = 'Use ''calculated'' to be refreshed whenever sources change.';
    ELSIF v_seconds > v_most THEN
        RAISE EXCEPTION 'schedule "%" is too long', p_schedule
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'The most is a hundred years.',
                  HINT = 'Use NULL to be refreshed by hand alone.';
    END IF;
    RETURN v_seconds;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.schedule_seconds IS 'The length of a schedule that is a duration; NULL for calculated, cron, and no schedule at all';

CREATE FUNCTION pgtrickle_changes.checked_schedule(p_schedule text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- A schedule in the one spelling that is stored.
DECLARE
    v_schedule text := trim(p_schedule);
BEGIN
    RETURN CASE WHEN lower(v_schedule) = 'calculated' OR v_schedule LIKE '@%' THEN lower(v_schedule) ELSE v_schedule END;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.checked_schedule IS 'A schedule in the one spelling that is stored; raises if it is none';

CREATE FUNCTION pgtrickle_changes.is_cron(p_schedule text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
-- Whether the worker will understand it: minute, hour, day, month, weekday, and seconds before them if there are six.
DECLARE
    v_fields text[] := regexp_split_to_array(upper(p_schedule), '\s+');
    v_months CONSTANT text[] := '{JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC}'::text[];
    v_days   CONSTANT text[] := '{SUN,MON,TUE,WED,THU,FRI,SAT}'::text[];
    v_least  CONSTANT integer[] := '{0,0,0,1,1,0}'::integer[];
    v_most   CONSTANT integer[] := '{59,59,23,31,12,7}'::integer[];
    v_field  text;
    v_part   text[];
    v_first  integer;  -- the first day of the month that it names
    v_days_of_longest integer := 0;
BEGIN
    IF p_schedule ~ '^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$' THEN
        RETURN true;
    END IF;
    IF length(p_schedule) > 256 OR cardinality(v_fields) NOT IN (5, 6) THEN
        RETURN false;
    END IF;
    v_fields := CASE WHEN cardinality(v_fields) = 5 THEN '0'::text || v_fields ELSE v_fields END;
    FOR v_i IN 1..6 LOOP
        FOREACH v_field IN ARRAY string_to_array(v_fields[v_i], ',') LOOP
            FOR v_n IN 1..12 LOOP
                v_field := CASE WHEN v_i = 5 THEN replace(v_field, v_months[v_n], v_n::text)
                                WHEN v_i = 6 AND v_n <= 7 THEN replace(v_field, v_days[v_n], (v_n - 1)::text)
                                ELSE v_field END;
            END LOOP;
            CONTINUE WHEN v_i = 4 AND v_field = 'L' OR v_i = 6 AND v_field ~ '^[0-7](#[1-5]|L)$';
            v_part := regexp_match(v_field, '^(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,3}))?$');
            IF v_part IS NULL OR v_part[3]::integer = 0
               OR v_part[1]::integer NOT BETWEEN v_least[v_i] AND v_most[v_i]
               OR v_part[2]::integer NOT BETWEEN v_part[1]::integer AND v_most[v_i] THEN
                RETURN false;
            END IF;
            IF v_i = 4 THEN
                v_first := least(v_first, coalesce(v_part[1]::integer, 1));
            ELSIF v_i = 5 THEN
                v_days_of_longest := (SELECT greatest(v_days_of_longest, max(CASE WHEN m = 2 THEN 29 WHEN m IN (4, 6, 9, 11) THEN 30 ELSE 31 END))
                    FROM generate_series(coalesce(v_part[1]::integer, 1),
                                         coalesce(v_part[2]::integer, CASE WHEN v_part[3] IS NULL THEN v_part[1]::integer END, 12),
                                         coalesce(v_part[3]::integer, 1)) AS m);
            END IF;
        END LOOP;
    END LOOP;
    -- The 30th of February never comes, unless some weekday will do as well.
    RETURN v_first <= v_days_of_longest OR v_fields[4] ~ 'L' OR NOT '*' IN (left(v_fields[4], 1), left(v_fields[6], 1));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.is_cron IS 'Whether a schedule is a cron expression that the worker understands';

CREATE FUNCTION pgtrickle_changes.checked_choice(p_argument text, p_value text, p_choices text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_value IS NULL OR p_value = ANY (p_choices) THEN
        RETURN p_value;
    END IF;
    RAISE EXCEPTION 'invalid %: "%"', p_argument, p_value
        USING ERRCODE = 'invalid_parameter_value', HINT = format('Choose one of: %s.', array_to_string(p_choices, ', '));
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.checked_choice IS 'A value that must be one of some';

CREATE FUNCTION pgtrickle_changes.checked_cdc_mode(p_mode text) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_mode    text := pgtrickle_changes.checked_choice('cdc_mode', lower(coalesce(p_mode, pgtrickle_changes.setting('cdc_mode'))), '{auto,trigger,wal}');
    v_trouble text;
BEGIN
    IF v_mode = 'wal' THEN
        v_trouble := pgtrickle_changes.wal_trouble();
        IF v_trouble IS NOT NULL THEN
            RAISE EXCEPTION 'capture from the WAL is not available'
                USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('The reason: %s.', v_trouble),
                      HINT = 'A superuser has to CALL pgtrickle.enable_wal(), with wal_level = logical; or use cdc_mode => ''trigger''.';
        END IF;
    END IF;
    RETURN v_mode;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.checked_cdc_mode IS 'A capture mode that can be had';

CREATE FUNCTION pgtrickle_changes.checked_mode(p_mode text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_mode text := pgtrickle_changes.checked_choice('refresh_mode', upper(p_mode), '{AUTO,DIFFERENTIAL,FULL,IMMEDIATE}');
BEGIN
    RETURN v_mode;
END
$$;
COMMENT ON FUNCTION pgtrickle_changes.checked_mode IS 'A refresh mode that exists';
