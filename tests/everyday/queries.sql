-- dashboard: orders and revenue by day
SELECT date_trunc('day', placed_at) AS day, count(*) AS orders, sum(total) AS revenue, avg(total) AS basket
  FROM orders WHERE status <> 'returned' GROUP BY 1;

-- dashboard: figures of each tenant
SELECT t.id, t.name, count(DISTINCT c.id) AS customers, count(o.id) AS orders, coalesce(sum(o.total), 0) AS revenue, max(o.placed_at) AS last_order
  FROM tenants AS t LEFT JOIN customers AS c ON c.tenant_id = t.id LEFT JOIN orders AS o ON o.customer_id = c.id
 WHERE t.deleted_at IS NULL GROUP BY t.id;

-- dashboard: statuses as columns
SELECT c.segment,
       count(*) FILTER (WHERE o.status = 'open') AS open, count(*) FILTER (WHERE o.status = 'paid') AS paid,
       count(*) FILTER (WHERE o.status = 'sent') AS sent, sum(o.total) FILTER (WHERE o.status = 'returned') AS returned
  FROM orders AS o JOIN customers AS c ON c.id = o.customer_id GROUP BY c.segment;

-- dashboard: statuses as columns by CASE
SELECT customer_id, sum(CASE WHEN status = 'open' THEN 1 ELSE 0 END) AS open, sum(CASE WHEN status = 'sent' THEN total ELSE 0 END) AS sent
  FROM orders GROUP BY customer_id;

-- dashboard: share of each segment
SELECT segment, revenue, round(100 * revenue / sum(revenue) OVER (), 2) AS percent
  FROM (SELECT c.segment, sum(o.total) AS revenue FROM orders AS o JOIN customers AS c ON c.id = o.customer_id GROUP BY c.segment) AS s;

-- dashboard: last 24 hours beside all
SELECT kind, count(*) AS total, count(*) FILTER (WHERE at > now() - interval '24 hours') AS last_day FROM events GROUP BY kind;

-- dashboard: last week by CASE
SELECT user_id, sum(CASE WHEN at > now() - interval '7 days' THEN 1 ELSE 0 END) AS this_week, count(*) AS ever FROM events GROUP BY user_id;

-- dashboard: open tickets and how old
SELECT id, title, priority, CASE WHEN opened_at < now() - interval '30 days' THEN 'overdue' WHEN opened_at < now() - interval '7 days' THEN 'late' ELSE 'fine' END AS state
  FROM tickets WHERE status = 'open';

-- dashboard: errors of the last hours or urgent
SELECT id, title, priority FROM tickets WHERE status <> 'done' AND (opened_at > now() - interval '2 days' OR priority = 1);

-- leaderboard: first ten of all time
SELECT player_id, sum(points) AS points, count(*) AS games FROM scores GROUP BY player_id ORDER BY points DESC, player_id LIMIT 10;

-- leaderboard: ranks in each game
SELECT game_id, player_id, best, rank() OVER (PARTITION BY game_id ORDER BY best DESC) AS place
  FROM (SELECT game_id, player_id, max(points) AS best FROM scores GROUP BY game_id, player_id) AS s;

-- leaderboard: first three of each game
SELECT game_id, player_id, best FROM (
    SELECT game_id, player_id, max(points) AS best, row_number() OVER (PARTITION BY game_id ORDER BY max(points) DESC, player_id) AS place
      FROM scores GROUP BY game_id, player_id) AS s
 WHERE place <= 3;

-- leaderboard: place among all
SELECT player_id, points, dense_rank() OVER (ORDER BY points DESC) AS place
  FROM (SELECT player_id, sum(points) AS points FROM scores GROUP BY player_id) AS s;

-- leaderboard: personal bests of each player, by LATERAL
SELECT u.id, u.name, b.game_id, b.points FROM users AS u
 CROSS JOIN LATERAL (SELECT s.game_id, s.points FROM scores AS s WHERE s.player_id = u.id ORDER BY s.points DESC, s.game_id, s.played_at LIMIT 2) AS b;

