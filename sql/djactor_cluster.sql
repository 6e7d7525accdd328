/*
 * djactor_cluster.sql
 *
 * Actors on several servers, the nodes of a cluster; docs/cluster.md is for users.
 * Each key lives on one node.  Who sends to another node inserts into
 * djactor_cluster.message, as djactor.send() does, which is partitioned by node:
 *
 * - message_here, for this node: its triggers put each row into djactor.message;
 * - message_N, for another node, by transport "outbox": an ordinary table, whose rows an
 *   actor, djactor_cluster.forward, brings to the inbox of the other node in batches;
 * - or by transport "direct": a foreign table, which is message_here of the other node;
 * - or by transport "citus": a foreign table of djactor_citus, which hands rows over to a
 *   distributed table, djactor_cluster.routed_N, whose only shard is on the other node.
 *
 * The partitions, and foreign tables for reading, are made by set_up() and add_node().
 * They belong to the database, not to the extension, and so come with a dump.  The
 * rules of djactor.sql hold here as well.
 *
 * Order: places, tables, triggers, forwarding, answers, types, views, setting up,
 * tables of users, moving actors, grants, dump configuration.
 */

\echo Use "CREATE EXTENSION djactor_cluster" to load this file. \quit

CREATE SCHEMA djactor_cluster;
COMMENT ON SCHEMA djactor_cluster IS 'djactor_cluster: actors on several servers';

/* ---------- which node ---------- */

