-- %(n)s rows in each of the large tables, always the same but for where the present is.

SELECT setseed(0.25);
INSERT INTO tenants
SELECT i, 'tenant ' || i, (ARRAY['free', 'team', 'enterprise'])[1 + i %% 3], CASE WHEN i %% 20 = 0 THEN now() END
  FROM generate_series(1, 20 + %(n)s / 1000) AS i;
INSERT INTO users
SELECT i, 1 + i %% (20 + %(n)s / 1000), CASE WHEN i > 5 THEN i / 5 END, 'user ' || i,
       (ARRAY['admin', 'member', 'guest'])[1 + i %% 3], now() - random() * interval '400 days',
       CASE WHEN i %% 25 = 0 THEN now() - interval '3 days' END
  FROM generate_series(1, 50 + %(n)s / 20) AS i;
INSERT INTO customers
SELECT i, 1 + i %% (20 + %(n)s / 1000), 'customer ' || i, (ARRAY['DE', 'FR', 'US', 'IT', NULL])[1 + i %% 5],
       (ARRAY['retail', 'wholesale', 'public'])[1 + i %% 3]
  FROM generate_series(1, 50 + %(n)s / 10) AS i;
INSERT INTO categories
SELECT i, CASE WHEN i > 4 THEN i / 4 END, 'category ' || i FROM generate_series(1, 85) AS i;
INSERT INTO products
SELECT i, 'product ' || i, 1 + i %% 85, round((5 + random() * 200)::numeric, 2), (random() * 40)::int,
       (ARRAY['new', 'sale', 'eco', 'heavy', 'fragile', 'gift'])[1 + i %% 4:1 + i %% 6],
       jsonb_build_object('color', (ARRAY['red', 'green', 'blue'])[1 + i %% 3], 'sizes', jsonb_build_array(i %% 7, i %% 5))
  FROM generate_series(1, 40 + %(n)s / 50) AS i;
INSERT INTO orders
SELECT i, 1 + (random() * (%(n)s / 10 + 20))::int, (ARRAY['open', 'paid', 'sent', 'sent', 'returned'])[1 + (random() * 4)::int],
       date_trunc('second', now() - random() * interval '180 days'), round((random() * 900)::numeric, 2)
  FROM generate_series(1, %(n)s) AS i;
INSERT INTO order_items
SELECT i, line, 1 + (random() * (%(n)s / 50 + 30))::int, 1 + (random() * 9)::int, round((5 + random() * 200)::numeric, 2)
  FROM generate_series(1, %(n)s) AS i, generate_series(1, 1 + i %% 3) AS line;
INSERT INTO payments
SELECT i, 1 + (random() * (%(n)s - 1))::int, round((random() * 900)::numeric, 2), (ARRAY['card', 'invoice', NULL])[1 + i %% 3]
  FROM generate_series(1, %(n)s * 4 / 5) AS i;
INSERT INTO stock_moves
SELECT i, 1 + (random() * (%(n)s / 50 + 30))::int, 1 + i %% 4, (random() * 60)::int - 25, now() - random() * interval '90 days'
  FROM generate_series(1, %(n)s) AS i;
INSERT INTO price_history
SELECT p, round((5 + random() * 200)::numeric, 2),
       tstzrange(date_trunc('day', now()) - (k + 1) * interval '40 days', CASE WHEN k > 0 THEN date_trunc('day', now()) - k * interval '40 days' END)
  FROM generate_series(1, 40 + %(n)s / 50) AS p, generate_series(0, 4) AS k;
INSERT INTO events
SELECT i, 1 + (random() * (%(n)s / 20 + 40))::int, (ARRAY['visit', 'visit', 'visit', 'signup', 'trial', 'buy'])[1 + (random() * 5)::int],
       date_trunc('second', now() - random() * interval '60 days'),
       jsonb_build_object('page', 'page ' || i %% 40, 'ms', i %% 977, 'tags', jsonb_build_array('t' || i %% 5, 't' || i %% 3))
  FROM generate_series(1, %(n)s) AS i;
INSERT INTO readings
SELECT 1 + i %% (10 + %(n)s / 500), date_trunc('minute', now()) - (i / (10 + %(n)s / 500)) * interval '5 minutes',
       CASE WHEN random() > 0.02 THEN round((20 + random() * 10)::numeric, 2) END
  FROM generate_series(1, %(n)s) AS i WHERE random() > 0.05;
INSERT INTO projects
SELECT i, 1 + i %% (20 + %(n)s / 1000), 1 + (random() * (%(n)s / 20 + 40))::int, 'project ' || i, i %% 9 = 0
  FROM generate_series(1, 40 + %(n)s / 40) AS i;
INSERT INTO memberships
SELECT DISTINCT 1 + (random() * (10 + %(n)s / 500))::int, 1 + (random() * (%(n)s / 20 + 40))::int
  FROM generate_series(1, 60 + %(n)s / 10) AS i;
INSERT INTO team_projects
SELECT DISTINCT 1 + (random() * (10 + %(n)s / 500))::int, 1 + (random() * (%(n)s / 40 + 30))::int
  FROM generate_series(1, 50 + %(n)s / 20) AS i;
INSERT INTO tickets
SELECT i, 1 + (random() * (%(n)s / 40 + 30))::int, NULLIF((random() * (%(n)s / 20))::int, 0), 1 + i %% 5,
       (ARRAY['open', 'doing', 'done', 'done'])[1 + i %% 4],
       (ARRAY['crash', 'slow', 'typo', 'login'])[1 + i %% 4] || ' on ' || (ARRAY['start page', 'report', 'invoice'])[1 + i %% 3],
       now() - random() * interval '50 days', CASE WHEN i %% 4 > 1 THEN now() - random() * interval '9 days' END
  FROM generate_series(1, %(n)s) AS i;
INSERT INTO scores
SELECT 1 + (random() * (%(n)s / 20 + 40))::int, 1 + i %% 50, (random() * 100000)::int, now() - random() * interval '30 days'
  FROM generate_series(1, %(n)s) AS i;
INSERT INTO imports
SELECT i, 'x' || (random() * (%(n)s / 3))::int, i %% 7, jsonb_build_object('value', i %% 100, 'source', 's' || i %% 3)
  FROM generate_series(1, %(n)s) AS i;
INSERT INTO blocked SELECT i * 7 FROM generate_series(1, 30) AS i;
INSERT INTO components
SELECT i / 3, i, 1 + i %% 4 FROM generate_series(3, 30 + %(n)s / 50) AS i;