-- inventory: stock by product and warehouse
SELECT product_id, warehouse_id, sum(quantity) AS stock, max(moved_at) AS last_move FROM stock_moves GROUP BY product_id, warehouse_id;

-- inventory: to be ordered again
SELECT p.id, p.name, p.reorder_at, coalesce(sum(m.quantity), 0) AS stock
  FROM products AS p LEFT JOIN stock_moves AS m ON m.product_id = p.id
 GROUP BY p.id HAVING coalesce(sum(m.quantity), 0) < p.reorder_at;

-- inventory: running balance
SELECT id, product_id, moved_at, quantity, sum(quantity) OVER (PARTITION BY product_id, warehouse_id ORDER BY moved_at, id) AS balance FROM stock_moves;

-- inventory: value of what is sold by category
SELECT c.name, sum(i.quantity * i.price) AS sold, count(DISTINCT i.order_id) AS orders
  FROM order_items AS i JOIN products AS p ON p.id = i.product_id JOIN categories AS c ON c.id = p.category_id GROUP BY c.name;

-- inventory: never sold
SELECT p.id, p.name FROM products AS p WHERE NOT EXISTS (SELECT FROM order_items AS i WHERE i.product_id = p.id);

-- time series: hourly means
SELECT sensor_id, date_bin('1 hour', at, timestamptz '2000-01-01') AS hour, avg(value) AS mean, min(value) AS least, max(value) AS most, count(*) AS n
  FROM readings GROUP BY 1, 2;

-- time series: a calendar with days on which nothing happened
SELECT d.day, count(o.id) AS orders, coalesce(sum(o.total), 0) AS revenue
  FROM generate_series(timestamptz '2026-05-01', timestamptz '2026-12-31', interval '1 day') AS d(day)
  LEFT JOIN orders AS o ON o.placed_at >= d.day AND o.placed_at < d.day + interval '1 day' GROUP BY d.day;

-- time series: a calendar by day and status
WITH days AS (SELECT generate_series(date '2026-05-01', date '2026-12-31', interval '1 day')::date AS day),
     facts AS (SELECT placed_at::date AS day, status, count(*) AS n FROM orders GROUP BY 1, 2)
SELECT d.day, s.status, coalesce(f.n, 0) AS n
  FROM days AS d CROSS JOIN (VALUES ('open'), ('paid'), ('sent')) AS s(status) LEFT JOIN facts AS f ON f.day = d.day AND f.status = s.status;

-- time series: the latest reading of each sensor
SELECT DISTINCT ON (sensor_id) sensor_id, at, value FROM readings ORDER BY sensor_id, at DESC, value;

-- time series: change since the reading before
SELECT sensor_id, at, value, value - lag(value) OVER (PARTITION BY sensor_id ORDER BY at, value) AS change FROM readings;

-- time series: moving mean
SELECT sensor_id, at, avg(value) OVER (PARTITION BY sensor_id ORDER BY at, value ROWS BETWEEN 5 PRECEDING AND CURRENT ROW) AS mean FROM readings;

-- time series: gaps in the readings
SELECT sensor_id, before, at FROM (SELECT sensor_id, at, lag(at) OVER (PARTITION BY sensor_id ORDER BY at) AS before FROM readings) AS r
 WHERE at - before > interval '6 minutes';

-- time series: islands of warm readings
SELECT sensor_id, min(at) AS since, max(at) AS until, count(*) AS n FROM (
    SELECT sensor_id, at, value > 25 AS warm,
           row_number() OVER (PARTITION BY sensor_id ORDER BY at, value) - row_number() OVER (PARTITION BY sensor_id, value > 25 ORDER BY at, value) AS island
      FROM readings) AS r
 WHERE warm GROUP BY sensor_id, island;

-- time series: sessions of thirty minutes
SELECT user_id, session, min(at) AS since, max(at) AS until, count(*) AS events FROM (
    SELECT user_id, at, sum(begins) OVER (PARTITION BY user_id ORDER BY at, id) AS session FROM (
        SELECT id, user_id, at, CASE WHEN at - lag(at) OVER (PARTITION BY user_id ORDER BY at, id) < interval '30 minutes' THEN 0 ELSE 1 END AS begins
          FROM events) AS marked) AS numbered
 GROUP BY user_id, session;

