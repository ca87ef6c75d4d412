-- One transaction of an application: the share %(share)s of the rows comes, goes or changes.

INSERT INTO orders
SELECT (SELECT max(id) FROM orders) + row_number() OVER (), customer_id, 'open', date_trunc('second', now()) - interval '1 minute', total + 1
  FROM orders WHERE random() < %(share)s / 4;
INSERT INTO order_items
SELECT o.id, 1, 1 + o.id %% 40, 2, 9.90 FROM orders AS o WHERE o.id > (SELECT max(order_id) FROM order_items);
INSERT INTO payments
SELECT (SELECT max(id) FROM payments) + row_number() OVER (), order_id, amount, 'card' FROM payments WHERE random() < %(share)s / 4;
UPDATE orders SET status = (ARRAY['paid', 'sent', 'returned'])[1 + floor(random() * 3)::int], total = total + 5 WHERE random() < %(share)s / 2;
UPDATE order_items SET quantity = quantity + 1 WHERE random() < %(share)s / 2;
UPDATE order_items SET product_id = product_id + 6 WHERE random() < %(share)s / 8;
UPDATE orders SET customer_id = customer_id + 6 WHERE random() < %(share)s / 8;
DELETE FROM orders WHERE random() < %(share)s / 8;
DELETE FROM order_items WHERE random() < %(share)s / 8;
DELETE FROM payments WHERE random() < %(share)s / 4;
INSERT INTO stock_moves
SELECT (SELECT max(id) FROM stock_moves) + row_number() OVER (), product_id, warehouse_id, quantity, now() FROM stock_moves WHERE random() < %(share)s / 2;
DELETE FROM stock_moves WHERE random() < %(share)s / 4;
INSERT INTO events
SELECT (SELECT max(id) FROM events) + row_number() OVER (), user_id, kind, date_trunc('second', now()), payload FROM events WHERE random() < %(share)s / 2;
UPDATE events SET kind = 'buy' WHERE random() < %(share)s / 8;
DELETE FROM events WHERE random() < %(share)s / 4;
INSERT INTO readings SELECT sensor_id, now(), value + 1 FROM readings WHERE random() < %(share)s / 2;
UPDATE readings SET value = value - 0.5 WHERE random() < %(share)s / 8;
DELETE FROM readings WHERE random() < %(share)s / 4;
UPDATE tickets SET status = 'done', closed_at = now() WHERE random() < %(share)s / 2;
UPDATE tickets SET assignee_id = 1 + floor(random() * 40)::int WHERE random() < %(share)s / 4;
UPDATE tickets SET title = 'login on report' WHERE random() < %(share)s / 8;
DELETE FROM tickets WHERE random() < %(share)s / 8;
INSERT INTO scores SELECT player_id, game_id, points + 10, now() FROM scores WHERE random() < %(share)s / 2;
DELETE FROM scores WHERE random() < %(share)s / 4;
INSERT INTO imports
SELECT (SELECT max(id) FROM imports) + row_number() OVER (), external_id, version + 1, payload FROM imports WHERE random() < %(share)s / 2;
DELETE FROM imports WHERE random() < %(share)s / 4;
UPDATE products SET price = price + 1, tags = tags || '{hot}' WHERE random() < %(share)s AND cardinality(tags) < 8;
UPDATE products SET attributes = attributes || '{"color": "black"}' WHERE random() < %(share)s;
UPDATE customers SET segment = 'retail', country = 'ES' WHERE random() < %(share)s;
UPDATE users SET role = 'admin', deleted_at = NULL WHERE random() < %(share)s;
UPDATE users SET manager_id = 2 WHERE id > 40 AND random() < %(share)s;
UPDATE projects SET owner_id = owner_id + 1, is_public = NOT is_public WHERE random() < %(share)s;
DELETE FROM memberships WHERE random() < %(share)s / 2;
INSERT INTO memberships SELECT team_id + 1, user_id FROM memberships WHERE random() < %(share)s / 2 ON CONFLICT DO NOTHING;
DELETE FROM team_projects WHERE random() < %(share)s;
UPDATE components SET quantity = quantity + 1 WHERE random() < %(share)s;
UPDATE categories SET name = name || '''' WHERE random() < %(share)s;
UPDATE price_history SET price = price + 1 WHERE random() < %(share)s;
INSERT INTO blocked SELECT id FROM customers WHERE random() < %(share)s / 20;
