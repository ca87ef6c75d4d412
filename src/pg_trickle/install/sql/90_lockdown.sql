-- Nothing is for everybody but the gate, and to reach that takes USAGE on the schema.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgtrickle, pgtrickle_changes FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA pgtrickle, pgtrickle_changes FROM PUBLIC;
REVOKE ALL ON SCHEMA pgtrickle, pgtrickle_changes FROM PUBLIC;
GRANT INSERT (action, args), SELECT (result) ON pgtrickle.gate TO PUBLIC;