-- growth: retention of cohorts
WITH cohorts AS (SELECT id AS user_id, date_trunc('month', signed_up_at) AS cohort FROM users),
     active AS (SELECT DISTINCT user_id, date_trunc('month', at) AS month FROM events)
SELECT c.cohort, a.month, count(DISTINCT c.user_id) AS users FROM cohorts AS c JOIN active AS a USING (user_id) GROUP BY c.cohort, a.month;

-- growth: a funnel
SELECT count(DISTINCT user_id) FILTER (WHERE kind = 'visit') AS visited, count(DISTINCT user_id) FILTER (WHERE kind = 'signup') AS signed_up,
       count(DISTINCT user_id) FILTER (WHERE kind = 'buy') AS bought FROM events;

-- growth: a funnel in order
SELECT count(*) AS visited, count(s.at) AS signed_up, count(b.at) AS bought
  FROM (SELECT user_id, min(at) AS at FROM events WHERE kind = 'visit' GROUP BY user_id) AS v
  LEFT JOIN LATERAL (SELECT min(e.at) AS at FROM events AS e WHERE e.user_id = v.user_id AND e.kind = 'signup' AND e.at > v.at) AS s ON true
  LEFT JOIN LATERAL (SELECT min(e.at) AS at FROM events AS e WHERE e.user_id = v.user_id AND e.kind = 'buy' AND e.at > s.at) AS b ON true;

-- growth: users by day, week and month
SELECT date_trunc('day', at) AS day, count(DISTINCT user_id) AS users FROM events GROUP BY 1;

-- growth: first and last event of each user
SELECT user_id, min(at) AS first, max(at) AS last, max(at) - min(at) AS span, (array_agg(kind ORDER BY at DESC, id))[1] AS last_kind FROM events GROUP BY user_id;

-- statistics: percentiles of durations
SELECT payload ->> 'page' AS page, percentile_cont(0.5) WITHIN GROUP (ORDER BY (payload ->> 'ms')::int) AS median,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY (payload ->> 'ms')::int) AS p95 FROM events GROUP BY 1;

-- statistics: median order of each customer
SELECT customer_id, percentile_disc(0.5) WITHIN GROUP (ORDER BY total) AS median, stddev(total) AS deviation FROM orders GROUP BY customer_id;

-- statistics: orders above the customer's mean
SELECT o.id, o.total FROM orders AS o WHERE o.total > 1.8 * (SELECT avg(x.total) FROM orders AS x WHERE x.customer_id = o.customer_id);

-- statistics: running total of each customer, and its share
SELECT id, customer_id, total, sum(total) OVER (PARTITION BY customer_id ORDER BY placed_at, id) AS running,
       total / NULLIF(sum(total) OVER (PARTITION BY customer_id), 0) AS share FROM orders;

-- statistics: quartiles of customers
SELECT customer_id, ntile(4) OVER (ORDER BY spent DESC, customer_id) AS quartile FROM (SELECT customer_id, sum(total) AS spent FROM orders GROUP BY customer_id) AS s;

-- documents: an order with its lines
SELECT o.id, jsonb_build_object('status', o.status, 'total', o.total, 'lines',
           (SELECT coalesce(jsonb_agg(jsonb_build_object('product', p.name, 'quantity', i.quantity) ORDER BY i.line), '[]')
              FROM order_items AS i JOIN products AS p ON p.id = i.product_id WHERE i.order_id = o.id)) AS document
  FROM orders AS o;

-- documents: a customer with orders with lines
SELECT c.id, jsonb_build_object('name', c.name, 'orders',
           (SELECT jsonb_agg(jsonb_build_object('id', o.id, 'lines', (SELECT jsonb_agg(i.product_id ORDER BY i.line) FROM order_items AS i WHERE i.order_id = o.id)) ORDER BY o.id)
              FROM orders AS o WHERE o.customer_id = c.id)) AS document
  FROM customers AS c;

