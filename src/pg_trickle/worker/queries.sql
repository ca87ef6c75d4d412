-- What the worker asks the server.  A section a query; the worker's role may call these functions and nothing else.

-- name: configure
SELECT pg_catalog.set_config(s.name, s.value, false)
  FROM ROWS FROM (pg_catalog.unnest(%(names)s::text[]), pg_catalog.unnest(%(values)s::text[])) AS s(name, value)

-- name: lock
SELECT pgtrickle_changes.worker_take_turn()

-- name: lift_limits
-- What a server or a database sets is meant for its clients.  A limit for the worker's role, or in its connection string, is meant for it.
SELECT pg_catalog.set_config(s.name, '0', false)
  FROM pg_catalog.pg_settings AS s
 WHERE s.name IN ('statement_timeout', 'transaction_timeout', 'lock_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout')
   AND s.setting <> '0' AND s.source NOT IN ('user', 'database user', 'client')

-- name: look
-- The position in the WAL is read first: whatever is written while the rest is looked at moves it, and is seen next time.
-- OFFSET 0 keeps the subquery, and so the order.  What a transaction wrote is seen when it has ended, which may be after its last WAL.
SELECT seen.wal_lsn::text, seen.snapshot::text, seen.now,
       CASE WHEN %(with_enabled)s OR seen.wal_lsn IS DISTINCT FROM %(known_lsn)s::pg_catalog.pg_lsn
                 OR seen.snapshot::text IS DISTINCT FROM %(known_snapshot)s
            THEN pg_catalog.to_jsonb(pgtrickle_changes.worker_poll(%(with_enabled)s)) END AS poll
  FROM (SELECT pg_catalog.pg_current_wal_insert_lsn() AS wal_lsn,
               pg_catalog.pg_current_snapshot() AS snapshot,
               extract(epoch FROM pg_catalog.clock_timestamp())::float8 AS now
        OFFSET 0) AS seen

-- name: stream_tables
SELECT pgt_id, name, depends_on, source_relids::bigint[] AS source_relids, schedule, schedule_seconds, status, tier, refresh_mode,
       is_populated, needs_reinit, watched, timed, scc_id, extract(epoch FROM last_refresh_at)::float8 AS last_refresh_at,
       graph_version
  FROM pgtrickle_changes.worker_stream_tables()

-- name: settings
SELECT pgtrickle_changes.worker_settings() AS settings

-- name: pending
-- age(xid) counts from the next transaction id to be assigned, without assigning one.
SELECT pgtrickle_changes.worker_pending(%(tables)s) AS pending,
       pg_catalog.pg_current_snapshot()::text AS snapshot,
       pg_catalog.age('3'::pg_catalog.xid)::bigint + 3 AS next_xid

-- name: refresh
SELECT pgtrickle_changes.worker_refresh(%(tables)s, 'SCHEDULER', %(companions)s, %(graph)s, %(quiet)s) AS results

-- name: failed
SELECT pgtrickle_changes.worker_failed(%(table)s, %(started_at)s, %(sqlstate)s, %(message)s, %(max_errors)s)

-- name: compile_request
SELECT pgtrickle_changes.worker_compile_request(%(table)s)::text AS request

-- name: install_plan
SELECT pgtrickle_changes.worker_install_plan(%(table)s, %(plan)s)

-- name: take_requests
-- As text, and only up to a size: what can't be read must not stop the worker from reading the next.
SELECT t.id, CASE WHEN pg_catalog.octet_length(t.request::text) <= %(longest)s THEN t.request::text END AS request
  FROM pgtrickle_changes.worker_take_requests(%(most)s) AS t

-- name: answer
SELECT pgtrickle_changes.worker_answer(%(request)s, %(plan)s, %(error)s)

-- name: drain_wal
SELECT pgtrickle_changes.worker_drain_wal(%(known_lsn)s::pg_catalog.pg_lsn) AS drained

-- name: housekeeping
SELECT pgtrickle_changes.worker_housekeeping() AS done

-- name: metrics
SELECT pgtrickle_changes.worker_metrics() AS metrics
