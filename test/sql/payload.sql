--
-- Payloads, states and keys of all sizes and kinds.
-- Section 2 (actor_key, payload, state).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
SELECT djactor.define_actor_type('payload', 'collect');
CREATE FUNCTION digest(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT collect($1, to_jsonb(length($2::text) || ' ' || md5($2::text)))$$;
SELECT djactor.define_actor_type('payload.digest', 'digest');

-- # Megabytes, alone and several in a batch, arrive unchanged
CREATE TABLE big (i int, payload jsonb);
INSERT INTO big SELECT i, jsonb_build_object('i', i, 'text', (SELECT string_agg(md5(i::text || j), ' ') FROM generate_series(1, 100000) j)) FROM generate_series(1, 4) i;
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'payload.digest', 'big', payload FROM big ORDER BY i;
CALL idle('payload.digest');
SELECT state = (SELECT jsonb_agg(length(payload::text) || ' ' || md5(payload::text) ORDER BY i) FROM big) AS unchanged,
	(SELECT min(length(payload::text)) > 3000000 FROM big) AS megabytes
FROM djactor.actor WHERE actor_type = 'payload.digest';

-- # ... also from another turn, as state, among small messages
CREATE FUNCTION hoard(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF message = '"forward"' THEN
		PERFORM djactor.send('payload.digest', 'forwarded', (state -> 0));
		RETURN state;
	ELSIF jsonb_typeof(message) = 'number' THEN
		RETURN state;
	END IF;
	RETURN collect(state, message);
END $$;
SELECT djactor.define_actor_type('payload.hoard', 'hoard');
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'payload.hoard', 'h', payload FROM big WHERE i = 1;
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'payload.hoard', 'h', to_jsonb(i) FROM generate_series(1, 5) i;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('payload.hoard', 'h', '"forward"');
CALL idle('payload.hoard');
CALL idle('payload.digest');
SELECT state = (SELECT jsonb_agg(payload ORDER BY i) FROM big WHERE i = 1) AS state_unchanged, turns FROM djactor.actor WHERE actor_type = 'payload.hoard';
SELECT state = (SELECT jsonb_build_array(length(payload::text) || ' ' || md5(payload::text)) FROM big WHERE i = 1) AS forwarded_unchanged
FROM djactor.actor WHERE actor_type = 'payload.digest' AND actor_key = 'forwarded';

-- # JSON of every kind, JSON null included
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'payload', 'kinds', kind::jsonb FROM unnest(ARRAY['null', 'true', '0', '-1.5e30', '12345678901234567890123456789.000', '""', '"\u00e9 \"quoted\" \\ 漢"', '[]', '[null]', '{"": {"a": [1, {"b": null}]}}']) WITH ORDINALITY k (kind, i) ORDER BY i;
CALL idle('payload');
SELECT jsonb_array_elements(state) AS payload FROM djactor.actor WHERE actor_type = 'payload' AND actor_key = 'kinds';

-- # Keys: any text of 1 to 512 bytes, told apart byte by byte
INSERT INTO djactor.message (actor_type, actor_key, payload)
SELECT 'payload', key, to_jsonb(i)
FROM unnest(ARRAY['a', 'A', 'a ', ' a', 'é', E'e\u0301', '漢字', '🙂', E'tab\tline\n', '''; DROP', '%_\', repeat('x', 512), repeat('é', 256), repeat('x', 511), '0', '00'])
	WITH ORDINALITY k (key, i);
CALL idle('payload');
SELECT CASE WHEN length(actor_key) > 20 THEN left(actor_key, 3) || '... ' || octet_length(actor_key) || ' bytes' ELSE quote_literal(actor_key) END AS key, state, turns
FROM djactor.actor WHERE actor_type = 'payload' AND actor_key <> 'kinds' ORDER BY (state ->> 0)::int;

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'payload%';
DROP TABLE big;
DROP FUNCTION digest, hoard;