-- documents: customers with orders, as Hasura asks for them
SELECT coalesce(json_agg(root), '[]') AS root FROM (
    SELECT row_to_json((SELECT _e FROM (SELECT b.id AS id, b.name AS name, t.tenant AS tenant, o.orders AS orders, a.orders_aggregate AS orders_aggregate) AS _e)) AS root
      FROM (SELECT * FROM customers WHERE ('true') ORDER BY id ASC NULLS LAST LIMIT 20) AS b
      LEFT OUTER JOIN LATERAL (
        SELECT row_to_json((SELECT _e FROM (SELECT tb.name AS name) AS _e)) AS tenant FROM (SELECT * FROM tenants WHERE b.tenant_id = id LIMIT 1) AS tb) AS t ON ('true')
      LEFT OUTER JOIN LATERAL (
        SELECT coalesce(json_agg(orders ORDER BY "pg.placed_at" DESC NULLS FIRST, "pg.id"), '[]') AS orders FROM (
            SELECT ob.placed_at AS "pg.placed_at", ob.id AS "pg.id",
                   row_to_json((SELECT _e FROM (SELECT ob.id AS id, ob.total AS total, l.lines AS lines) AS _e)) AS orders
              FROM (SELECT * FROM orders WHERE b.id = customer_id ORDER BY placed_at DESC NULLS FIRST, id LIMIT 3) AS ob
              LEFT OUTER JOIN LATERAL (
                SELECT coalesce(json_agg(lines ORDER BY "pg.line"), '[]') AS lines FROM (
                    SELECT lb.line AS "pg.line", row_to_json((SELECT _e FROM (SELECT lb.quantity AS quantity, lb.price AS price) AS _e)) AS lines
                      FROM (SELECT * FROM order_items WHERE ob.id = order_id) AS lb) AS lr) AS l ON ('true')
             ORDER BY "pg.placed_at" DESC NULLS FIRST, "pg.id") AS orr) AS o ON ('true')
      LEFT OUTER JOIN LATERAL (
        SELECT json_build_object('aggregate', json_build_object('count', count(*), 'sum', json_build_object('total', sum(total)))) AS orders_aggregate
          FROM (SELECT 1, ab.total FROM (SELECT * FROM orders WHERE b.id = customer_id) AS ab) AS ar) AS a ON ('true')
     ORDER BY b.id ASC NULLS LAST) AS _root;

-- documents: a project with its owner, as Hasura asks for it
SELECT b.id, row_to_json((SELECT _e FROM (SELECT b.name AS name, o.owner AS owner, t.tickets AS tickets) AS _e)) AS root
  FROM (SELECT * FROM projects WHERE is_public = ('true')) AS b
  LEFT OUTER JOIN LATERAL (
    SELECT row_to_json((SELECT _e FROM (SELECT ob.name AS name, ob.role AS role) AS _e)) AS owner FROM (SELECT * FROM users WHERE b.owner_id = id) AS ob) AS o ON ('true')
  LEFT OUTER JOIN LATERAL (
    SELECT coalesce(json_agg(tickets ORDER BY "pg.id"), '[]') AS tickets FROM (
        SELECT tb.id AS "pg.id", row_to_json((SELECT _e FROM (SELECT tb.title AS title, tb.status AS status) AS _e)) AS tickets
          FROM (SELECT * FROM tickets WHERE b.id = project_id AND priority = 1) AS tb) AS tr) AS t ON ('true');

-- documents: names in one line
SELECT t.id, t.name, string_agg(u.name, ', ' ORDER BY u.name) FILTER (WHERE u.role = 'admin') AS admins, array_agg(DISTINCT u.role) AS roles
  FROM tenants AS t JOIN users AS u ON u.tenant_id = t.id GROUP BY t.id, t.name;