CREATE TABLE djactor_cluster.here
(
	node smallint NOT NULL,
	slots smallint[] NOT NULL,
	role regrole NOT NULL,
	nodes smallint[] NOT NULL,
	moving smallint[] NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX here_once ON djactor_cluster.here ((true));
COMMENT ON TABLE djactor_cluster.here IS 'one row, written by set_up() and move_slots(): which node this is, and where keys live';
COMMENT ON COLUMN djactor_cluster.here.node IS 'number of this node, 0 to 63';
COMMENT ON COLUMN djactor_cluster.here.slots IS 'node of each of the 256 slots; the slot of a key is the upper byte of its hash, as Citus distributes';
COMMENT ON COLUMN djactor_cluster.here.role IS 'role that forwards mail, and as which other nodes connect';
COMMENT ON COLUMN djactor_cluster.here.nodes IS 'all nodes: also those without slots, on which keys live that name them';
COMMENT ON COLUMN djactor_cluster.here.moving IS 'slots whose actors are on their way: from this node, if slots has another one for them, or else to it';

CREATE FUNCTION djactor_cluster.outdate(relation regclass) RETURNS void
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_cluster_outdate';
COMMENT ON FUNCTION djactor_cluster.outdate(regclass) IS 'has all sessions look again where keys live, or plan queries about a table again';

CREATE FUNCTION djactor_cluster.here_changed() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	PERFORM djactor_cluster.outdate(TG_RELID);
	RETURN NULL;
END $$;
COMMENT ON FUNCTION djactor_cluster.here_changed() IS 'trigger: has all sessions read djactor_cluster.here again';

CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON djactor_cluster.here
	FOR EACH STATEMENT EXECUTE FUNCTION djactor_cluster.here_changed();

CREATE FUNCTION djactor_cluster.this_node() RETURNS int
	LANGUAGE c STABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'dja_cluster_this_node';
COMMENT ON FUNCTION djactor_cluster.this_node() IS 'number of this node; NULL before set_up()';

CREATE FUNCTION djactor_cluster.node_of_key(actor_key text) RETURNS int
	LANGUAGE c STABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'dja_cluster_node_of_key';
COMMENT ON FUNCTION djactor_cluster.node_of_key(text) IS
'node on which actors of this key live, of any type; keys @N and @N/... live on node N';

CREATE FUNCTION djactor_cluster.is_here(actor_key text) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'dja_cluster_is_here';
COMMENT ON FUNCTION djactor_cluster.is_here(text) IS 'whether actors of this key live on this node; true before set_up()';

CREATE FUNCTION djactor_cluster.slot_of_key(actor_key text) RETURNS int
	LANGUAGE c STABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'dja_cluster_slot_of_key';
COMMENT ON FUNCTION djactor_cluster.slot_of_key(text) IS
'slot of a key, 0 to 255; NULL for keys that name their node';

CREATE FUNCTION djactor_cluster.slots(node int) RETURNS int[]
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
SELECT COALESCE(array_agg(slot - 1 ORDER BY slot), '{}')
	FROM djactor_cluster.here h, unnest(h.slots) WITH ORDINALITY AS s (lives_on, slot) WHERE lives_on = $1;
END;
COMMENT ON FUNCTION djactor_cluster.slots(int) IS 'slots whose keys live on this node, as this database knows it';

CREATE FUNCTION djactor_cluster.first_id(node int) RETURNS bigint
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
SELECT greatest(node::bigint << 42, 1);
END;
COMMENT ON FUNCTION djactor_cluster.first_id(int) IS 'first id of a node''s range of 2^42';

CREATE FUNCTION djactor_cluster.node_of(id bigint) RETURNS int
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
SELECT (id >> 42)::int;
END;
COMMENT ON FUNCTION djactor_cluster.node_of(bigint) IS 'node that has given this id to a message or an actor';

/*
 * Partitions by node: the remainder by 64 is the node, see cluster.c.  The server takes it
 * to be immutable.  When a slot has moved, plans that rely on it are outdated by
 * place_slots().
 */
CREATE FUNCTION djactor_cluster.partition_hash(actor_key text, seed bigint) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'dja_cluster_partition_hash';
COMMENT ON FUNCTION djactor_cluster.partition_hash(text, bigint) IS 'hash of a key whose remainder by 64, as hash partitions take it, is its node';

CREATE OPERATOR CLASS djactor_cluster.by_node FOR TYPE text USING hash AS
	OPERATOR 1 pg_catalog.= (text, text),
	FUNCTION 2 djactor_cluster.partition_hash(text, bigint);

/* ---------- tables ---------- */

CREATE TABLE djactor_cluster.node
(
	node smallint NOT NULL PRIMARY KEY,
	server name,
	transport text,
	received bigint,
	digest text
);
COMMENT ON TABLE djactor_cluster.node IS 'the nodes of the cluster, this one included; written by set_up(), add_node() and what arrives';
COMMENT ON COLUMN djactor_cluster.node.node IS 'number, 0 to 63';
COMMENT ON COLUMN djactor_cluster.node.server IS 'foreign server; NULL for this node';
COMMENT ON COLUMN djactor_cluster.node.transport IS 'how mail goes there: outbox, direct or citus; NULL for this node';
COMMENT ON COLUMN djactor_cluster.node.received IS 'number of the last batch that has come from there; NULL = none, or the next may have any number';
COMMENT ON COLUMN djactor_cluster.node.digest IS 'digest of that batch';

/* The columns up to cause_id are those of djactor.message, in its order. */
CREATE TABLE djactor_cluster.message
(
	id bigint,
	actor_type text COLLATE pg_catalog."C" NOT NULL,
	actor_key text COLLATE pg_catalog."C" NOT NULL,
	payload jsonb NOT NULL DEFAULT '{}'::pg_catalog.jsonb,
	headers jsonb DEFAULT djactor.current_headers(),
	priority smallint NOT NULL DEFAULT 0,
	deliver_at timestamptz,
	expires_at timestamptz,
	idempotency_key text COLLATE pg_catalog."C",
	wants_reply boolean NOT NULL DEFAULT false,
	in_reply_to bigint,
	trace_id uuid NOT NULL DEFAULT djactor.current_trace(),
	kind text NOT NULL DEFAULT 'user',
	meta jsonb,
	sender_type text COLLATE pg_catalog."C" DEFAULT djactor.current_sender_type(),
	sender_key text COLLATE pg_catalog."C" DEFAULT djactor.current_sender_key(),
	cause_id bigint DEFAULT djactor.current_cause(),
	sent_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	coalesce_key text COLLATE pg_catalog."C",
	coalesce_mode text,
	coalesce_until timestamptz,
	from_node smallint DEFAULT djactor_cluster.this_node(),
	ask_id bigint
) PARTITION BY HASH (actor_key djactor_cluster.by_node);
COMMENT ON TABLE djactor_cluster.message IS 'INSERT sends to actors of any node; has only what waits to be forwarded';
COMMENT ON COLUMN djactor_cluster.message.id IS 'of an actor here, or by transport direct: the id of the message; else one of this node, which names the ask to whom waits for its answer';
COMMENT ON COLUMN djactor_cluster.message.from_node IS 'node at which it was sent';
COMMENT ON COLUMN djactor_cluster.message.ask_id IS 'id by which its sender knows it; NULL = id';

CREATE TABLE djactor_cluster.inbox
(
	from_node smallint NOT NULL,
	batch bigint NOT NULL,
	messages jsonb NOT NULL
);
COMMENT ON TABLE djactor_cluster.inbox IS 'keeps nothing: a batch of messages from another node, which its trigger delivers';

CREATE TABLE djactor_cluster.ask
(
	id bigint NOT NULL PRIMARY KEY,
	node smallint NOT NULL,
	ask_id bigint NOT NULL,
	sender_type text COLLATE pg_catalog."C",
	sender_key text COLLATE pg_catalog."C"
);
COMMENT ON TABLE djactor_cluster.ask IS 'return addresses of asks that have come from other nodes and are not answered';
COMMENT ON COLUMN djactor_cluster.ask.id IS 'the message';
COMMENT ON COLUMN djactor_cluster.ask.node IS 'node at which it was sent';
COMMENT ON COLUMN djactor_cluster.ask.ask_id IS 'id by which its sender knows it';
COMMENT ON COLUMN djactor_cluster.ask.sender_type IS 'type of the actor that asks; NULL = asked from outside of actors';
COMMENT ON COLUMN djactor_cluster.ask.sender_key IS 'key of the actor that asks';

CREATE TABLE djactor_cluster.command
(
	command text NOT NULL,
	settings jsonb NOT NULL
);
COMMENT ON TABLE djactor_cluster.command IS 'keeps nothing: a command that execute() has sent from another node, which its trigger runs as the role that inserts';

/* ---------- triggers of the partitions ---------- */

CREATE FUNCTION djactor_cluster.arrive() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_cluster_arrive';
COMMENT ON FUNCTION djactor_cluster.arrive() IS 'trigger: puts a message into djactor.message';

CREATE FUNCTION djactor_cluster.leave() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_cluster_leave';
COMMENT ON FUNCTION djactor_cluster.leave() IS 'trigger: removes the row of a message that has arrived';

CREATE FUNCTION djactor_cluster.post() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_cluster_post';
COMMENT ON FUNCTION djactor_cluster.post() IS 'trigger: checks a message for another node, and wakes the actor that forwards it';

CREATE FUNCTION djactor_cluster.note_ask() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	NEW.id := nextval('djactor.message_id_seq');
	INSERT INTO djactor_cluster.ask
		VALUES (NEW.id, NEW.from_node, coalesce(NEW.ask_id, NEW.id), NEW.sender_type, NEW.sender_key);
	NEW.sender_type := 'djactor_cluster.answers';
	NEW.sender_key := format('@%s/%s', djactor_cluster.this_node(), NEW.from_node);
	RETURN NEW;
END $$;
COMMENT ON FUNCTION djactor_cluster.note_ask() IS 'trigger: keeps the return address of an ask from another node';

/* ---------- forwarding ---------- */

/*
 * The turn that has a batch in its state, committed by an earlier one, sends it.  So a
 * batch that was sent is sent again, as it was, until the turn that has sent it commits.
 */
CREATE FUNCTION djactor_cluster.forward(state jsonb, message jsonb) RETURNS jsonb
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	self record := djactor.self();
	target int := split_part(self.actor_key, '/', 2)::int;
	outbox text := format('djactor_cluster.message_%s', target);
	batch bigint := coalesce((state->>'batch')::bigint, 0);
	ids bigint[];
BEGIN
	IF state ? 'ids' THEN
		IF state->>'chosen_in' = pg_current_xact_id()::text THEN
			-- not committed: another turn sends it
			IF message ? 'batch' THEN
				PERFORM djactor.set_timer('again', after => '100 ms', payload => '{"again": true}');
			END IF;
			RETURN state;
		END IF;
		ids := array(SELECT id::bigint FROM jsonb_array_elements_text(state->'ids') AS id);
		EXECUTE format('INSERT INTO djactor_cluster.inbox_%s SELECT $1, $2, jsonb_agg(to_jsonb(m) ORDER BY m.id) FROM %s m WHERE m.id = ANY ($3)',
			target, outbox) USING djactor_cluster.this_node(), batch, ids;
		EXECUTE format('DELETE FROM %s WHERE id = ANY ($1)', outbox) USING ids;
	END IF;
	-- 1,000 messages, or 1 MB and what exceeds it first
	EXECUTE format('SELECT array_agg(id ORDER BY id)
		FROM (SELECT id, sum(size) OVER (ORDER BY id) - size AS before
			FROM (SELECT id, pg_column_size(payload) AS size FROM %s ORDER BY id LIMIT 1000) first) summed
		WHERE before < 1000000', outbox) INTO ids;
	IF ids IS NULL THEN
		PERFORM djactor.cancel_timer('again') WHERE state ? 'ids';
		RETURN jsonb_build_object('batch', batch);
	END IF;
	-- should the message to itself be given up: a server that crashes twice with it does that
	PERFORM djactor.set_timer('again', after => '1 min', payload => '{"again": true}') WHERE NOT state ? 'ids' OR message ? 'again';
	PERFORM djactor.send('djactor_cluster.forward', self.actor_key, jsonb_build_object('batch', batch + 1));
	RETURN jsonb_build_object('batch', batch + 1, 'ids', ids, 'chosen_in', pg_current_xact_id());
END $$;
COMMENT ON FUNCTION djactor_cluster.forward(jsonb, jsonb) IS
'handler: actor @A/B brings the mail of node A to node B, batch by batch';

CREATE FUNCTION djactor_cluster.give_answer
(
	node int, ask_id bigint, asker_type text, asker_key text, kind text, payload jsonb, meta jsonb,
	answerer_type text, answerer_key text
) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_variable
BEGIN
	IF asker_type IS NULL THEN
		INSERT INTO djactor_cluster.message (actor_type, actor_key, payload, sender_type, sender_key)
			VALUES ('djactor_cluster.answers', '@' || node, jsonb_build_object('id', ask_id, kind, payload),
				'djactor_cluster.answers', format('@%s/%s', djactor_cluster.this_node(), node));
	ELSE
		INSERT INTO djactor_cluster.message (actor_type, actor_key, payload, kind, meta, in_reply_to, sender_type, sender_key)
			VALUES (asker_type, asker_key, payload, kind, meta, ask_id, answerer_type, answerer_key);
	END IF;
END $$;
COMMENT ON FUNCTION djactor_cluster.give_answer(int, bigint, text, text, text, jsonb, jsonb, text, text) IS
'sends the answer to an ask from another node there';

/*
 * Of a batch: what can be delivered is, the rest is given up, and who asked is told.  What
 * is for an actor that has moved goes on to its node, as the sender has sent it.
 */
CREATE FUNCTION djactor_cluster.deliver(from_node int, messages jsonb) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_column
DECLARE
	m djactor_cluster.message;
	failure jsonb;
	one jsonb;
BEGIN
	-- a JSON null comes as NULL
	INSERT INTO djactor_cluster.message (actor_type, actor_key, payload, headers, priority, deliver_at, expires_at,
			idempotency_key, wants_reply, in_reply_to, trace_id, kind, meta, sender_type, sender_key, cause_id, sent_at,
			coalesce_key, coalesce_mode, coalesce_until, from_node, ask_id)
		SELECT actor_type, actor_key, coalesce(payload, 'null'), headers, priority, deliver_at, expires_at,
			idempotency_key, wants_reply, in_reply_to, trace_id, kind, meta, sender_type, sender_key, cause_id, sent_at,
			coalesce_key, coalesce_mode, coalesce_until, coalesce(from_node, $1), coalesce(ask_id, id)
		FROM jsonb_populate_recordset(NULL::djactor_cluster.message, $2);
EXCEPTION WHEN undefined_object OR configuration_limit_exceeded OR invalid_parameter_value OR check_violation THEN
	IF jsonb_array_length($2) > 1 THEN
		FOR one IN SELECT jsonb_array_elements($2) LOOP
			PERFORM djactor_cluster.deliver($1, jsonb_build_array(one));
		END LOOP;
		RETURN;
	END IF;
	m := jsonb_populate_record(NULL::djactor_cluster.message, $2->0);
	failure := jsonb_build_object(
		'reason', CASE WHEN SQLSTATE = '53400' THEN 'mailbox_full' ELSE 'rejected' END, 'sqlstate', SQLSTATE, 'error', SQLERRM);
	INSERT INTO djactor.dead_letter (id, actor_type, actor_key, payload, headers, priority, deliver_at, expires_at,
			idempotency_key, wants_reply, in_reply_to, trace_id, kind, meta, sender_type, sender_key, cause_id,
			attempts, crashes, redrives, sent_at, reason, sqlstate, error, failed_at)
		VALUES (nextval('djactor.message_id_seq'), m.actor_type, m.actor_key, coalesce(m.payload, 'null'), m.headers, m.priority, m.deliver_at, m.expires_at,
			m.idempotency_key, m.wants_reply, m.in_reply_to, m.trace_id, m.kind, m.meta, m.sender_type, m.sender_key, m.cause_id,
			0, 0, 0, m.sent_at, failure->>'reason', SQLSTATE, SQLERRM, now());
	IF m.wants_reply THEN
		PERFORM djactor_cluster.give_answer(coalesce(m.from_node, $1), coalesce(m.ask_id, m.id), m.sender_type, m.sender_key, 'error', failure, failure,
			m.actor_type, m.actor_key);
	END IF;
	RAISE LOG 'a message of node % for actor % "%" was given up: %', $1, m.actor_type, m.actor_key, SQLERRM
		USING DETAIL = 'The message is in djactor.dead_letter.';
END $$;
COMMENT ON FUNCTION djactor_cluster.deliver(int, jsonb) IS 'delivers messages that have come from another node';

CREATE FUNCTION djactor_cluster.receive() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	peer djactor_cluster.node;
	content text := encode(sha256(convert_to(NEW.messages::text, 'UTF8')), 'hex');
BEGIN
	SELECT * INTO peer FROM djactor_cluster.node n WHERE n.node = NEW.from_node AND n.server IS NOT NULL FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no node %', NEW.from_node
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call djactor_cluster.add_node() here.';
	ELSIF NEW.batch = peer.received AND content = peer.digest THEN
		RETURN NULL;			-- seen
	ELSIF NEW.batch <> peer.received + 1 THEN
		RAISE EXCEPTION 'node % has sent batch %, after batch %', NEW.from_node, NEW.batch, peer.received
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = 'One of the two nodes was set back, by the restore of a backup for example.',
				HINT = format('Call djactor_cluster.accept(%s) here to go on with the batch that comes next.', NEW.from_node);
	END IF;
	UPDATE djactor_cluster.node n SET received = NEW.batch, digest = content WHERE n.node = NEW.from_node;
	PERFORM djactor_cluster.deliver(NEW.from_node, NEW.messages);
	RETURN NULL;
END $$;
COMMENT ON FUNCTION djactor_cluster.receive() IS 'trigger: delivers a batch from another node, unless it has come before';

CREATE TRIGGER receive BEFORE INSERT ON djactor_cluster.inbox
	FOR EACH ROW EXECUTE FUNCTION djactor_cluster.receive();

CREATE FUNCTION djactor_cluster.accept(node int) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	UPDATE djactor_cluster.node n SET received = NULL, digest = NULL WHERE n.node = $1 AND n.server IS NOT NULL;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no other node %', $1 USING ERRCODE = 'undefined_object';
	END IF;
END $$;
COMMENT ON FUNCTION djactor_cluster.accept(int) IS
'takes the next batch of another node whatever its number, after one of the two was restored from a backup';

/* ---------- answers ---------- */

CREATE FUNCTION djactor_cluster.keep_answer(id bigint, payload jsonb, error jsonb) RETURNS void
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'dja_cluster_keep_answer';
COMMENT ON FUNCTION djactor_cluster.keep_answer(bigint, jsonb, jsonb) IS
'writes the answer to an ask from outside of actors into djactor.reply, and wakes who waits';

CREATE FUNCTION djactor_cluster.answers(state jsonb, message jsonb) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	m djactor.message := djactor.message();
	a djactor_cluster.ask;
BEGIN
	IF m.kind <> 'user' AND m.meta ? 'to' THEN
		INSERT INTO djactor_cluster.message (actor_type, actor_key, payload, kind, meta, in_reply_to, sender_type, sender_key)
			VALUES (m.meta->'to'->>'type', m.meta->'to'->>'key', message, m.kind, nullif(m.meta->'meta', 'null'), m.in_reply_to,
				m.sender_type, m.sender_key);
	ELSIF m.kind IN ('reply', 'error') THEN
		DELETE FROM djactor_cluster.ask WHERE id = m.in_reply_to RETURNING * INTO a;
		IF FOUND THEN
			PERFORM djactor_cluster.give_answer(a.node, a.ask_id, a.sender_type, a.sender_key, m.kind, message, m.meta,
				m.sender_type, m.sender_key);
		END IF;
	ELSIF m.sender_type = 'djactor_cluster.answers' THEN
		PERFORM djactor_cluster.keep_answer((message->>'id')::bigint, message->'reply', message->'error');
	ELSE
		PERFORM djactor.reject('only nodes send answers');
	END IF;
END $$;
COMMENT ON FUNCTION djactor_cluster.answers(jsonb, jsonb) IS
'handler: actor @A/B sends answers of node A to node B, and what else djactor itself sends to actors there; actor @B keeps answers to asks from outside of actors';

/* ---------- commands and types on all nodes ---------- */

CREATE FUNCTION djactor_cluster.run_command() RETURNS trigger
	LANGUAGE plpgsql
	AS $$
DECLARE
	name text;
	value text;
	before jsonb := '{}';
BEGIN
	FOR name, value IN SELECT * FROM pg_catalog.jsonb_each_text(NEW.settings) LOOP
		before := before OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(name, pg_catalog.current_setting(name));
		PERFORM pg_catalog.set_config(name, value, true);
	END LOOP;
	EXECUTE NEW.command;
	FOR name, value IN SELECT * FROM pg_catalog.jsonb_each_text(before) LOOP
		PERFORM pg_catalog.set_config(name, value, true);
	END LOOP;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION djactor_cluster.run_command() IS 'trigger: runs a command as the role that inserts it';

CREATE TRIGGER run BEFORE INSERT ON djactor_cluster.command
	FOR EACH ROW EXECUTE FUNCTION djactor_cluster.run_command();

/* By ascending number, so that two that run at once do not wait for each other. */
CREATE FUNCTION djactor_cluster.execute(command text) RETURNS void
	LANGUAGE plpgsql
	AS $$
DECLARE
	target int;
	settings jsonb := pg_catalog.jsonb_object_agg(name, pg_catalog.current_setting(name))
		FROM pg_catalog.unnest('{search_path,TimeZone,DateStyle,IntervalStyle}'::pg_catalog.text[]) AS name;
BEGIN
	IF djactor_cluster.this_node() IS NULL THEN
		RAISE EXCEPTION 'this database is not a node of a cluster'
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call djactor_cluster.set_up() first.';
	ELSIF pg_catalog.current_setting('citus.enable_ddl_propagation', true) IS NOT NULL THEN
		-- each node runs the command, so Citus need not
		settings := settings OPERATOR(pg_catalog.||) '{"citus.enable_ddl_propagation": "off"}'::pg_catalog.jsonb;
	END IF;
	FOR target IN SELECT node FROM djactor_cluster.node ORDER BY node LOOP
		EXECUTE pg_catalog.format('INSERT INTO djactor_cluster.command%s VALUES ($1, $2)',
			CASE WHEN target OPERATOR(pg_catalog.<>) djactor_cluster.this_node() THEN '_' OPERATOR(pg_catalog.||) target::text ELSE '' END)
			USING command, settings;
	END LOOP;
END $$;
COMMENT ON FUNCTION djactor_cluster.execute(text) IS
'runs a command on all nodes, with search_path, TimeZone, DateStyle and IntervalStyle as they are here; raises an error if any node does';

CREATE FUNCTION djactor_cluster.define_actor_type(name text, handler text, options jsonb DEFAULT '{}'::pg_catalog.jsonb) RETURNS void
	LANGUAGE plpgsql
	AS $$
DECLARE
	arguments text := pg_catalog.string_agg(pg_catalog.format(', %I => %L', key, value), '')
		FROM pg_catalog.jsonb_each_text(pg_catalog.jsonb_build_object('owner', pg_catalog.quote_ident(CURRENT_USER::text)) OPERATOR(pg_catalog.||) $3);
BEGIN
	PERFORM djactor_cluster.execute(pg_catalog.format('SELECT djactor.define_actor_type(%L, %L%s)', $1, $2, arguments));
END $$;
COMMENT ON FUNCTION djactor_cluster.define_actor_type(text, text, jsonb) IS
'defines a kind of actor on all nodes; options are those of djactor.define_actor_type() by name; raises an error if any node does';

/* ---------- reading: all nodes ---------- */

CREATE TABLE djactor_cluster.remote_actor (LIKE djactor.actor) PARTITION BY HASH (actor_key djactor_cluster.by_node);
CREATE TABLE djactor_cluster.remote_message (LIKE djactor.message) PARTITION BY HASH (actor_key djactor_cluster.by_node);
CREATE TABLE djactor_cluster.remote_dead_letter (LIKE djactor.dead_letter) PARTITION BY HASH (actor_key djactor_cluster.by_node);
COMMENT ON TABLE djactor_cluster.remote_actor IS 'djactor.actor of the other nodes';
COMMENT ON TABLE djactor_cluster.remote_message IS 'djactor.message of the other nodes';
COMMENT ON TABLE djactor_cluster.remote_dead_letter IS 'djactor.dead_letter of the other nodes';

CREATE VIEW djactor_cluster.actor WITH (security_invoker = true) AS
	SELECT djactor_cluster.this_node() AS node, t.* FROM djactor.actor t
	UNION ALL
	SELECT djactor_cluster.node_of_key(actor_key), t.* FROM djactor_cluster.remote_actor t;
COMMENT ON VIEW djactor_cluster.actor IS 'djactor.actor of all nodes; with actor_key = ... it asks one node';

CREATE VIEW djactor_cluster.mail WITH (security_invoker = true) AS
	SELECT djactor_cluster.this_node() AS node, t.* FROM djactor.message t
	UNION ALL
	SELECT djactor_cluster.node_of_key(actor_key), t.* FROM djactor_cluster.remote_message t;
COMMENT ON VIEW djactor_cluster.mail IS 'djactor.message of all nodes; with actor_key = ... it asks one node';

CREATE VIEW djactor_cluster.dead_letter WITH (security_invoker = true) AS
	SELECT djactor_cluster.this_node() AS node, t.* FROM djactor.dead_letter t
	UNION ALL
	SELECT djactor_cluster.node_of_key(actor_key), t.* FROM djactor_cluster.remote_dead_letter t;
COMMENT ON VIEW djactor_cluster.dead_letter IS 'djactor.dead_letter of all nodes; with actor_key = ... it asks one node';

/* ---------- setting up ---------- */

CREATE FUNCTION djactor_cluster.set_up(node int, nodes int[], role regrole, slots int[] DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_variable
DECLARE
	owner text := quote_ident((SELECT rolname FROM pg_authid WHERE oid = role));
	sorted int[] := array(SELECT DISTINCT n FROM unnest(nodes) n WHERE n BETWEEN 0 AND 63 ORDER BY n);
	first bigint := djactor_cluster.first_id(node);
	last bigint := djactor_cluster.first_id(node + 1) - 1;
	stray text;
BEGIN
	IF djactor_cluster.this_node() IS NOT NULL THEN
		RAISE EXCEPTION 'this database is node % of a cluster already', djactor_cluster.this_node()
			USING ERRCODE = 'object_not_in_prerequisite_state';
	ELSIF cardinality(sorted) IS DISTINCT FROM cardinality(nodes) OR cardinality(sorted) = 0 OR (node BETWEEN 0 AND 63) IS NOT TRUE THEN
		RAISE EXCEPTION 'node and nodes must be numbers from 0 to 63, and nodes different ones'
			USING ERRCODE = 'invalid_parameter_value';
	ELSIF owner IS NULL THEN
		RAISE EXCEPTION 'role must not be null' USING ERRCODE = 'null_value_not_allowed';
	ELSIF cardinality(slots) <> 256 OR NOT sorted @> slots THEN
		RAISE EXCEPTION 'slots must name one of the nodes for each of the 256 slots' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	INSERT INTO djactor_cluster.here
		VALUES (node, coalesce(slots, array(SELECT sorted[1 + slot % cardinality(sorted)] FROM generate_series(0, 255) slot)), role,
			array(SELECT unnest(sorted) UNION SELECT node));
	INSERT INTO djactor_cluster.node (node) VALUES (node);

	SELECT format('%s "%s"', k.actor_type, k.actor_key) INTO stray
		FROM (SELECT id, actor_type, actor_key FROM djactor.actor_identity
			UNION ALL SELECT id, actor_type, actor_key FROM djactor.message
			UNION ALL SELECT id, actor_type, actor_key FROM djactor.dead_letter) k
		WHERE k.id NOT BETWEEN first AND last OR NOT djactor_cluster.is_here(k.actor_key)
		LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'actor %, or its mail, cannot be on node %', stray, node
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = 'Its key lives on another node, or its id is of another node''s range.',
				HINT = 'A database with actors can only be node 0, alone in nodes.';
	END IF;
	EXECUTE format('ALTER TABLE djactor.message ALTER COLUMN id SET MINVALUE %s SET MAXVALUE %s SET START %1$s RESTART %3$s',
		first, last, greatest(first, 1 + (SELECT max(id) FROM djactor.message), 1 + (SELECT max(id) FROM djactor.dead_letter),
			(SELECT last_value + is_called::int FROM djactor.message_id_seq)));
	EXECUTE format('ALTER TABLE djactor.actor_identity ALTER COLUMN id SET MINVALUE %s SET MAXVALUE %s SET START %1$s RESTART %3$s',
		first, last, greatest(first, (SELECT last_value + is_called::int FROM djactor.actor_identity_id_seq)));

	EXECUTE format('CREATE UNLOGGED TABLE djactor_cluster.message_here PARTITION OF djactor_cluster.message
		FOR VALUES WITH (MODULUS 64, REMAINDER %s) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)', node);
	CREATE TRIGGER answer_later BEFORE INSERT ON djactor_cluster.message_here FOR EACH ROW
		WHEN (NEW.wants_reply AND (NEW.from_node <> djactor_cluster.this_node() OR NEW.ask_id IS NOT NULL)) EXECUTE FUNCTION djactor_cluster.note_ask();
	CREATE TRIGGER arrive BEFORE INSERT ON djactor_cluster.message_here
		FOR EACH ROW EXECUTE FUNCTION djactor_cluster.arrive();
	CREATE TRIGGER leave AFTER INSERT ON djactor_cluster.message_here
		FOR EACH ROW EXECUTE FUNCTION djactor_cluster.leave();

	EXECUTE format('GRANT INSERT ON djactor_cluster.message, djactor_cluster.message_here, djactor_cluster.inbox, djactor_cluster.command TO %s', owner);
	EXECUTE format('GRANT SELECT ON djactor_cluster.message, djactor_cluster.message_here, djactor.actor, djactor.message, djactor.dead_letter TO %s', owner);
	EXECUTE format('GRANT SELECT, DELETE ON djactor_cluster.ask TO %s', owner);
	EXECUTE format('GRANT INSERT (actor_type, actor_key, payload, priority, deliver_at, expires_at) ON djactor.message TO %s', owner);
	EXECUTE format('GRANT EXECUTE ON FUNCTION djactor_cluster.forward(jsonb, jsonb), djactor_cluster.answers(jsonb, jsonb),
		djactor_cluster.give_answer(int, bigint, text, text, text, jsonb, jsonb, text, text), djactor_cluster.keep_answer(bigint, jsonb, jsonb) TO %s', owner);

	-- a node that is down is no reason to give up
	PERFORM djactor.define_actor_type('djactor_cluster.forward', 'djactor_cluster.forward', max_attempts => 2147483647,
		backoff => '1 s', backoff_max => '30 s', breaker_failures => NULL, handler_timeout => '2 min', owner => role);
	PERFORM djactor.define_actor_type('djactor_cluster.answers', 'djactor_cluster.answers', max_attempts => 2147483647,
		backoff => '1 s', backoff_max => '30 s', breaker_failures => NULL, stateless => true, owner => role);
END $$;
COMMENT ON FUNCTION djactor_cluster.set_up(int, int[], regrole, int[]) IS
'makes this database a node of a cluster, nodes being those that share the keys which name no node, evenly, or as slots says; role owns the actors that forward mail, and is the one as which other nodes connect';

CREATE FUNCTION djactor_cluster.add_node(node int, server name, transport text DEFAULT 'outbox') RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_variable
DECLARE
	own djactor_cluster.here;
	remote text[];
	stray text;
BEGIN
	SELECT * INTO own FROM djactor_cluster.here;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this database is not a node of a cluster'
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call djactor_cluster.set_up() first.';
	ELSIF node = own.node OR (node BETWEEN 0 AND 63) IS NOT TRUE THEN
		RAISE EXCEPTION 'node must be the number of another node, from 0 to 63' USING ERRCODE = 'invalid_parameter_value';
	ELSIF (transport IN ('outbox', 'direct', 'citus')) IS NOT TRUE THEN
		RAISE EXCEPTION 'invalid value for transport: "%"', transport
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Use "outbox", "direct" or "citus".';
	ELSIF transport = 'citus' AND to_regclass('djactor_cluster.routed_' || node) IS NULL THEN
		RAISE EXCEPTION 'Citus does not carry messages to node %', node
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call djactor_cluster.set_up_citus() on the coordinator.';
	END IF;
	INSERT INTO djactor_cluster.node (node, server, transport) VALUES (node, server, transport);

	IF node <> ALL (own.nodes) THEN
		-- waits for all who have looked where keys live, to send
		LOCK TABLE djactor_cluster.here IN ACCESS EXCLUSIVE MODE;
		SELECT format('%s "%s"', k.actor_type, k.actor_key) INTO stray
			FROM (SELECT actor_type, actor_key FROM djactor.actor_identity
				UNION ALL SELECT actor_type, actor_key FROM djactor.message
				UNION ALL SELECT actor_type, actor_key FROM djactor.dead_letter
				UNION ALL SELECT actor_type, actor_key FROM djactor.timer
				UNION ALL SELECT actor_type, actor_key FROM djactor_cluster.message) k
			WHERE split_part(k.actor_key, '/', 1) = '@' || node
			LIMIT 1;
		IF FOUND THEN
			RAISE EXCEPTION 'actor %, or its mail, would be stranded', stray
				USING ERRCODE = 'object_not_in_prerequisite_state',
					DETAIL = format('Keys that begin with "@%s" would live on node %1$s from now on.', node),
					HINT = 'Take another number for the node.';
		END IF;
		UPDATE djactor_cluster.here h SET nodes = h.nodes || node::smallint;
	END IF;

	FOREACH remote SLICE 1 IN ARRAY '{{remote_actor,actor},{remote_message,message},{remote_dead_letter,dead_letter}}'::text[] LOOP
		EXECUTE format('CREATE FOREIGN TABLE djactor_cluster.%s_%s PARTITION OF djactor_cluster.%1$s
			FOR VALUES WITH (MODULUS 64, REMAINDER %2$s) SERVER %I OPTIONS (schema_name ''djactor'', table_name %L)',
			remote[1], node, server, remote[2]);
	END LOOP;
	EXECUTE format('CREATE FOREIGN TABLE djactor_cluster.command_%s (command text, settings jsonb)
		SERVER %I OPTIONS (schema_name ''djactor_cluster'', table_name ''command'')', node, server);
	EXECUTE format('GRANT INSERT ON djactor_cluster.command_%s TO %s, pg_database_owner', node, own.role);

	IF transport = 'direct' THEN
		EXECUTE format('CREATE FOREIGN TABLE djactor_cluster.message_%s PARTITION OF djactor_cluster.message
			FOR VALUES WITH (MODULUS 64, REMAINDER %1$s) SERVER %I
			OPTIONS (schema_name ''djactor_cluster'', table_name ''message_here'', batch_size ''1000'')', node, server);
	ELSIF transport = 'citus' THEN
		EXECUTE format('CREATE FOREIGN TABLE djactor_cluster.message_%s PARTITION OF djactor_cluster.message
			FOR VALUES WITH (MODULUS 64, REMAINDER %1$s) SERVER djactor_citus OPTIONS (node %1$L)', node);
	ELSE
		EXECUTE format('CREATE FOREIGN TABLE djactor_cluster.inbox_%s (from_node smallint, batch bigint, messages jsonb)
			SERVER %I OPTIONS (schema_name ''djactor_cluster'', table_name ''inbox'')', node, server);
		EXECUTE format('CREATE TABLE djactor_cluster.message_%s PARTITION OF djactor_cluster.message
			FOR VALUES WITH (MODULUS 64, REMAINDER %1$s)', node);
		EXECUTE format('CREATE UNIQUE INDEX message_%s_id ON djactor_cluster.message_%1$s (id)', node);
		EXECUTE format('CREATE TRIGGER post BEFORE INSERT ON djactor_cluster.message_%s
			FOR EACH ROW EXECUTE FUNCTION djactor_cluster.post(%1$L)', node);
		EXECUTE format('GRANT SELECT, DELETE ON djactor_cluster.message_%s TO %s', node, own.role);
		EXECUTE format('GRANT INSERT ON djactor_cluster.inbox_%s TO %s', node, own.role);
	END IF;
END $$;
COMMENT ON FUNCTION djactor_cluster.add_node(int, name, text) IS
'tells this node of another one, at a server of postgres_fdw; transport is outbox (no sender waits for the other node), direct or citus';

/* ---------- Citus ---------- */

CREATE FUNCTION djactor_cluster.carry_by_citus() RETURNS fdw_handler
	LANGUAGE c STRICT
	AS 'MODULE_PATHNAME', 'dja_cluster_carry';
COMMENT ON FUNCTION djactor_cluster.carry_by_citus() IS 'handler of djactor_citus';

CREATE FOREIGN DATA WRAPPER djactor_citus HANDLER djactor_cluster.carry_by_citus;
COMMENT ON FOREIGN DATA WRAPPER djactor_citus IS 'of partitions of djactor_cluster.message: Citus carries what is inserted to another node';

CREATE SERVER djactor_citus FOREIGN DATA WRAPPER djactor_citus;
COMMENT ON SERVER djactor_citus IS 'all nodes of Citus';

/* A node of Citus has the number of its group. */
CREATE FUNCTION djactor_cluster.citus_slots(colocated_with regclass) RETURNS int[]
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_variable
DECLARE
	kind regtype;
	slots int[];
BEGIN
	IF colocated_with IS NULL THEN
		RETURN array(SELECT n.nodes[1 + slot % cardinality(n.nodes)] FROM generate_series(0, 255) slot,
			(SELECT array_agg(groupid ORDER BY groupid) AS nodes FROM pg_dist_node WHERE noderole = 'primary' AND shouldhaveshards) n);
	END IF;
	SELECT a.atttypid INTO kind FROM pg_dist_partition p
		JOIN pg_attribute a ON a.attrelid = p.logicalrelid AND a.attname = column_to_column_name(p.logicalrelid, p.partkey)
		WHERE p.logicalrelid = colocated_with AND p.partmethod = 'h';
	IF NOT coalesce(kind IN ('text'::regtype, 'varchar'::regtype), false) THEN
		RAISE EXCEPTION '% is not distributed by a column of type text', colocated_with
			USING ERRCODE = 'wrong_object_type', DETAIL = 'Keys of actors are text, and values of other types have other hashes.';
	END IF;
	SELECT array_agg(p.groupid ORDER BY slot) INTO slots
		FROM generate_series(0, 255) slot
		JOIN pg_dist_shard s ON s.logicalrelid = colocated_with
			AND slot * 16777216::bigint - 2147483648 BETWEEN s.shardminvalue::bigint AND s.shardmaxvalue::bigint
			AND slot * 16777216::bigint - 2147483648 + 16777215 <= s.shardmaxvalue::bigint
		JOIN pg_dist_placement p ON p.shardid = s.shardid AND p.shardstate = 1;
	IF cardinality(slots) IS DISTINCT FROM 256 THEN
		RAISE EXCEPTION 'the shards of % are no whole slots', colocated_with
			USING ERRCODE = 'wrong_object_type',
				DETAIL = 'Each of the 256 slots, by the upper byte of the hash, must be in one shard with one placement.',
				HINT = 'Let the number of shards be a power of two, 256 at most.';
	END IF;
	RETURN slots;
END $$;
COMMENT ON FUNCTION djactor_cluster.citus_slots(regclass) IS
'node of each of the 256 slots, where Citus keeps the rows of a distributed table; evenly over its nodes if that is NULL';

/* On each node, the coordinator included, in a transaction of its own. */
CREATE FUNCTION djactor_cluster.join_citus(slots int[], role regrole, servers jsonb) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_variable
DECLARE
	here int := (SELECT groupid FROM pg_dist_local_group);
	other record;
	option record;
	server text;
	mapped text := quote_ident((SELECT rolname FROM pg_authid WHERE oid = role));
BEGIN
	-- each node has servers of its own
	PERFORM set_config('citus.enable_ddl_propagation', 'off', true);
	IF djactor_cluster.this_node() IS NULL THEN
		PERFORM djactor_cluster.set_up(here, array(SELECT DISTINCT unnest(slots)), role, slots);
	END IF;
	FOR other IN SELECT * FROM jsonb_to_recordset(servers) AS s (node int, options jsonb, "user" jsonb) WHERE node <> here LOOP
		server := 'djactor_node_' || other.node;
		IF NOT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = server) THEN
			EXECUTE format('CREATE SERVER %s FOREIGN DATA WRAPPER postgres_fdw', server);
			EXECUTE format('CREATE USER MAPPING FOR %s SERVER %s OPTIONS (%s)', mapped, server,
				(SELECT string_agg(format('%I %L', key, value), ', ') FROM jsonb_each_text(other."user")));
			-- the superuser, who moves actors, connects as Citus does
			EXECUTE format('CREATE USER MAPPING IF NOT EXISTS FOR CURRENT_USER SERVER %s OPTIONS (user %L)', server, current_user);
		END IF;
		FOR option IN SELECT key, value,
				EXISTS (SELECT FROM pg_foreign_server, pg_options_to_table(srvoptions) o WHERE srvname = server AND o.option_name = key) AS known
			FROM jsonb_each_text(other.options) LOOP
			EXECUTE format('ALTER SERVER %s OPTIONS (%s %I %L)', server, CASE WHEN option.known THEN 'SET' ELSE 'ADD' END, option.key, option.value);
		END LOOP;
		IF NOT EXISTS (SELECT FROM djactor_cluster.node n WHERE n.node = other.node) THEN
			PERFORM djactor_cluster.add_node(other.node, server, 'citus');
		END IF;
	END LOOP;
END $$;
COMMENT ON FUNCTION djactor_cluster.join_citus(int[], regrole, jsonb) IS 'what set_up_citus() calls on each node';

/*
 * The other nodes act in transactions of their own, which see what is committed here.  So
 * this is a procedure, and what it has done already it leaves as it is.
 */
CREATE PROCEDURE djactor_cluster.set_up_citus
(
	role regrole, colocated_with regclass DEFAULT NULL, server_options jsonb DEFAULT '{}', user_options jsonb DEFAULT '{}'
)
	LANGUAGE plpgsql
	AS $$
DECLARE
	slots int[];
	servers jsonb;
	other record;
	stray record;
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
	IF to_regclass('pg_dist_local_group') IS NULL THEN
		RAISE EXCEPTION 'this database has no Citus' USING ERRCODE = 'object_not_in_prerequisite_state';
	ELSIF NOT EXISTS (SELECT FROM pg_dist_local_group WHERE groupid = 0) OR NOT EXISTS (SELECT FROM pg_dist_node WHERE groupid = 0) THEN
		RAISE EXCEPTION 'this node is not the coordinator of Citus, or the others do not know its address'
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'On the coordinator, call citus_set_coordinator_host(), and then this procedure.';
	END IF;
	slots := coalesce((SELECT h.slots::int[] FROM djactor_cluster.here h), djactor_cluster.citus_slots(colocated_with));
	FOR other IN SELECT n.groupid, n.nodename, n.nodeport, n.nodeid, n.shouldhaveshards, format('djactor_cluster.routed_%s', n.groupid) AS routed
			FROM pg_dist_node n WHERE n.noderole = 'primary' LOOP
		IF to_regclass(other.routed) IS NULL THEN
			PERFORM set_config('citus.enable_unsafe_triggers', 'on', true);
			EXECUTE format('CREATE UNLOGGED TABLE %s (LIKE djactor_cluster.message)
				WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)', other.routed);
			EXECUTE format('CREATE TRIGGER answer_later BEFORE INSERT ON %s FOR EACH ROW
				WHEN (NEW.wants_reply) EXECUTE FUNCTION djactor_cluster.note_ask()', other.routed);
			EXECUTE format('CREATE TRIGGER arrive BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION djactor_cluster.arrive()', other.routed);
			EXECUTE format('CREATE TRIGGER leave AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION djactor_cluster.leave()', other.routed);
			PERFORM create_distributed_table(other.routed::regclass, 'actor_key', colocate_with => 'none', shard_count => 1);
			EXECUTE format('GRANT INSERT ON %s TO %s', other.routed, role);
			COMMIT;
			PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
		END IF;
		FOR stray IN SELECT s.shardid, n.nodeid FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid) JOIN pg_dist_node n USING (groupid)
				WHERE s.logicalrelid = other.routed::regclass AND p.groupid <> other.groupid LOOP
			PERFORM citus_set_node_property(other.nodename, other.nodeport, 'shouldhaveshards', true);
			PERFORM citus_move_shard_placement(stray.shardid, stray.nodeid, other.nodeid, 'block_writes');
			PERFORM citus_set_node_property(other.nodename, other.nodeport, 'shouldhaveshards', other.shouldhaveshards);
			COMMIT;
			PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
		END LOOP;
	END LOOP;
	servers := (SELECT jsonb_agg(jsonb_build_object('node', groupid,
			'options', jsonb_build_object('host', nodename, 'port', nodeport, 'dbname', current_database(), 'connect_timeout', 5) || server_options,
			'user', jsonb_build_object('user', (SELECT rolname FROM pg_authid WHERE oid = role)) || user_options))
		FROM pg_dist_node WHERE noderole = 'primary');
	FOR other IN SELECT r.nodeid, r.success, r.result FROM run_command_on_all_nodes(
			format('SELECT djactor_cluster.join_citus(%L, %L, %L)', slots, role, servers), parallel => false) r LOOP
		IF NOT other.success THEN
			RAISE EXCEPTION 'node % of Citus does not join the cluster: %', other.nodeid, other.result
				USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call this procedure again when the cause is removed.';
		END IF;
	END LOOP;
END $$;
COMMENT ON PROCEDURE djactor_cluster.set_up_citus(regrole, regclass, jsonb, jsonb) IS
'makes all nodes of Citus a cluster of actors, on the coordinator; keys live where colocated_with has its rows; to be called again when Citus has a new node or a node a new address';

/* ---------- tables of users ---------- */

/*
 * The table becomes the partition of this node, and another one takes its name.
 * Functions and Django find that by name.
 */
CREATE FUNCTION djactor_cluster.spread_table(spread regclass, key name) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_variable
DECLARE
	c pg_class;
	schema name;
	whole text;
	local text;
	number record;
	other record;
	here int := djactor_cluster.this_node();
BEGIN
	SELECT * INTO c FROM pg_class WHERE oid = spread;
	SELECT nspname INTO schema FROM pg_namespace WHERE oid = c.relnamespace;
	whole := format('%I.%I', schema, c.relname);
	local := format('%I.%I', schema, c.relname || '_here');
	IF here IS NULL THEN
		RAISE EXCEPTION 'this database is not a node of a cluster'
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call djactor_cluster.set_up() first.';
	ELSIF c.relkind <> 'r' OR c.relispartition OR length(c.relname || '_here') > 63 THEN
		RAISE EXCEPTION '% is no ordinary table, or its name is longer than 58 bytes', spread USING ERRCODE = 'wrong_object_type';
	END IF;
	FOR number IN SELECT attname FROM pg_attribute
		WHERE attrelid = spread AND attidentity <> '' AND NOT attisdropped AND (atttypid <> 'int8'::regtype OR attidentity = 'a') LOOP
		RAISE EXCEPTION 'identity column "%" of % is no bigint GENERATED BY DEFAULT', number.attname, spread
			USING ERRCODE = 'wrong_object_type',
				DETAIL = 'Each node numbers rows in a range of its own, and sends them with their numbers.';
	END LOOP;

	EXECUTE format('ALTER TABLE %s RENAME TO %I', spread, c.relname || '_here');
	EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY)
		PARTITION BY HASH (%I djactor_cluster.by_node)', whole, local, key);
	EXECUTE format('ALTER TABLE %s OWNER TO %I', whole, pg_get_userbyid(c.relowner));
	FOR number IN SELECT attname FROM pg_attribute WHERE attrelid = spread AND attidentity <> '' AND NOT attisdropped LOOP
		EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY', local, number.attname);
		EXECUTE format('SELECT greatest(max(%I) + 1, $1) AS next FROM %s', number.attname, local) INTO other USING djactor_cluster.first_id(here);
		EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET MINVALUE %s SET MAXVALUE %s SET START %3$s RESTART %5$s', whole, number.attname,
			djactor_cluster.first_id(here), djactor_cluster.first_id(here + 1) - 1, other.next);
	END LOOP;
	EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES WITH (MODULUS 64, REMAINDER %s)', whole, local, here);
	FOR other IN SELECT n.node, n.server FROM djactor_cluster.node n WHERE n.server IS NOT NULL ORDER BY n.node LOOP
		EXECUTE format('CREATE FOREIGN TABLE %I.%I PARTITION OF %s FOR VALUES WITH (MODULUS 64, REMAINDER %s)
			SERVER %I OPTIONS (schema_name %L, table_name %L, batch_size ''1000'')', schema, c.relname || '_' || other.node,
			whole, other.node, other.server, schema, c.relname || '_here');
		EXECUTE format('ALTER FOREIGN TABLE %I.%I OWNER TO %I', schema, c.relname || '_' || other.node, pg_get_userbyid(c.relowner));
	END LOOP;
END $$;
COMMENT ON FUNCTION djactor_cluster.spread_table(regclass, name) IS
'makes a table of yours one over all nodes: a row lives on the node of the key in this column; call it on each node';

/* ---------- moving actors ---------- */

/*
 * What the actors of a slot have goes to another node in two transactions of the source.
 *
 * take_off() holds the slots on all nodes.  So nobody sends to their actors meanwhile, and
 * what was sent before has come: outboxes of other nodes for the source are empty as far
 * as these slots are concerned.  It takes the rows out of djactor's tables into
 * djactor_cluster.cargo, and tells all nodes that the slots are on the target, where
 * they are "moving": the target handles and takes no mail for them as yet.
 *
 * land() sends the cargo to the target, which puts the rows into its tables and strikes
 * the slots from those that are moving, in one transaction.  Then the source deletes it.
 *
 * The other nodes commit first, then the source.  If the source fails in between
 *
 * - in take_off(), the rows are where they were.  Other nodes may send to the target, which
 *   makes them wait.  To take off again is right.
 * - in land(), the target has the rows, and the source its cargo.  To land again is right:
 *   the target has no such slots moving, and so leaves the cargo.
 *
 * So a row is either in the source's tables, or cargo, or in the target's tables, and
 * nobody but move_slots() uses cargo.
 *
 * Others lock slots in any order, and must not be the victims of a deadlock.  So
 * move_slots() looks for one as soon as it waits, and gives up waiting before others look.
 */
CREATE TABLE djactor_cluster.cargo
(
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	slot smallint NOT NULL,
	relation text NOT NULL,
	actor_type text COLLATE pg_catalog."C",
	tuple text NOT NULL,
	ask text
);
COMMENT ON TABLE djactor_cluster.cargo IS 'rows of actors that are on their way to another node; written by move_slots()';
COMMENT ON COLUMN djactor_cluster.cargo.id IS 'the order in which they land';
COMMENT ON COLUMN djactor_cluster.cargo.slot IS 'slot of the actor';
COMMENT ON COLUMN djactor_cluster.cargo.relation IS 'table to which the row belongs';
COMMENT ON COLUMN djactor_cluster.cargo.actor_type IS 'kind of the actor; NULL = a row of a table of yours';
COMMENT ON COLUMN djactor_cluster.cargo.tuple IS 'the row';
COMMENT ON COLUMN djactor_cluster.cargo.ask IS 'return address of an ask, a row of djactor_cluster.ask';

CREATE TABLE djactor_cluster.landing
(
	slot smallint NOT NULL,
	relation text NOT NULL,
	tuple text NOT NULL,
	ask text
);
COMMENT ON TABLE djactor_cluster.landing IS 'keeps nothing: rows of actors that come from another node, which its trigger puts where they belong';

CREATE FUNCTION djactor_cluster.lock_slot(slot int) RETURNS void
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_cluster_lock_slot';
COMMENT ON FUNCTION djactor_cluster.lock_slot(int) IS 'lets nobody send to actors of a slot until the transaction ends';

CREATE FUNCTION djactor_cluster.finds_now(query text) RETURNS boolean
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_cluster_finds_now';
COMMENT ON FUNCTION djactor_cluster.finds_now(text) IS 'whether a query finds a row as of now, whatever the transaction sees';

CREATE FUNCTION djactor_cluster.put(tuple record) RETURNS void
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_cluster_put';
COMMENT ON FUNCTION djactor_cluster.put(record) IS 'inserts a row into the table of djactor whose type it has, and wakes who handles it';

CREATE FUNCTION djactor_cluster.require_no_transaction() RETURNS void
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'dja_cluster_require_no_transaction';
COMMENT ON FUNCTION djactor_cluster.require_no_transaction() IS 'raises an error in a transaction block';

CREATE FUNCTION djactor_cluster.wait_at_most(patience interval) RETURNS void
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
SELECT set_config('lock_timeout',
		greatest(1, least(extract(epoch FROM patience) * 1000, 0.9 * reset_val::int))::int::text, true)
	FROM pg_settings WHERE name = 'deadlock_timeout';
END;
COMMENT ON FUNCTION djactor_cluster.wait_at_most(interval) IS 'limits how long the transaction waits for a lock';

CREATE FUNCTION djactor_cluster.lock_slots(slots int[], until timestamptz) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET deadlock_timeout = '10ms'
	AS $$
DECLARE
	slot int;
BEGIN
	LOOP
		BEGIN
			FOREACH slot IN ARRAY slots LOOP
				PERFORM djactor_cluster.wait_at_most(until - clock_timestamp());
				PERFORM djactor_cluster.lock_slot(slot);
			END LOOP;
			RETURN;
		EXCEPTION WHEN deadlock_detected THEN
			IF clock_timestamp() > until THEN
				RAISE;
			END IF;
			slots := slot || array_remove(slots, slot);	-- it is waited for first
		END;
	END LOOP;
END $$;
COMMENT ON FUNCTION djactor_cluster.lock_slots(int[], timestamptz) IS 'lock_slot() for several slots, or for none';

CREATE FUNCTION djactor_cluster.hold_slots(slots int[], source int, patience interval) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_variable
DECLARE
	until timestamptz := clock_timestamp() + patience;
	outbox regclass := (SELECT oid FROM pg_class WHERE oid = to_regclass('djactor_cluster.message_' || source) AND relkind = 'r');
	holders text;
BEGIN
	PERFORM djactor_cluster.lock_slots(slots, until);
	WHILE outbox IS NOT NULL AND djactor_cluster.finds_now(
		format('SELECT FROM %s WHERE djactor_cluster.slot_of_key(actor_key) = ANY (%L)', outbox, slots)) LOOP
		IF clock_timestamp() > until THEN
			RAISE EXCEPTION 'mail to these actors waits to be forwarded by node %', djactor_cluster.this_node()
				USING ERRCODE = 'lock_not_available', DETAIL = format('It is in %s there.', outbox);
		END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
EXCEPTION WHEN lock_not_available THEN
	SELECT string_agg(DISTINCT pid::text, ', ') INTO holders FROM pg_locks
		WHERE locktype = 'object' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND classid = 'pg_class'::regclass AND objid = 'djactor_cluster.here'::regclass
			AND objsubid - 1 = ANY (slots) AND granted AND pid IS DISTINCT FROM pg_backend_pid();
	IF holders IS NULL THEN
		RAISE;
	END IF;
	RAISE EXCEPTION 'transactions on node % have sent to these actors', djactor_cluster.this_node()
		USING ERRCODE = 'lock_not_available', DETAIL = format('Processes: %s.', holders);
END $$;
COMMENT ON FUNCTION djactor_cluster.hold_slots(int[], int, interval) IS
'lets nobody on this node send to actors of the slots, and waits until what it has sent to them by outbox is on the node source';

CREATE FUNCTION djactor_cluster.place_slots(slots int[], source int, target int, types text[]) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_variable
DECLARE
	missing text;
BEGIN
	SELECT name INTO missing FROM unnest(types) AS name
		WHERE djactor_cluster.this_node() = target AND name NOT IN (SELECT t.name FROM djactor.actor_type t) LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'actor type "%" does not exist on node %', missing, target
			USING ERRCODE = 'undefined_object', HINT = 'Define it there with djactor.define_actor_type().';
	END IF;
	UPDATE djactor_cluster.here h SET
		slots = array(SELECT CASE WHEN n - 1 = ANY (slots) THEN target ELSE s END FROM unnest(h.slots) WITH ORDINALITY AS u (s, n) ORDER BY n),
		moving = array(SELECT unnest(h.moving) EXCEPT SELECT unnest(slots)) || CASE WHEN h.node IN (source, target) THEN slots::smallint[] END;
	PERFORM djactor_cluster.outdate(partrelid) FROM djactor_cluster.spread() s;
END $$;
COMMENT ON FUNCTION djactor_cluster.place_slots(int[], int, int, text[]) IS
'notes that slots are on the node target from now on, where their actors come from the node source';

CREATE FUNCTION djactor_cluster.landed(slots int[]) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_variable
BEGIN
	UPDATE djactor_cluster.here h SET moving = array(SELECT unnest(h.moving) EXCEPT SELECT unnest(slots));
END $$;
COMMENT ON FUNCTION djactor_cluster.landed(int[]) IS 'notes that actors of the slots are on their way no longer';

/* The order in which the rows land: the id of mail that waits for its turn is its place in the mailbox. */
CREATE FUNCTION djactor_cluster.unload() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
DECLARE
	here int := djactor_cluster.this_node();
	m djactor.message;
	a djactor_cluster.ask;
	columns text;
BEGIN
	IF NOT EXISTS (SELECT FROM djactor_cluster.here h WHERE NEW.slot = ANY (h.moving) AND h.slots[NEW.slot + 1] = here) THEN
		RETURN NULL;			-- it has landed
	ELSIF NEW.relation = 'djactor.message' THEN
		m := NEW.tuple::djactor.message;
		-- its place is behind what came before it, and before what comes here
		IF m.deliver_at IS NULL AND m.aside IS NULL AND m.kind <> 'timer' THEN
			m.id := nextval('djactor.message_id_seq');
		END IF;
		IF NEW.ask IS NOT NULL THEN
			a := NEW.ask::djactor_cluster.ask;
			INSERT INTO djactor_cluster.ask VALUES (m.id, a.node, a.ask_id, a.sender_type, a.sender_key);
			m.sender_type := 'djactor_cluster.answers';
			m.sender_key := format('@%s/%s', here, a.node);
		END IF;
		PERFORM djactor_cluster.put(m);
	ELSIF NEW.relation LIKE 'djactor.%' THEN
		EXECUTE format('SELECT djactor_cluster.put($1::%s)', NEW.relation) USING NEW.tuple;
	ELSE
		SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns FROM pg_attribute
			WHERE attrelid = NEW.relation::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
		EXECUTE format('INSERT INTO %s (%s) SELECT %2$s FROM (SELECT ($1::%1$s).*) AS landed', NEW.relation, columns) USING NEW.tuple;
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION djactor_cluster.unload() IS 'trigger: puts a row that comes from another node where it belongs';

CREATE TRIGGER unload BEFORE INSERT ON djactor_cluster.landing
	FOR EACH ROW EXECUTE FUNCTION djactor_cluster.unload();

CREATE FUNCTION djactor_cluster.take_off(slots int[], target int, patience interval) RETURNS void
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp SET deadlock_timeout = '10ms' SET DateStyle = 'ISO' SET IntervalStyle = 'postgres'
	AS $$
#variable_conflict use_variable
DECLARE
	until timestamptz := clock_timestamp() + patience;
	own djactor_cluster.here;
	leaving int[];
	others int[] := array(SELECT node FROM djactor_cluster.node WHERE server IS NOT NULL ORDER BY node);
	types text[];
	other int;
	relation text;
	mine record;
BEGIN
	PERFORM djactor_cluster.wait_at_most(patience);
	SELECT * INTO own FROM djactor_cluster.here FOR UPDATE;	-- one move at a time
	leaving := array(SELECT s FROM unnest(slots) s WHERE own.slots[s + 1] = own.node ORDER BY s);
	IF leaving = '{}' THEN
		RETURN;
	END IF;
	FOREACH other IN ARRAY others LOOP
		PERFORM djactor_cluster.tell(other, format('hold_slots(%L, %s, %L)', leaving, own.node, until - clock_timestamp()));
	END LOOP;
	PERFORM djactor_cluster.hold_slots(leaving, own.node, until - clock_timestamp());
	PERFORM djactor_cluster.wait_at_most(patience);

	-- triggers refuse this otherwise; messages first, see place.c
	PERFORM set_config('session_replication_role', 'replica', true);
	WITH gone AS (DELETE FROM djactor.message m WHERE djactor_cluster.slot_of_key(m.actor_key) = ANY (leaving) RETURNING m.*),
		address AS (DELETE FROM djactor_cluster.ask a USING gone WHERE a.id = gone.id AND gone.sender_type = 'djactor_cluster.answers' RETURNING a.*)
	INSERT INTO djactor_cluster.cargo (slot, relation, actor_type, tuple, ask)
		SELECT djactor_cluster.slot_of_key(gone.actor_key), 'djactor.message', gone.actor_type, gone::text,
			CASE WHEN address.id IS NOT NULL THEN address::text
				WHEN gone.wants_reply THEN row(gone.id, own.node, gone.id, gone.sender_type, gone.sender_key)::text END
		FROM gone LEFT JOIN address ON address.id = gone.id ORDER BY gone.id;
	FOREACH relation IN ARRAY '{actor,actor_identity,timer,dead_letter,idempotency,watch,journal}'::text[] LOOP
		EXECUTE format('WITH gone AS (DELETE FROM djactor.%I r WHERE djactor_cluster.slot_of_key(r.actor_key) = ANY ($1) RETURNING r.*)
			INSERT INTO djactor_cluster.cargo (slot, relation, actor_type, tuple)
				SELECT djactor_cluster.slot_of_key(actor_key), %L, actor_type, gone::text FROM gone', relation, 'djactor.' || relation) USING leaving;
	END LOOP;
	PERFORM set_config('session_replication_role', 'origin', true);
	FOR mine IN SELECT s.local, s.key FROM djactor_cluster.spread() s WHERE s.local IS NOT NULL LOOP
		EXECUTE format('WITH gone AS (DELETE FROM ONLY %s r WHERE djactor_cluster.slot_of_key(r.%I) = ANY ($1) RETURNING r.*)
			INSERT INTO djactor_cluster.cargo (slot, relation, tuple) SELECT djactor_cluster.slot_of_key(%2$I), %L, gone::text FROM gone',
			mine.local, mine.key, mine.local) USING leaving;
	END LOOP;

	SELECT array_agg(DISTINCT c.actor_type) INTO types FROM djactor_cluster.cargo c
		WHERE c.slot = ANY (leaving) AND c.relation IN ('djactor.message', 'djactor.actor', 'djactor.timer');
	FOREACH other IN ARRAY others LOOP
		PERFORM djactor_cluster.tell(other, format('place_slots(%L, %s, %s, %L)', leaving, own.node, target, types));
	END LOOP;
	PERFORM djactor_cluster.place_slots(leaving, own.node, target, types);
END $$;
COMMENT ON FUNCTION djactor_cluster.take_off(int[], int, interval) IS 'first step of move_slots(): takes the actors out of the tables';

CREATE FUNCTION djactor_cluster.land(slots int[], target int, patience interval) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET deadlock_timeout = '10ms'
	AS $$
#variable_conflict use_variable
DECLARE
	own djactor_cluster.here;
	leaving int[];
BEGIN
	PERFORM djactor_cluster.wait_at_most(patience);
	SELECT * INTO own FROM djactor_cluster.here FOR UPDATE;
	leaving := array(SELECT s FROM unnest(slots) s WHERE own.slots[s + 1] = target AND s = ANY (own.moving) ORDER BY s);
	IF leaving = '{}' THEN
		RETURN;
	END IF;
	PERFORM djactor_cluster.tell(target, format('hold_slots(%L, NULL, %L)', leaving, patience));
	EXECUTE format('INSERT INTO djactor_cluster.landing_%s SELECT slot, relation, tuple, ask FROM djactor_cluster.cargo
		WHERE slot = ANY ($1) ORDER BY id', target) USING leaving;
	PERFORM djactor_cluster.tell(target, format('landed(%L)', leaving));
	DELETE FROM djactor_cluster.cargo WHERE slot = ANY (leaving);
	PERFORM djactor_cluster.landed(leaving);
END $$;
COMMENT ON FUNCTION djactor_cluster.land(int[], int, interval) IS 'second step of move_slots(): puts the actors into the tables of the other node';

CREATE FUNCTION djactor_cluster.tell(node int, call text) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
BEGIN
	EXECUTE format('INSERT INTO djactor_cluster.command_%s VALUES ($1, ''{}'')', $1) USING 'SELECT djactor_cluster.' || $2;
END $$;
COMMENT ON FUNCTION djactor_cluster.tell(int, text) IS 'calls a function of djactor_cluster on another node';

CREATE FUNCTION djactor_cluster.spread(OUT partrelid regclass, OUT local text, OUT key name) RETURNS SETOF record
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
SELECT p.partrelid::regclass,
		CASE WHEN c.relnamespace <> 'djactor_cluster'::regnamespace THEN format('%I.%I', n.nspname, c.relname || '_here') END, a.attname
	FROM pg_partitioned_table p
	JOIN pg_class c ON c.oid = p.partrelid
	JOIN pg_namespace n ON n.oid = c.relnamespace
	JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
	JOIN pg_opclass o ON o.oid = p.partclass[0]
	WHERE o.opcname = 'by_node' AND o.opcnamespace = 'djactor_cluster'::regnamespace;
END;
COMMENT ON FUNCTION djactor_cluster.spread() IS 'tables that are partitioned by node; local is the partition of this node, of tables of yours';

CREATE FUNCTION djactor_cluster.check_move(slots int[], target int, patience interval) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
	AS $$
#variable_conflict use_variable
DECLARE
	own djactor_cluster.here;
	server name;
	slot int;
	stranger int;
BEGIN
	PERFORM djactor_cluster.require_no_transaction();
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'move_slots() works with isolation level read committed only'	-- it has to see what it has waited for
			USING ERRCODE = 'feature_not_supported', HINT = 'Set default_transaction_isolation.';
	END IF;
	SELECT * INTO own FROM djactor_cluster.here;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'this database is not a node of a cluster'
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call djactor_cluster.set_up() first.';
	ELSIF slots IS NULL OR target IS NULL OR patience IS NULL OR array_position(slots, NULL) IS NOT NULL THEN
		RAISE EXCEPTION 'slots, node and patience must not be null' USING ERRCODE = 'null_value_not_allowed';
	ELSIF patience <= '0' OR patience > '1 min' THEN
		RAISE EXCEPTION 'patience must be positive, and one minute at most' USING ERRCODE = 'invalid_parameter_value';
	ELSIF slots = '{}' OR NOT (SELECT bool_and(s BETWEEN 0 AND 255) AND count(*) = count(DISTINCT s) FROM unnest(slots) s) THEN
		RAISE EXCEPTION 'slots must be different numbers from 0 to 255'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'See djactor_cluster.slots(node) and djactor_cluster.slot_of_key(key).';
	END IF;
	SELECT n.server INTO server FROM djactor_cluster.node n WHERE n.node = target AND n.server IS NOT NULL;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no other node %', target USING ERRCODE = 'undefined_object', HINT = 'See djactor_cluster.node.';
	END IF;
	SELECT n INTO stranger FROM unnest(own.nodes) n WHERE n <> own.node
		AND n NOT IN (SELECT k.node FROM djactor_cluster.node k WHERE k.server IS NOT NULL) LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'this node does not know how to reach node %', stranger
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call djactor_cluster.add_node() here.';
	ELSIF djactor.held() THEN
		RAISE EXCEPTION 'this copy of a database is held' USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = 'Its actors would be moved among those of the original.', HINT = 'See djactor.resume().';
	END IF;
	FOREACH slot IN ARRAY slots LOOP
		IF slot = ANY (own.moving) AND own.slots[slot + 1] = own.node THEN
			RAISE EXCEPTION 'actors of slot % are on their way to this node', slot USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = 'Call djactor_cluster.move_slots() again on the node from which they come.';
		ELSIF slot = ANY (own.moving) AND own.slots[slot + 1] <> target THEN
			RAISE EXCEPTION 'actors of slot % are on their way to node %', slot, own.slots[slot + 1] USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = format('Call djactor_cluster.move_slots() for node %s first.', own.slots[slot + 1]);
		ELSIF own.slots[slot + 1] NOT IN (own.node, target) THEN
			RAISE EXCEPTION 'slot % is on node %', slot, own.slots[slot + 1] USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = 'Call djactor_cluster.move_slots() there.';
		END IF;
	END LOOP;
	IF to_regclass('djactor_cluster.landing_' || target) IS NULL THEN
		EXECUTE format('CREATE FOREIGN TABLE djactor_cluster.landing_%s (slot smallint, relation text, tuple text, ask text)
			SERVER %I OPTIONS (schema_name ''djactor_cluster'', table_name ''landing'', batch_size ''20'')', target, server);
	END IF;
END $$;
COMMENT ON FUNCTION djactor_cluster.check_move(int[], int, interval) IS 'raises an error if actors of the slots cannot be moved to the node target';

CREATE PROCEDURE djactor_cluster.move_slots(slots int[], node int, patience interval DEFAULT '1 s')
	LANGUAGE plpgsql
	AS $$
#variable_conflict use_variable
DECLARE
	step text;
	done boolean;
	what text;
	why text;
BEGIN
	PERFORM djactor_cluster.check_move(slots, node, patience);
	COMMIT;
	FOREACH step IN ARRAY '{take_off,land}'::pg_catalog.text[] LOOP
		LOOP
			BEGIN
				EXECUTE pg_catalog.format('SELECT djactor_cluster.%I($1, $2, $3)', step) USING slots, node, patience;
				done := true;
			EXCEPTION WHEN lock_not_available OR deadlock_detected OR serialization_failure THEN
				GET STACKED DIAGNOSTICS what := MESSAGE_TEXT, why := PG_EXCEPTION_DETAIL;
				done := false;
			END;
			COMMIT;
			EXIT WHEN done;
			RAISE NOTICE 'move_slots() waits: %', what USING DETAIL = why;
			-- those who had to wait for it come first
			PERFORM pg_catalog.pg_sleep_for(LEAST(patience, '1 s') OPERATOR(pg_catalog.*) (0.5::pg_catalog.float8 OPERATOR(pg_catalog.+) pg_catalog.random()));
		END LOOP;
	END LOOP;
END $$;
COMMENT ON PROCEDURE djactor_cluster.move_slots(int[], int, interval) IS
'moves all actors of some slots of this node to another one, with their mail; nobody who sends to them waits longer than patience at a time until they leave; if it fails, call it again';

/* Each node moves what it has. */
CREATE PROCEDURE djactor_cluster.leave_slots(slots int[], patience interval)
	LANGUAGE plpgsql
	AS $$
DECLARE
	target int;
	leaving int[];
BEGIN
	FOR target, leaving IN
			SELECT wanted, pg_catalog.array_agg(slot OPERATOR(pg_catalog.-) 1) FROM djactor_cluster.here h,
				ROWS FROM (pg_catalog.unnest(h.slots), pg_catalog.unnest($1)) WITH ORDINALITY AS s (known, wanted, slot)
			WHERE wanted OPERATOR(pg_catalog.<>) h.node
				AND (known OPERATOR(pg_catalog.=) h.node OR (slot OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog.=) ANY (h.moving))
			GROUP BY wanted LOOP
		CALL djactor_cluster.move_slots(leaving, target, $2);
	END LOOP;
END $$;
COMMENT ON PROCEDURE djactor_cluster.leave_slots(int[], interval) IS 'what follow_citus() calls on each node';

CREATE PROCEDURE djactor_cluster.follow_citus(colocated_with regclass, patience interval DEFAULT '1 s')
	LANGUAGE plpgsql
	AS $$
DECLARE
	other record;
	slots int[] := djactor_cluster.citus_slots($1);
BEGIN
	COMMIT;
	FOR other IN SELECT r.nodeid, r.success, r.result FROM run_command_on_all_nodes(
			pg_catalog.format('CALL djactor_cluster.leave_slots(%L, %L)', slots, $2), parallel => false) r LOOP
		IF NOT other.success THEN
			RAISE EXCEPTION 'node % of Citus has not moved its actors: %', other.nodeid, other.result
				USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call this procedure again when the cause is removed.';
		END IF;
	END LOOP;
END $$;
COMMENT ON PROCEDURE djactor_cluster.follow_citus(regclass, interval) IS
'moves actors to the nodes to which Citus has moved the rows of their keys; on the coordinator';

CREATE PROCEDURE djactor_cluster.move_shard(shard bigint, node int, patience interval DEFAULT '1 s')
	LANGUAGE plpgsql
	AS $$
DECLARE
	moved record;
BEGIN
	PERFORM djactor_cluster.require_no_transaction();
	SELECT s.logicalrelid::pg_catalog.regclass AS relation, f.groupid AS source, f.nodeid AS source_id, t.nodeid AS target_id INTO moved
		FROM pg_catalog.pg_dist_shard s
		JOIN pg_catalog.pg_dist_placement p USING (shardid)
		JOIN pg_catalog.pg_dist_node f ON f.groupid OPERATOR(pg_catalog.=) p.groupid AND f.noderole OPERATOR(pg_catalog.=) 'primary'
		JOIN pg_catalog.pg_dist_node t ON t.groupid OPERATOR(pg_catalog.=) $2 AND t.noderole OPERATOR(pg_catalog.=) 'primary'
		WHERE s.shardid OPERATOR(pg_catalog.=) $1;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'there is no shard %, or no node %', $1, $2 USING ERRCODE = 'undefined_object';
	END IF;
	PERFORM djactor_cluster.citus_slots(moved.relation);	-- an error now, rather than when it has moved
	IF moved.source OPERATOR(pg_catalog.<>) $2 THEN
		PERFORM pg_catalog.citus_move_shard_placement($1, moved.source_id, moved.target_id);
		COMMIT;
	END IF;
	CALL djactor_cluster.follow_citus(moved.relation, $3);
END $$;
COMMENT ON PROCEDURE djactor_cluster.move_shard(bigint, int, interval) IS
'moves a shard of Citus, those that are colocated with it, and then the actors of its keys to another node; on the coordinator; if it fails, call it again';

/* ---------- grants ---------- */

GRANT USAGE ON SCHEMA djactor_cluster TO PUBLIC;
GRANT SELECT ON djactor_cluster.node, djactor_cluster.here TO PUBLIC;
GRANT SELECT ON djactor_cluster.message, djactor_cluster.ask, djactor_cluster.actor, djactor_cluster.mail, djactor_cluster.dead_letter,
	djactor_cluster.remote_actor, djactor_cluster.remote_message, djactor_cluster.remote_dead_letter
	TO pg_database_owner WITH GRANT OPTION;
GRANT INSERT (actor_type, actor_key, payload, headers, priority, deliver_at, expires_at,
		idempotency_key, wants_reply, in_reply_to, trace_id, coalesce_key, coalesce_mode, coalesce_until)
	ON djactor_cluster.message TO pg_database_owner WITH GRANT OPTION;
GRANT INSERT ON djactor_cluster.command TO pg_database_owner WITH GRANT OPTION;

REVOKE ALL ON FUNCTION djactor_cluster.forward(jsonb, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.answers(jsonb, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.give_answer(int, bigint, text, text, text, jsonb, jsonb, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.keep_answer(bigint, jsonb, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.deliver(int, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.receive() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.run_command() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.note_ask() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.arrive() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.leave() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.post() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.accept(int) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.set_up(int, int[], regrole, int[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.add_node(int, name, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.carry_by_citus() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.join_citus(int[], regrole, jsonb) FROM PUBLIC;
REVOKE ALL ON PROCEDURE djactor_cluster.set_up_citus(regrole, regclass, jsonb, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.spread_table(regclass, name) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.lock_slot(int) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.outdate(regclass) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.here_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.finds_now(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.put(record) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.require_no_transaction() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.wait_at_most(interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.lock_slots(int[], timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.hold_slots(int[], int, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.place_slots(int[], int, int, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.landed(int[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.unload() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.take_off(int[], int, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.land(int[], int, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.tell(int, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.spread() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor_cluster.check_move(int[], int, interval) FROM PUBLIC;
REVOKE ALL ON PROCEDURE djactor_cluster.move_slots(int[], int, interval) FROM PUBLIC;
REVOKE ALL ON PROCEDURE djactor_cluster.leave_slots(int[], interval) FROM PUBLIC;
REVOKE ALL ON PROCEDURE djactor_cluster.follow_citus(regclass, interval) FROM PUBLIC;
REVOKE ALL ON PROCEDURE djactor_cluster.move_shard(bigint, int, interval) FROM PUBLIC;

/* ---------- pg_dump includes the users' data ---------- */

SELECT pg_catalog.pg_extension_config_dump('djactor_cluster.here', '');
SELECT pg_catalog.pg_extension_config_dump('djactor_cluster.node', '');
SELECT pg_catalog.pg_extension_config_dump('djactor_cluster.ask', '');
SELECT pg_catalog.pg_extension_config_dump('djactor_cluster.cargo', '');
SELECT pg_catalog.pg_extension_config_dump('djactor_cluster.cargo_id_seq', '');
