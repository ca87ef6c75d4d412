-- Define the ST without RLS at the source level
SELECT pgtrickle.create_stream_table(
'order_summary',
$$SELECT tenant_id, customer_id, SUM(amount) AS total
FROM orders GROUP BY tenant_id, customer_id$$
);
-- Apply RLS to the stream table for per-tenant isolation
ALTER TABLE order_summary ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON order_summary
FOR SELECT USING (tenant_id = current_setting('app.tenant_id')::int);