-- documents: a project with its tickets
SELECT p.id, p.name, json_build_object('open', count(t.id) FILTER (WHERE t.status = 'open'), 'titles', json_agg(t.title ORDER BY t.id) FILTER (WHERE t.priority = 1)) AS summary
  FROM projects AS p LEFT JOIN tickets AS t ON t.project_id = p.id GROUP BY p.id, p.name;

-- latest: order of each customer
SELECT DISTINCT ON (o.customer_id) o.customer_id, c.name, o.id, o.placed_at, o.total
  FROM orders AS o JOIN customers AS c ON c.id = o.customer_id ORDER BY o.customer_id, o.placed_at DESC, o.id DESC;

-- latest: version of each import, by row_number
SELECT id, external_id, version, payload FROM (
    SELECT *, row_number() OVER (PARTITION BY external_id ORDER BY version DESC, id DESC) AS n FROM imports) AS i WHERE n = 1;

-- latest: event of each user, by a join with the maximum
SELECT e.user_id, e.kind, e.at FROM events AS e JOIN (SELECT user_id, max(at) AS at FROM events GROUP BY user_id) AS m ON m.user_id = e.user_id AND m.at = e.at;

-- latest: news of everybody
SELECT id, user_id, kind, at FROM events ORDER BY at DESC, id DESC LIMIT 50;

-- trees: the chart of an organisation
WITH RECURSIVE chart AS (
    SELECT id, name, manager_id, 1 AS depth, ARRAY[id] AS path FROM users WHERE manager_id IS NULL
    UNION ALL
    SELECT u.id, u.name, u.manager_id, c.depth + 1, c.path || u.id FROM users AS u JOIN chart AS c ON u.manager_id = c.id)
SELECT * FROM chart;

-- trees: number of people below each
WITH RECURSIVE below AS (
    SELECT manager_id AS boss, id FROM users WHERE manager_id IS NOT NULL
    UNION
    SELECT b.boss, u.id FROM below AS b JOIN users AS u ON u.manager_id = b.id)
SELECT boss, count(*) AS people FROM below GROUP BY boss;

-- trees: a bill of materials
WITH RECURSIVE needs AS (
    SELECT part_id, child_id, quantity FROM components WHERE part_id < 20
    UNION ALL
    SELECT n.part_id, c.child_id, n.quantity * c.quantity FROM needs AS n JOIN components AS c ON c.part_id = n.child_id)
SELECT part_id, child_id, sum(quantity) AS quantity FROM needs GROUP BY part_id, child_id;

-- trees: products under each category, with paths
WITH RECURSIVE tree AS (
    SELECT id, name AS path FROM categories WHERE parent_id IS NULL
    UNION ALL
    SELECT c.id, t.path || ' / ' || c.name FROM categories AS c JOIN tree AS t ON c.parent_id = t.id)
SELECT t.path, count(p.id) AS products, avg(p.price) AS price FROM tree AS t LEFT JOIN products AS p ON p.category_id = t.id GROUP BY t.path;

-- tags: products by tag
SELECT tag, count(*) AS products, avg(price) AS price FROM products, unnest(tags) AS tag GROUP BY tag;

-- tags: sold by tag
SELECT t.tag, sum(i.quantity) AS sold FROM products AS p CROSS JOIN LATERAL unnest(p.tags) AS t(tag) JOIN order_items AS i ON i.product_id = p.id GROUP BY t.tag;

-- tags: in documents
SELECT e.kind, tag, count(*) AS n FROM events AS e, jsonb_array_elements_text(e.payload -> 'tags') AS tag GROUP BY e.kind, tag;

-- search: full text
SELECT id, title, project_id FROM tickets WHERE to_tsvector('english', title) @@ to_tsquery('english', 'crash & invoice');

-- search: by attributes and price
SELECT id, name, price FROM products WHERE attributes @> '{"color": "red"}' AND 'eco' = ANY (tags) AND price BETWEEN 20 AND 90;

-- reports: grouping sets
SELECT c.country, c.segment, o.status, grouping(c.country, c.segment, o.status) AS level, count(*) AS orders, sum(o.total) AS revenue
  FROM orders AS o JOIN customers AS c ON c.id = o.customer_id GROUP BY GROUPING SETS ((c.country, c.segment), (o.status), ());

-- reports: rollup by month
SELECT date_trunc('month', placed_at) AS month, status, sum(total) AS revenue FROM orders GROUP BY ROLLUP (1, 2);

-- reports: months beside the month before
SELECT month, revenue, revenue - lag(revenue) OVER (ORDER BY month) AS growth
  FROM (SELECT date_trunc('month', placed_at) AS month, sum(total) AS revenue FROM orders GROUP BY 1) AS m;

-- reports: best customers of each country
SELECT country, name, spent FROM (
    SELECT c.country, c.name, sum(o.total) AS spent, rank() OVER (PARTITION BY c.country ORDER BY sum(o.total) DESC) AS place
      FROM customers AS c JOIN orders AS o ON o.customer_id = c.id GROUP BY c.id, c.country, c.name) AS s
 WHERE place <= 5;

-- permissions: what a user may see
SELECT u.id AS user_id, p.id AS project_id FROM users AS u JOIN projects AS p ON p.tenant_id = u.tenant_id
 WHERE u.deleted_at IS NULL AND (u.role = 'admin' OR p.is_public OR p.owner_id = u.id
        OR EXISTS (SELECT FROM memberships AS m JOIN team_projects AS tp ON tp.team_id = m.team_id WHERE m.user_id = u.id AND tp.project_id = p.id));

-- permissions: by UNION
SELECT owner_id AS user_id, id AS project_id FROM projects
 UNION
SELECT m.user_id, tp.project_id FROM memberships AS m JOIN team_projects AS tp USING (team_id);

-- permissions: soft deletes
SELECT u.id, u.name, t.name AS tenant, (SELECT count(*) FROM tickets AS k WHERE k.assignee_id = u.id AND k.status <> 'done') AS tickets
  FROM users AS u JOIN tenants AS t ON t.id = u.tenant_id AND t.deleted_at IS NULL WHERE u.deleted_at IS NULL;

-- history: price at the time of the order
SELECT i.order_id, i.line, i.price, h.price AS listed FROM order_items AS i JOIN orders AS o ON o.id = i.order_id
  JOIN price_history AS h ON h.product_id = i.product_id AND h.valid @> o.placed_at;

-- history: prices that hold
SELECT p.id, p.name, h.price FROM products AS p JOIN price_history AS h ON h.product_id = p.id WHERE h.valid @> now();

-- history: overlapping work
SELECT a.id, b.id AS other FROM tickets AS a JOIN tickets AS b ON b.assignee_id = a.assignee_id AND b.id > a.id
   AND (a.opened_at, a.closed_at) OVERLAPS (b.opened_at, b.closed_at) WHERE a.priority = 1 AND b.priority = 1;

-- missing: customers without orders
SELECT c.id, c.name FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id WHERE o.id IS NULL;

-- missing: not in a list with NULLs
SELECT id, name FROM customers WHERE id NOT IN (SELECT customer_id FROM blocked WHERE customer_id IS NOT NULL);

-- missing: orders paid too little
SELECT o.id, o.total, coalesce(p.paid, 0) AS paid FROM orders AS o
  LEFT JOIN (SELECT order_id, sum(amount) AS paid FROM payments GROUP BY order_id) AS p ON p.order_id = o.id
 WHERE o.status IN ('sent', 'paid') AND coalesce(p.paid, 0) < o.total;

-- missing: two systems compared
SELECT coalesce(o.customer_id, b.customer_id) AS customer_id, o.n, b.customer_id IS NOT NULL AS blocked
  FROM (SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id) AS o FULL JOIN (SELECT DISTINCT customer_id FROM blocked) AS b ON b.customer_id = o.customer_id;

-- missing: quiet customers
SELECT c.id, c.name, max(o.placed_at) AS last FROM customers AS c JOIN orders AS o ON o.customer_id = c.id
 GROUP BY c.id HAVING max(o.placed_at) < now() - interval '60 days';
