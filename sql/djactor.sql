/*
 * djactor.sql
 *
 * The whole SQL surface of djactor.  The script runs as the bootstrap
 * superuser (the extension is trusted), possibly for a hostile database owner,
 * so these rules hold throughout:
 *
 * - the schema is created by this script, never adopted: with a schema line in
 *   the control file, a schema that somebody created before would be used;
 * - every name is qualified, nothing is CREATE OR REPLACE or IF NOT EXISTS;
 * - no table has a foreign key, a deferrable constraint or a trigger in a
 *   language that a user can reach;
 * - the C code reads and writes rows by attribute number: the order of the
 *   columns below is repeated in src/base/columns.h.
 *
 * Order: schema, hash functions, tables and their indexes, sending, operating,
 * testing, views, grants, dump configuration.
 */

\echo Use "CREATE EXTENSION djactor" to load this file. \quit

CREATE SCHEMA djactor;
COMMENT ON SCHEMA djactor IS 'djactor: actors, their mailboxes and the functions to use them';

/* ---------- keys of the mailbox index ---------- */

CREATE FUNCTION djactor.name_hash(name text) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'dja_name_hash';
COMMENT ON FUNCTION djactor.name_hash(text) IS
'64-bit hash of an actor type''s name or of an actor key, as the mailbox index stores it';

CREATE FUNCTION djactor.mailbox_position(priority smallint, id bigint) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'dja_mailbox_position';
COMMENT ON FUNCTION djactor.mailbox_position(smallint, bigint) IS
'position of a message in its mailbox: ascending, highest priority first, then lowest id';

/* ---------- defaults of djactor.message: the sender, while a turn runs ---------- */

CREATE FUNCTION djactor.current_headers() RETURNS jsonb
	LANGUAGE c VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'dja_current_headers';
COMMENT ON FUNCTION djactor.current_headers() IS
'headers of the message being handled, which pass on to everything that the turn sends; NULL outside a turn';

CREATE FUNCTION djactor.current_trace() RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'dja_current_trace';
COMMENT ON FUNCTION djactor.current_trace() IS
'trace of the message being handled; outside a turn a new random trace for each transaction';

CREATE FUNCTION djactor.current_sender_type() RETURNS text
	LANGUAGE c VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'dja_current_sender_type';
COMMENT ON FUNCTION djactor.current_sender_type() IS
'type of the actor whose turn is running; NULL outside a turn';

CREATE FUNCTION djactor.current_sender_key() RETURNS text
	LANGUAGE c VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'dja_current_sender_key';
COMMENT ON FUNCTION djactor.current_sender_key() IS
'key of the actor whose turn is running; NULL outside a turn';

CREATE FUNCTION djactor.current_cause() RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'dja_current_cause';
COMMENT ON FUNCTION djactor.current_cause() IS
'id of the message being handled; NULL outside a turn';

/* ---------- tables ---------- */

CREATE TABLE djactor.actor_type
(
	name text COLLATE pg_catalog."C" NOT NULL PRIMARY KEY,
	handler text,
	owner pg_catalog.regrole NOT NULL,
	initial_state jsonb NOT NULL,
	state_version int NOT NULL,
	upgrade_handler text,
	max_attempts int NOT NULL,
	backoff interval NOT NULL,
	backoff_max interval NOT NULL,
	retry_order text NOT NULL,
	on_exhausted text NOT NULL,
	handler_timeout interval NOT NULL,
	batch_size int,
	concurrency int,
	mailbox_limit int,
	on_full text NOT NULL,
	breaker_failures int,
	breaker_window interval NOT NULL,
	journal interval,
	settings jsonb NOT NULL DEFAULT '{}'::pg_catalog.jsonb,
	hosted boolean NOT NULL DEFAULT false,
	stateless boolean NOT NULL DEFAULT false,
	idle_ttl interval,
	rate text,
	rate_by text,
	fair_by text,
	wait_target interval,
	handler_owner pg_catalog.regrole NOT NULL,
	paused boolean NOT NULL DEFAULT false,
	paused_reason text,
	problem text
);
COMMENT ON TABLE djactor.actor_type IS 'kinds of actors; written only by define_actor_type(), alter_actor_type(), drop_actor_type(), pause(), resume() and djactor itself';
COMMENT ON COLUMN djactor.actor_type.name IS 'global name, app_label.name by convention; 1 to 255 bytes';
COMMENT ON COLUMN djactor.actor_type.handler IS 'qualified signature of the function f(state jsonb, message jsonb); of a hosted type what its hosts make of it, or NULL';
COMMENT ON COLUMN djactor.actor_type.owner IS 'role that the handler runs as, in a session logged in as that role';
COMMENT ON COLUMN djactor.actor_type.initial_state IS 'state that the first turn of an actor gets';
COMMENT ON COLUMN djactor.actor_type.state_version IS 'version of the state that the handler expects; an actor with a newer state waits';
COMMENT ON COLUMN djactor.actor_type.upgrade_handler IS 'qualified signature of the function f(state jsonb, from_version int) that upgrades an older state before the actor''s next turn; NULL = an older state is used as it is';
COMMENT ON COLUMN djactor.actor_type.hosted IS 'its turns run in processes outside the server, which take its mail with take()';
COMMENT ON COLUMN djactor.actor_type.stateless IS 'its turns leave no state, and so its actors no rows: each turn gets initial_state';
COMMENT ON COLUMN djactor.actor_type.idle_ttl IS 'an actor without a turn for that long stops, unless it has mail or a timer; NULL = never';
COMMENT ON COLUMN djactor.actor_type.rate IS 'at most so many turns begin in so long a time, by all workers and hosts together: a number, a slash and a period, such as 100/min or 10/30 s; NULL = any number';
COMMENT ON COLUMN djactor.actor_type.rate_by IS 'the rate counts for each value of a header (header:NAME) or of the key up to a separator (key:SEPARATOR), which also take turns; NULL = for the whole type';
COMMENT ON COLUMN djactor.actor_type.fair_by IS 'values of a header (header:NAME) or of the key up to a separator (key:SEPARATOR) take turns, however much mail each has; NULL = mail is served in the order in which it came';
COMMENT ON COLUMN djactor.actor_type.wait_target IS 'how long 95 of 100 messages are to wait at most; beyond it wait_p95 is shown in red; NULL = no target';
COMMENT ON COLUMN djactor.actor_type.max_attempts IS 'failed attempts after which a message is given up';
COMMENT ON COLUMN djactor.actor_type.backoff IS 'wait before the first retry; doubled for each further retry';
COMMENT ON COLUMN djactor.actor_type.backoff_max IS 'longest wait between two attempts';
COMMENT ON COLUMN djactor.actor_type.retry_order IS 'hold: later messages of the actor wait for the retry; skip: they overtake it';
COMMENT ON COLUMN djactor.actor_type.on_exhausted IS 'what happens to a message that has failed max_attempts times: dead_letter, or suspend (the actor stops, the message stays)';
COMMENT ON COLUMN djactor.actor_type.handler_timeout IS 'longest run of a handler for one message, deferred triggers included; 0 = no limit';
COMMENT ON COLUMN djactor.actor_type.batch_size IS 'maximum number of messages of this type in one transaction; 1 gives each message its own transaction; NULL = djactor.batch_size';
COMMENT ON COLUMN djactor.actor_type.concurrency IS 'workers that may run this type at the same time; NULL = no limit';
COMMENT ON COLUMN djactor.actor_type.mailbox_limit IS 'waiting messages of one actor beyond which sending fails; they are counted again before a sender is refused; concurrent senders may exceed it by what they have in flight; NULL = no limit';
COMMENT ON COLUMN djactor.actor_type.on_full IS 'what happens to a message beyond mailbox_limit: raise (SQLSTATE 53400 in the sender) or dead_letter';
COMMENT ON COLUMN djactor.actor_type.breaker_failures IS 'failed attempts within breaker_window beyond which the type is paused; NULL = never';
COMMENT ON COLUMN djactor.actor_type.breaker_window IS 'interval in which failed attempts are counted';
COMMENT ON COLUMN djactor.actor_type.journal IS 'how long handled messages are kept in djactor.journal; NULL = they are not kept';
COMMENT ON COLUMN djactor.actor_type.settings IS 'settings that its turns see: TimeZone, search_path, DateStyle and IntervalStyle of the session that defined the type, and those that the definition names';
COMMENT ON COLUMN djactor.actor_type.handler_owner IS 'owner of the handler function when the type was defined; a function of that name with another owner is not called';
COMMENT ON COLUMN djactor.actor_type.paused IS 'no turn starts while true; set by pause(), cleared by resume()';
COMMENT ON COLUMN djactor.actor_type.paused_reason IS 'which role paused the type, or why its breaker did';
COMMENT ON COLUMN djactor.actor_type.problem IS 'why mail of this type waits although it is not paused, for example a dropped handler; NULL = no problem';

CREATE TABLE djactor.actor
(
	id bigint NOT NULL,
	actor_type text COLLATE pg_catalog."C" NOT NULL,
	actor_key text COLLATE pg_catalog."C" NOT NULL,
	state jsonb NOT NULL,
	state_version int NOT NULL DEFAULT 1,
	status text NOT NULL DEFAULT 'active',
	paused boolean NOT NULL DEFAULT false,
	stashed int NOT NULL DEFAULT 0,
	turns bigint NOT NULL DEFAULT 0,
	failures bigint NOT NULL DEFAULT 0,
	last_error text,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
/* Deliberately not unique: a unique check walks every dead version of a row that
 * changes each turn.  djactor.actor_identity ensures uniqueness. */
CREATE INDEX actor_key ON djactor.actor (actor_type, actor_key);
CREATE INDEX actor_id ON djactor.actor (id);
/* Without a unique index, a publication of all tables identifies a row by its old version.  That is logged only if wal_level is logical;
 * docs/operations.md says what it costs. */
ALTER TABLE djactor.actor REPLICA IDENTITY FULL;
COMMENT ON TABLE djactor.actor IS 'actors and their state; a row exists from the first committed turn';
COMMENT ON COLUMN djactor.actor.id IS 'surrogate key, for the ORM';
COMMENT ON COLUMN djactor.actor.actor_type IS 'kind of actor: djactor.actor_type.name';
COMMENT ON COLUMN djactor.actor.actor_key IS 'key of the actor within its kind; 1 to 512 bytes';
COMMENT ON COLUMN djactor.actor.state IS 'state after the last committed turn; never SQL NULL; may be updated by hand';
COMMENT ON COLUMN djactor.actor.state_version IS 'version of the state: the type''s version at the last turn';
COMMENT ON COLUMN djactor.actor.status IS 'active, or suspended: stopped by a message that failed max_attempts times, see resume()';
COMMENT ON COLUMN djactor.actor.paused IS 'no turn of this actor starts while true; set by pause(type, key)';
COMMENT ON COLUMN djactor.actor.stashed IS 'messages that stash() has put aside';
COMMENT ON COLUMN djactor.actor.turns IS 'committed turns';
COMMENT ON COLUMN djactor.actor.failures IS 'failed attempts';
COMMENT ON COLUMN djactor.actor.last_error IS 'message of the last failed attempt';
COMMENT ON COLUMN djactor.actor.created_at IS 'transaction start of the first turn';
COMMENT ON COLUMN djactor.actor.updated_at IS 'transaction start of the last turn or failure';

CREATE TABLE djactor.actor_identity
(
	id bigint GENERATED ALWAYS AS IDENTITY,
	actor_type text COLLATE pg_catalog."C" NOT NULL,
	actor_key text COLLATE pg_catalog."C" NOT NULL,
	PRIMARY KEY (actor_type, actor_key)
);
COMMENT ON TABLE djactor.actor_identity IS 'one insert-only row for each actor: keeps (actor_type, actor_key) unique and generates the id';
COMMENT ON COLUMN djactor.actor_identity.id IS 'the actor''s id';
COMMENT ON COLUMN djactor.actor_identity.actor_type IS 'kind of actor';
COMMENT ON COLUMN djactor.actor_identity.actor_key IS 'key of the actor within its kind';

CREATE TABLE djactor.message
(
	id bigint GENERATED ALWAYS AS IDENTITY (MAXVALUE 281474976710655) PRIMARY KEY,
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
	attempts int NOT NULL DEFAULT 0,
	crashes smallint NOT NULL DEFAULT 0,
	redrives smallint NOT NULL DEFAULT 0,
	retry_at timestamptz,
	last_error text,
	sent_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	released boolean NOT NULL DEFAULT false,
	aside text,
	put_offs int NOT NULL DEFAULT 0,
	coalesce_key text COLLATE pg_catalog."C",
	coalesce_mode text,
	coalesce_until timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
/* Only messages that may be delivered, so that delayed ones do not burden a mailbox. */
CREATE INDEX message_mailbox ON djactor.message
	(djactor.name_hash(actor_type), djactor.name_hash(actor_key), djactor.mailbox_position(priority, id))
	WHERE (deliver_at IS NULL OR released) AND aside IS NULL;
/* What the worker that keeps the time waits for: delays and retries. */
CREATE INDEX message_due ON djactor.message
	(djactor.name_hash(actor_type), (COALESCE(retry_at, deliver_at)))
	WHERE retry_at IS NOT NULL OR (deliver_at IS NOT NULL AND NOT released);
/* Messages that are in no mailbox: stashed or deferred, held since they came by replication, delayed.  And those with a coalesce_key,
 * in a mailbox or not. */
CREATE INDEX message_aside ON djactor.message
	(djactor.name_hash(actor_type), djactor.name_hash(actor_key), coalesce_key, id)
	WHERE aside IS NOT NULL OR (deliver_at IS NOT NULL AND NOT released) OR coalesce_key IS NOT NULL;
COMMENT ON TABLE djactor.message IS 'waiting messages; INSERT sends, and the row is deleted once the message is handled';
COMMENT ON COLUMN djactor.message.id IS 'the message keeps it for life, also in dead_letter, journal and reply';
COMMENT ON COLUMN djactor.message.actor_type IS 'kind of the receiving actor: djactor.actor_type.name';
COMMENT ON COLUMN djactor.message.actor_key IS 'key of the receiving actor; 1 to 512 bytes';
COMMENT ON COLUMN djactor.message.payload IS 'second argument of the handler; JSON null is a value, SQL NULL is not allowed';
COMMENT ON COLUMN djactor.message.headers IS 'passed on to everything that the turn sends: tenant, user, traceparent';
COMMENT ON COLUMN djactor.message.priority IS 'higher goes first within the mailbox';
COMMENT ON COLUMN djactor.message.deliver_at IS 'the message is not handled before this time; under retry_order skip a failed message is delayed again';
COMMENT ON COLUMN djactor.message.expires_at IS 'the message is not handled at or after this time: an ask is answered with an error, any other message goes to dead_letter with reason expired';
COMMENT ON COLUMN djactor.message.idempotency_key IS 'a second message of this actor with the same key is discarded at its turn; 1 to 512 bytes';
COMMENT ON COLUMN djactor.message.wants_reply IS 'the message is an ask: it gets exactly one answer, in djactor.reply or, if an actor asked, in that actor''s mailbox';
COMMENT ON COLUMN djactor.message.in_reply_to IS 'id of the ask that this message answers';
COMMENT ON COLUMN djactor.message.trace_id IS 'shared by all messages that one request causes';
COMMENT ON COLUMN djactor.message.kind IS 'user, reply, error, timer or down; written by djactor';
COMMENT ON COLUMN djactor.message.meta IS 'timer: name, due_at, missed; down: actor_type, actor_key, reason; error: reason, sqlstate, error; user: what fail() was told of attempts that have failed; written by djactor';
COMMENT ON COLUMN djactor.message.sender_type IS 'type of the actor that sent it; NULL from outside; written by djactor';
COMMENT ON COLUMN djactor.message.sender_key IS 'key of the actor that sent it; NULL from outside; written by djactor';
COMMENT ON COLUMN djactor.message.cause_id IS 'id of the message whose turn sent it; NULL from outside; written by djactor';
COMMENT ON COLUMN djactor.message.attempts IS 'failed attempts so far; written by djactor';
COMMENT ON COLUMN djactor.message.crashes IS 'times that the process crashed or was killed while it ran the handler; written by djactor';
COMMENT ON COLUMN djactor.message.redrives IS 'times that redrive() has put it back; written by djactor';
COMMENT ON COLUMN djactor.message.retry_at IS 'time of the next attempt, after one has failed or was put off; written by djactor';
COMMENT ON COLUMN djactor.message.last_error IS 'error of the last attempt that failed or was put off; written by djactor';
COMMENT ON COLUMN djactor.message.sent_at IS 'start of the sender''s transaction; written by djactor';
COMMENT ON COLUMN djactor.message.put_offs IS 'transient errors that used up no attempt: conflicts, trouble of the server; last_error has the latest; written by djactor';
COMMENT ON COLUMN djactor.message.coalesce_key IS 'waiting messages of this actor with the same key are merged into one at their turn; 1 to 512 bytes; not together with idempotency_key';
COMMENT ON COLUMN djactor.message.coalesce_mode IS 'how this message goes with those of its coalesce_key that wait already: replace (NULL means that, too) takes their place, keep gives way to them, debounce replaces them and waits for its deliver_at anew';
COMMENT ON COLUMN djactor.message.coalesce_until IS 'debounce: longest wait, it is not put off beyond this time by later messages of its coalesce_key; -infinity: it has taken the place of others, and is handled at its turn, whatever comes; written by djactor';
COMMENT ON COLUMN djactor.message.released IS 'true = a delayed message has become due and is in its mailbox; written by djactor';
COMMENT ON COLUMN djactor.message.aside IS 'why it is not in its mailbox: stashed by the actor; deferred (an ask whose turn has ended without its reply); duplicate (of such an ask); coalesced (an ask that was merged into another message, and gets its answer); or held (it came by replication; followed by the earlier value, as in held stashed); written by djactor';

CREATE TABLE djactor.dead_letter
(
	id bigint NOT NULL PRIMARY KEY,
	actor_type text COLLATE pg_catalog."C" NOT NULL,
	actor_key text COLLATE pg_catalog."C" NOT NULL,
	payload jsonb NOT NULL,
	headers jsonb,
	priority smallint NOT NULL,
	deliver_at timestamptz,
	expires_at timestamptz,
	idempotency_key text COLLATE pg_catalog."C",
	wants_reply boolean NOT NULL,
	in_reply_to bigint,
	trace_id uuid NOT NULL,
	kind text NOT NULL,
	meta jsonb,
	sender_type text COLLATE pg_catalog."C",
	sender_key text COLLATE pg_catalog."C",
	cause_id bigint,
	attempts int NOT NULL,
	crashes smallint NOT NULL,
	redrives smallint NOT NULL,
	retry_at timestamptz,
	last_error text,
	sent_at timestamptz NOT NULL,
	reason text NOT NULL,
	sqlstate text,
	error text,
	context text,
	failed_at timestamptz NOT NULL
);
CREATE INDEX dead_letter_failed_at ON djactor.dead_letter (failed_at);
CREATE INDEX dead_letter_actor ON djactor.dead_letter (actor_type, actor_key);
COMMENT ON TABLE djactor.dead_letter IS 'messages that were given up, under their ids; DELETE discards';
COMMENT ON COLUMN djactor.dead_letter.id IS 'id of the message, the same as in djactor.message';
COMMENT ON COLUMN djactor.dead_letter.actor_type IS 'kind of the receiving actor';
COMMENT ON COLUMN djactor.dead_letter.actor_key IS 'key of the receiving actor';
COMMENT ON COLUMN djactor.dead_letter.payload IS 'second argument of the handler';
COMMENT ON COLUMN djactor.dead_letter.headers IS 'as sent';
COMMENT ON COLUMN djactor.dead_letter.priority IS 'as sent';
COMMENT ON COLUMN djactor.dead_letter.deliver_at IS 'as sent, or when the next attempt was due under retry_order skip';
COMMENT ON COLUMN djactor.dead_letter.expires_at IS 'as sent';
COMMENT ON COLUMN djactor.dead_letter.idempotency_key IS 'as sent; the key is free again';
COMMENT ON COLUMN djactor.dead_letter.wants_reply IS 'as sent; the asker has been answered with an error';
COMMENT ON COLUMN djactor.dead_letter.in_reply_to IS 'as sent';
COMMENT ON COLUMN djactor.dead_letter.trace_id IS 'as sent';
COMMENT ON COLUMN djactor.dead_letter.kind IS 'user, reply, error, timer or down';
COMMENT ON COLUMN djactor.dead_letter.meta IS 'as in djactor.message';
COMMENT ON COLUMN djactor.dead_letter.sender_type IS 'type of the actor that sent it; NULL from outside';
COMMENT ON COLUMN djactor.dead_letter.sender_key IS 'key of the actor that sent it; NULL from outside';
COMMENT ON COLUMN djactor.dead_letter.cause_id IS 'id of the message whose turn sent it; NULL from outside';
COMMENT ON COLUMN djactor.dead_letter.attempts IS 'failed attempts';
COMMENT ON COLUMN djactor.dead_letter.crashes IS 'times that the process crashed or was killed while it ran the handler';
COMMENT ON COLUMN djactor.dead_letter.redrives IS 'times that redrive() has put it back';
COMMENT ON COLUMN djactor.dead_letter.retry_at IS 'always NULL';
COMMENT ON COLUMN djactor.dead_letter.last_error IS 'message of the last failed attempt';
COMMENT ON COLUMN djactor.dead_letter.sent_at IS 'start of the sender''s transaction';
COMMENT ON COLUMN djactor.dead_letter.reason IS 'failed (max_attempts reached), rejected, crashed (max_crashes reached), expired, stopped (its actor was stopped, with discard), or mailbox_full';
COMMENT ON COLUMN djactor.dead_letter.sqlstate IS 'SQLSTATE of the last error';
COMMENT ON COLUMN djactor.dead_letter.error IS 'message of the last error, with its detail and hint';
COMMENT ON COLUMN djactor.dead_letter.context IS 'context of the last error';
COMMENT ON COLUMN djactor.dead_letter.failed_at IS 'when the message was given up';

CREATE TABLE djactor.reply
(
	message_id bigint NOT NULL PRIMARY KEY,
	payload jsonb,
	error jsonb,
	created_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	actor_type text COLLATE pg_catalog."C",
	actor_key text COLLATE pg_catalog."C"
);
CREATE INDEX reply_expires_at ON djactor.reply (expires_at);
COMMENT ON TABLE djactor.reply IS 'answers to asks from outside of actors, kept for djactor.reply_retention; you may DELETE them';
COMMENT ON COLUMN djactor.reply.message_id IS 'id of the ask';
COMMENT ON COLUMN djactor.reply.payload IS 'the reply; JSON null if the turn gave none; SQL NULL if the answer is an error';
COMMENT ON COLUMN djactor.reply.error IS 'the argument of reply_error(), or {reason, sqlstate, error}, where reason is failed, crashed, rejected, expired (with attempts and last_error, too, if an attempt has failed), cancelled, stopped, dropped or mailbox_full; SQL NULL if the answer is a reply';
COMMENT ON COLUMN djactor.reply.created_at IS 'start of the transaction that answered';
COMMENT ON COLUMN djactor.reply.expires_at IS 'when the row is deleted';
COMMENT ON COLUMN djactor.reply.actor_type IS 'kind of the actor that was asked';
COMMENT ON COLUMN djactor.reply.actor_key IS 'key of the actor that was asked; NULL = erase() has given the answer';

CREATE TABLE djactor.timer
(
	actor_type text COLLATE pg_catalog."C" NOT NULL,
	actor_key text COLLATE pg_catalog."C" NOT NULL,
	name text COLLATE pg_catalog."C" NOT NULL,
	due_at timestamptz NOT NULL,
	every interval,
	anchor timestamptz,
	cron text,
	time_zone text,
	catch_up text NOT NULL DEFAULT 'once',
	payload jsonb NOT NULL,
	message_id bigint,
	paused_at timestamptz,
	last_fired_at timestamptz,
	last_outcome text,
	PRIMARY KEY (actor_type, actor_key, name)
);
COMMENT ON TABLE djactor.timer IS 'pending timers of actors; written by set_timer(), schedule() and the functions that end, pause and run timers';
COMMENT ON COLUMN djactor.timer.actor_type IS 'kind of the actor whose timer it is';
COMMENT ON COLUMN djactor.timer.actor_key IS 'key of the actor whose timer it is';
COMMENT ON COLUMN djactor.timer.name IS 'unique within the actor; 1 to 255 bytes';
COMMENT ON COLUMN djactor.timer.due_at IS 'the timer does not fire before this time; while it is paused: when it would have fired';
COMMENT ON COLUMN djactor.timer.every IS 'period of a recurring timer, as it was given; NULL = the timer recurs by cron, or fires once';
COMMENT ON COLUMN djactor.timer.anchor IS 'the time that every counts from, or the time given as at; NULL = neither';
COMMENT ON COLUMN djactor.timer.cron IS 'cron expression of a recurring timer, as it was given';
COMMENT ON COLUMN djactor.timer.time_zone IS 'time zone of every and cron; NULL = that of the actor type';
COMMENT ON COLUMN djactor.timer.catch_up IS 'once: missed times become one firing with their count; skip: they are dropped';
COMMENT ON COLUMN djactor.timer.payload IS 'second argument of the handler';
COMMENT ON COLUMN djactor.timer.message_id IS 'the delayed message of kind timer that is its next firing; a firing that no timer names is discarded at its turn; NULL while paused';
COMMENT ON COLUMN djactor.timer.paused_at IS 'since when the timer is paused; NULL = it is not paused';
COMMENT ON COLUMN djactor.timer.last_fired_at IS 'start of the last completed firing; NULL = none yet';
COMMENT ON COLUMN djactor.timer.last_outcome IS 'outcome of the last completed firing: handled, dead (given up, see djactor.dead_letter), or skipped';

CREATE TABLE djactor.watch
(
	watcher_type text COLLATE pg_catalog."C" NOT NULL,
	watcher_key text COLLATE pg_catalog."C" NOT NULL,
	actor_type text COLLATE pg_catalog."C" NOT NULL,
	actor_key text COLLATE pg_catalog."C" NOT NULL,
	PRIMARY KEY (watcher_type, watcher_key, actor_type, actor_key)
);
CREATE INDEX watch_actor ON djactor.watch (actor_type, actor_key);
COMMENT ON TABLE djactor.watch IS 'watches: the watcher gets a message of kind down when the watched actor stops or fails for good; written by watch() and unwatch()';
COMMENT ON COLUMN djactor.watch.watcher_type IS 'kind of the watcher';
COMMENT ON COLUMN djactor.watch.watcher_key IS 'key of the watcher';
COMMENT ON COLUMN djactor.watch.actor_type IS 'kind of the watched actor';
COMMENT ON COLUMN djactor.watch.actor_key IS 'key of the watched actor';

CREATE TABLE djactor.idempotency
(
	actor_type text COLLATE pg_catalog."C" NOT NULL,
	actor_key text COLLATE pg_catalog."C" NOT NULL,
	idempotency_key text COLLATE pg_catalog."C" NOT NULL,
	message_id bigint NOT NULL,
	answered boolean NOT NULL,
	reply jsonb,
	error jsonb,
	completed_at timestamptz NOT NULL,
	PRIMARY KEY (actor_type, actor_key, idempotency_key)
);
CREATE INDEX idempotency_completed_at ON djactor.idempotency (completed_at);
COMMENT ON TABLE djactor.idempotency IS 'idempotency keys of handled messages, kept for djactor.idempotency_retention';
COMMENT ON COLUMN djactor.idempotency.actor_type IS 'kind of the receiving actor';
COMMENT ON COLUMN djactor.idempotency.actor_key IS 'key of the receiving actor';
COMMENT ON COLUMN djactor.idempotency.idempotency_key IS 'the key, unique within the actor';
COMMENT ON COLUMN djactor.idempotency.message_id IS 'the message that was handled with this key';
COMMENT ON COLUMN djactor.idempotency.answered IS 'false while its reply is deferred';
COMMENT ON COLUMN djactor.idempotency.reply IS 'the message''s reply, which the asker of a duplicate gets too';
COMMENT ON COLUMN djactor.idempotency.error IS 'the message''s error answer, which the asker of a duplicate gets too';
COMMENT ON COLUMN djactor.idempotency.completed_at IS 'when the message was handled, or its deferred reply came; infinity until the deferred reply comes';

CREATE TABLE djactor.journal
(
	id bigint NOT NULL PRIMARY KEY,
	actor_type text COLLATE pg_catalog."C" NOT NULL,
	actor_key text COLLATE pg_catalog."C" NOT NULL,
	payload jsonb NOT NULL,
	headers jsonb,
	priority smallint NOT NULL,
	deliver_at timestamptz,
	expires_at timestamptz,
	idempotency_key text COLLATE pg_catalog."C",
	wants_reply boolean NOT NULL,
	in_reply_to bigint,
	trace_id uuid NOT NULL,
	kind text NOT NULL,
	meta jsonb,
	sender_type text COLLATE pg_catalog."C",
	sender_key text COLLATE pg_catalog."C",
	cause_id bigint,
	attempts int NOT NULL,
	crashes smallint NOT NULL,
	redrives smallint NOT NULL,
	retry_at timestamptz,
	last_error text,
	sent_at timestamptz NOT NULL,
	turn bigint,
	started_at timestamptz NOT NULL,
	finished_at timestamptz NOT NULL,
	outcome text NOT NULL,
	reply jsonb,
	worker_pid int NOT NULL
);
CREATE INDEX journal_trace ON djactor.journal (trace_id);
CREATE INDEX journal_finished_at ON djactor.journal (actor_type, finished_at);
COMMENT ON TABLE djactor.journal IS 'handled messages of types that keep a journal, for the type''s interval journal; a log for people, and the results of stateless types; you may DELETE rows';
COMMENT ON COLUMN djactor.journal.id IS 'id of the message, the same as in djactor.message';
COMMENT ON COLUMN djactor.journal.actor_type IS 'kind of the receiving actor';
COMMENT ON COLUMN djactor.journal.actor_key IS 'key of the receiving actor';
COMMENT ON COLUMN djactor.journal.payload IS 'second argument of the handler';
COMMENT ON COLUMN djactor.journal.headers IS 'as sent';
COMMENT ON COLUMN djactor.journal.priority IS 'as sent';
COMMENT ON COLUMN djactor.journal.deliver_at IS 'as sent';
COMMENT ON COLUMN djactor.journal.expires_at IS 'as sent';
COMMENT ON COLUMN djactor.journal.idempotency_key IS 'as sent';
COMMENT ON COLUMN djactor.journal.wants_reply IS 'as sent';
COMMENT ON COLUMN djactor.journal.in_reply_to IS 'as sent';
COMMENT ON COLUMN djactor.journal.trace_id IS 'as sent';
COMMENT ON COLUMN djactor.journal.kind IS 'user, reply, error, timer or down';
COMMENT ON COLUMN djactor.journal.meta IS 'as the handler got it';
COMMENT ON COLUMN djactor.journal.sender_type IS 'type of the actor that sent it; NULL from outside';
COMMENT ON COLUMN djactor.journal.sender_key IS 'key of the actor that sent it; NULL from outside';
COMMENT ON COLUMN djactor.journal.cause_id IS 'id of the message whose turn sent it; NULL from outside';
COMMENT ON COLUMN djactor.journal.attempts IS 'failed attempts before this turn';
COMMENT ON COLUMN djactor.journal.crashes IS 'times that the process crashed or was killed while it ran the handler';
COMMENT ON COLUMN djactor.journal.redrives IS 'times that redrive() has put it back';
COMMENT ON COLUMN djactor.journal.retry_at IS 'always NULL';
COMMENT ON COLUMN djactor.journal.last_error IS 'message of the last failed attempt';
COMMENT ON COLUMN djactor.journal.sent_at IS 'start of the sender''s transaction';
COMMENT ON COLUMN djactor.journal.turn IS 'number of the turn among the actor''s turns; NULL = there was no turn, as for a duplicate';
COMMENT ON COLUMN djactor.journal.started_at IS 'start of the turn, by the clock';
COMMENT ON COLUMN djactor.journal.finished_at IS 'end of the turn, by the clock; its commit follows within batch_time';
COMMENT ON COLUMN djactor.journal.outcome IS 'handled; deferred: the turn left the reply to a later one; duplicate: discarded because of its idempotency key; coalesced: merged into another message of its coalesce_key; expired: an ask past its expires_at';
COMMENT ON COLUMN djactor.journal.reply IS 'the turn''s reply; NULL = the message was no ask and its type is not stateless, or the reply was deferred';
COMMENT ON COLUMN djactor.journal.worker_pid IS 'process that ran the turn';

CREATE TABLE djactor.home
(
	system_identifier bigint NOT NULL,
	database oid NOT NULL,
	instance text NOT NULL,
	restored bigint NOT NULL
);
ALTER TABLE djactor.home REPLICA IDENTITY FULL;
COMMENT ON TABLE djactor.home IS 'the database in which this data was when its workers last ran; a copy in another database, cluster or instance is held until djactor.resume()';
COMMENT ON COLUMN djactor.home.system_identifier IS 'system identifier of the cluster, as pg_controldata shows it';
COMMENT ON COLUMN djactor.home.database IS 'OID of the database';
COMMENT ON COLUMN djactor.home.instance IS 'value of the setting djactor.instance';
COMMENT ON COLUMN djactor.home.restored IS 'identifies the cluster''s last start from a backup; 0 = none';

/* pg_dump leaves it out: like the server's own statistics it tells of this server, not of the data. */
CREATE TABLE djactor.stat_history
(
	actor_type text COLLATE pg_catalog."C" NOT NULL,
	at timestamptz NOT NULL,
	minutes smallint NOT NULL,
	handled bigint NOT NULL,
	failed bigint NOT NULL,
	retried bigint NOT NULL,
	dead bigint NOT NULL,
	duplicates bigint NOT NULL,
	expired bigint NOT NULL,
	coalesced bigint NOT NULL,
	wait int[] NOT NULL,
	run int[] NOT NULL,
	CONSTRAINT stat_history_pkey PRIMARY KEY (minutes, at, actor_type)
);
COMMENT ON TABLE djactor.stat_history IS 'what djactor.stat counts, by minutes for a day and by hours for thirty days; a span in which nothing was counted for a type has no row';
COMMENT ON COLUMN djactor.stat_history.actor_type IS 'kind of actor; rows outlive their type';
COMMENT ON COLUMN djactor.stat_history.at IS 'when the span begins: a full minute, or a full hour of UTC';
COMMENT ON COLUMN djactor.stat_history.minutes IS 'length of the span: 1, or 60 for what is older than a day';
COMMENT ON COLUMN djactor.stat_history.handled IS 'successful turns in the span';
COMMENT ON COLUMN djactor.stat_history.failed IS 'failed attempts';
COMMENT ON COLUMN djactor.stat_history.retried IS 'attempts to be made again, including transient errors';
COMMENT ON COLUMN djactor.stat_history.dead IS 'messages that workers have given up';
COMMENT ON COLUMN djactor.stat_history.duplicates IS 'messages discarded because of their idempotency key';
COMMENT ON COLUMN djactor.stat_history.expired IS 'asks not run because they were past their expires_at';
COMMENT ON COLUMN djactor.stat_history.coalesced IS 'messages merged into others of their coalesce_key';
COMMENT ON COLUMN djactor.stat_history.wait IS 'how long messages had waited for their turns: a histogram for stat_percentile()';
COMMENT ON COLUMN djactor.stat_history.run IS 'how long turns took: likewise';

/* ---------- triggers that refuse manual writes, with a hint ---------- */

CREATE FUNCTION djactor.refuse_write() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_refuse_write';
COMMENT ON FUNCTION djactor.refuse_write() IS 'trigger: raises 42501 and names the function to use instead';

CREATE TRIGGER refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON djactor.actor_type
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE DELETE OR TRUNCATE OR UPDATE OF
		id, actor_type, actor_key, state_version, status, paused, stashed, turns, failures, last_error, created_at, updated_at
	ON djactor.actor FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON djactor.actor_identity
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON djactor.message
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE UPDATE OR TRUNCATE ON djactor.dead_letter
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE UPDATE OR TRUNCATE ON djactor.reply
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE UPDATE OR TRUNCATE ON djactor.journal
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON djactor.timer
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON djactor.watch
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON djactor.idempotency
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON djactor.home
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();
CREATE TRIGGER refuse BEFORE UPDATE OR TRUNCATE ON djactor.stat_history
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.refuse_write();

/* ---------- sending ---------- */

CREATE FUNCTION djactor.message_sent() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_message_sent';
COMMENT ON FUNCTION djactor.message_sent() IS
'trigger: checks type, key and mailbox limit, and wakes the workers when the sender commits';

CREATE TRIGGER sent AFTER INSERT ON djactor.message
	REFERENCING NEW TABLE AS sent
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.message_sent();

/* Copies are held: mail that arrives by replication, and mail that a dump restores. */
CREATE FUNCTION djactor.message_arrived() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_message_arrived';
COMMENT ON FUNCTION djactor.message_arrived() IS
'trigger: puts aside messages that arrive by logical replication, or are changed by it, until djactor.resume()';

CREATE TRIGGER arrived AFTER INSERT OR UPDATE ON djactor.message
	FOR EACH ROW EXECUTE FUNCTION djactor.message_arrived();
ALTER TABLE djactor.message ENABLE REPLICA TRIGGER arrived;

CREATE FUNCTION djactor.home_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_home_changed';
COMMENT ON FUNCTION djactor.home_changed() IS
'trigger: detects that a dump is being restored; its mail is then held until djactor.resume()';

CREATE TRIGGER changed AFTER INSERT ON djactor.home
	FOR EACH STATEMENT EXECUTE FUNCTION djactor.home_changed();

CREATE FUNCTION djactor.send
(
	actor_type text,
	actor_key text,
	payload jsonb DEFAULT '{}'::pg_catalog.jsonb,
	priority int DEFAULT 0,
	deliver_at timestamptz DEFAULT NULL,
	expires_at timestamptz DEFAULT NULL,
	idempotency_key text DEFAULT NULL,
	headers jsonb DEFAULT NULL,
	wants_reply boolean DEFAULT false,
	coalesce_key text DEFAULT NULL,
	coalesce_mode text DEFAULT NULL,
	debounce interval DEFAULT NULL,
	debounce_limit interval DEFAULT NULL
) RETURNS bigint
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'dja_send';
COMMENT ON FUNCTION djactor.send(text, text, jsonb, int, timestamptz, timestamptz, text, jsonb, boolean, text, text, interval, interval) IS
'sends a message as INSERT INTO djactor.message does, with the caller''s rights, and returns its id';

/* ---------- defining ---------- */

CREATE FUNCTION djactor.define_actor_type
(
	name text,
	handler text,
	initial_state jsonb DEFAULT '{}'::pg_catalog.jsonb,
	state_version int DEFAULT 1,
	upgrade_handler text DEFAULT NULL,
	max_attempts int DEFAULT 5,
	backoff interval DEFAULT '1 s'::interval,
	backoff_max interval DEFAULT '1 h'::interval,
	retry_order text DEFAULT 'hold'::text,
	on_exhausted text DEFAULT 'dead_letter'::text,
	handler_timeout interval DEFAULT '30 s'::interval,
	batch_size int DEFAULT NULL,
	concurrency int DEFAULT NULL,
	mailbox_limit int DEFAULT NULL,
	on_full text DEFAULT 'raise'::text,
	breaker_failures int DEFAULT 100,
	breaker_window interval DEFAULT '1 min'::interval,
	journal interval DEFAULT NULL,
	owner pg_catalog.regrole DEFAULT (pg_catalog.quote_ident(CURRENT_USER::text))::pg_catalog.regrole,
	settings jsonb DEFAULT NULL,
	hosted boolean DEFAULT false,
	stateless boolean DEFAULT false,
	idle_ttl interval DEFAULT NULL,
	rate text DEFAULT NULL,
	rate_by text DEFAULT NULL,
	fair_by text DEFAULT NULL,
	wait_target interval DEFAULT NULL
) RETURNS void
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'dja_define_actor_type';
COMMENT ON FUNCTION djactor.define_actor_type(text, text, jsonb, int, text, int, interval, interval, text, text, interval, int, int, int, text, int, interval, interval, regrole, jsonb, boolean, boolean, interval, text, text, text, interval) IS
'defines a kind of actor, or changes it: an omitted option gets its default again, paused never changes';

/* The defaults mean "unchanged".  Where NULL is a value of the option, the default is one that the option cannot have. */
CREATE FUNCTION djactor.alter_actor_type
(
	name text,
	handler text DEFAULT NULL,
	initial_state jsonb DEFAULT NULL,
	state_version int DEFAULT NULL,
	upgrade_handler text DEFAULT ''::text,
	max_attempts int DEFAULT NULL,
	backoff interval DEFAULT NULL,
	backoff_max interval DEFAULT NULL,
	retry_order text DEFAULT NULL,
	on_exhausted text DEFAULT NULL,
	handler_timeout interval DEFAULT NULL,
	batch_size int DEFAULT -1,
	concurrency int DEFAULT -1,
	mailbox_limit int DEFAULT -1,
	on_full text DEFAULT NULL,
	breaker_failures int DEFAULT -1,
	breaker_window interval DEFAULT NULL,
	journal interval DEFAULT '-1 s'::interval,
	owner pg_catalog.regrole DEFAULT NULL,
	settings jsonb DEFAULT NULL,
	hosted boolean DEFAULT NULL,
	stateless boolean DEFAULT NULL,
	idle_ttl interval DEFAULT '-1 s'::interval,
	rate text DEFAULT ''::text,
	rate_by text DEFAULT ''::text,
	fair_by text DEFAULT ''::text,
	wait_target interval DEFAULT '-1 s'::interval
) RETURNS void
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'dja_alter_actor_type';
COMMENT ON FUNCTION djactor.alter_actor_type(text, text, jsonb, int, text, int, interval, interval, text, text, interval, int, int, int, text, int, interval, interval, regrole, jsonb, boolean, boolean, interval, text, text, text, interval) IS
'changes only the named options of a kind of actor; NULL for batch_size, concurrency, mailbox_limit, breaker_failures, journal, idle_ttl, upgrade_handler, rate, rate_by, fair_by or wait_target means none';

CREATE FUNCTION djactor.drop_actor_type(name text, discard boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_drop_actor_type';
COMMENT ON FUNCTION djactor.drop_actor_type(text, boolean) IS
'drops a kind of actor; refuses (2BP01) while it has actors or mail, unless discard is true, which deletes them';

/* ---------- in a turn ---------- */

CREATE TYPE djactor.result AS (state jsonb, reply jsonb);
COMMENT ON TYPE djactor.result IS
'what a handler may return: the new state (NULL = unchanged) and the reply (NULL = none)';

/* No SET search_path: it would prevent inlining, and the names in the body are already bound. */
CREATE FUNCTION djactor.result(state jsonb, reply jsonb) RETURNS djactor.result
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
SELECT ROW(state, reply)::djactor.result;
END;
COMMENT ON FUNCTION djactor.result(jsonb, jsonb) IS
'builds what a handler may return from its two parts, each of which may be a plain NULL';

CREATE FUNCTION djactor.self(OUT actor_type text, OUT actor_key text, OUT turns bigint)
	LANGUAGE c STABLE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'dja_self';
COMMENT ON FUNCTION djactor.self() IS
'the actor whose turn is running, and its committed turns before this one; NULL outside a turn';

CREATE FUNCTION djactor.message() RETURNS djactor.message
	LANGUAGE c STABLE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'dja_message';
COMMENT ON FUNCTION djactor.message() IS 'the message being handled; NULL outside a turn';

CREATE FUNCTION djactor.now() RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'dja_now';
COMMENT ON FUNCTION djactor.now() IS 'the clock by which mail is due; drain(until => ...) moves it';

CREATE FUNCTION djactor.reply(payload jsonb, message_id bigint DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_reply';
COMMENT ON FUNCTION djactor.reply(jsonb, bigint) IS
'answers the message being handled, or an ask whose reply was deferred; the first answer counts, and a message that is no ask is not answered';

CREATE FUNCTION djactor.reply_error(error jsonb, message_id bigint DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_reply_error';
COMMENT ON FUNCTION djactor.reply_error(jsonb, bigint) IS
'answers as reply() does, with an error: wait_reply() raises JA002, an actor gets a message of kind error';

CREATE FUNCTION djactor.defer_reply() RETURNS bigint
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_defer_reply';
COMMENT ON FUNCTION djactor.defer_reply() IS
'leaves the message being handled unanswered at the end of its turn, and returns its id; a later turn, of this actor or of another one, passes that id to reply()';

CREATE FUNCTION djactor.reject(reason text) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_reject';
COMMENT ON FUNCTION djactor.reject(text) IS
'raises JA003: the turn is rolled back and its message goes to dead_letter at once, with reason rejected';

CREATE FUNCTION djactor.stop(discard boolean DEFAULT false) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_stop';
COMMENT ON FUNCTION djactor.stop(boolean) IS
'removes the actor at the end of its turn, with state and timers, and tells its watchers; waiting mail goes to a fresh actor or, with discard, to dead_letter';

CREATE FUNCTION djactor.stash() RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_stash';
COMMENT ON FUNCTION djactor.stash() IS
'puts the current message aside until unstash_all(); at most 1000 for an actor (54000)';

CREATE FUNCTION djactor.unstash_all() RETURNS int
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_unstash_all';
COMMENT ON FUNCTION djactor.unstash_all() IS
'puts all stashed messages of the actor back into its mailbox, before later ones, and returns how many';

CREATE FUNCTION djactor.set_timer
(
	name text,
	after interval DEFAULT NULL,
	payload jsonb DEFAULT '{}'::pg_catalog.jsonb,
	every interval DEFAULT NULL,
	at timestamptz DEFAULT NULL,
	cron text DEFAULT NULL,
	time_zone text DEFAULT NULL,
	catch_up text DEFAULT 'once'::text
) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_set_timer';
COMMENT ON FUNCTION djactor.set_timer(text, interval, jsonb, interval, timestamptz, text, text, text) IS
'sends the actor a message of kind timer after an interval or at a time, and from there on again after each period, or by cron; replaces its timer of that name';

CREATE FUNCTION djactor.cancel_timer(name text) RETURNS boolean
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_cancel_timer';
COMMENT ON FUNCTION djactor.cancel_timer(text) IS
'cancels a timer of the actor, and a firing that is in the mailbox already; false = there was none';

CREATE FUNCTION djactor.watch(actor_type text, actor_key text) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_watch';
COMMENT ON FUNCTION djactor.watch(text, text) IS
'sends this actor a message of kind down when the other one stops or is dropped with its type, at once if there is none (reason absent), and each time it fails for good or is suspended';

CREATE FUNCTION djactor.unwatch(actor_type text, actor_key text) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_unwatch';
COMMENT ON FUNCTION djactor.unwatch(text, text) IS 'ends a watch()';

CREATE FUNCTION djactor.progress(value jsonb) RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_progress';
COMMENT ON FUNCTION djactor.progress(jsonb) IS
'says how far the turn is: others see it at once, in djactor.progress and by progress_of(), until the turn ends; 1024 bytes as text at most (54000)';

CREATE FUNCTION djactor.progress_of(message_id bigint) RETURNS jsonb
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_progress_of';
COMMENT ON FUNCTION djactor.progress_of(bigint) IS
'what the running turn of a message has said last by progress(); NULL = nothing, or there is no such turn; needs SELECT on djactor.message';

/* ---------- calendars ---------- */

CREATE FUNCTION djactor.cron_next
(
	expression text,
	after timestamptz DEFAULT pg_catalog.now(),
	time_zone text DEFAULT pg_catalog.current_setting('TimeZone'::text),
	count int DEFAULT 1
) RETURNS SETOF timestamptz
	LANGUAGE c STABLE STRICT PARALLEL SAFE ROWS 10
	AS 'MODULE_PATHNAME', 'dja_sql_cron_next';
COMMENT ON FUNCTION djactor.cron_next(text, timestamptz, text, int) IS
'the next times of a cron expression (five fields, or @daily and the like) in a time zone';

CREATE FUNCTION djactor.every_next
(
	every interval,
	anchor timestamptz,
	after timestamptz DEFAULT pg_catalog.now(),
	time_zone text DEFAULT pg_catalog.current_setting('TimeZone'::text),
	count int DEFAULT 1
) RETURNS SETOF timestamptz
	LANGUAGE c STABLE STRICT PARALLEL SAFE ROWS 10
	AS 'MODULE_PATHNAME', 'dja_sql_every_next';
COMMENT ON FUNCTION djactor.every_next(interval, timestamptz, timestamptz, text, int) IS
'the next times of a period that counts from an anchor; days and months are calendar units in a time zone, hours are spans of time';

/* ---------- asking, from outside of actors ---------- */

CREATE FUNCTION djactor.wait_reply(message_id bigint, timeout interval DEFAULT '5 s'::interval) RETURNS jsonb
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_wait_reply';
COMMENT ON FUNCTION djactor.wait_reply(bigint, interval) IS
'waits for the answer to an ask and returns it, without consuming it; JA001: no answer came in time; JA002: the answer is an error, in DETAIL as jsonb; holds its statement''s snapshot while it waits, which CALL wait_reply() does not';

-- No defaults here and below, so that SELECT f(...) means the function and CALL f(...) the procedure.
CREATE PROCEDURE djactor.wait_reply(message_id bigint, timeout interval, INOUT reply jsonb)
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_call_wait_reply';
COMMENT ON PROCEDURE djactor.wait_reply(bigint, interval, jsonb) IS
'commits and then waits as the function wait_reply() does, but holds no snapshot and no lock while it waits';

CREATE FUNCTION djactor.wait_replies
(
	ids bigint[],
	timeout interval DEFAULT '5 s'::interval,
	OUT message_id bigint,
	OUT reply jsonb,
	OUT error jsonb
) RETURNS SETOF record
	LANGUAGE c VOLATILE ROWS 100
	AS 'MODULE_PATHNAME', 'dja_wait_replies';
COMMENT ON FUNCTION djactor.wait_replies(bigint[], interval) IS
'waits for the answers to many asks and returns a row for each that was answered in time, in the order of the ids: its reply, or its error; returns once all are answered, or with the timeout; holds its statement''s snapshot while it waits, which CALL wait_replies() does not';

CREATE PROCEDURE djactor.wait_replies(ids bigint[], timeout interval, INOUT replies jsonb)
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_call_wait_replies';
COMMENT ON PROCEDURE djactor.wait_replies(bigint[], interval, jsonb) IS
'commits and then waits as the function wait_replies() does, but holds no snapshot and no lock while it waits; the result is an array of {message_id, reply, error}';

CREATE PROCEDURE djactor.ask
(
	actor_type text,
	actor_key text,
	payload jsonb DEFAULT '{}'::pg_catalog.jsonb,
	timeout interval DEFAULT '5 s'::interval,
	INOUT reply jsonb DEFAULT NULL
)
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_ask';
COMMENT ON PROCEDURE djactor.ask(text, text, jsonb, interval, jsonb) IS
'sends, commits, and waits for the answer as CALL wait_reply() does; the message expires with the timeout';

/* ---------- operating ---------- */

CREATE FUNCTION djactor.pause(actor_type text) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_pause_type';
COMMENT ON FUNCTION djactor.pause(text) IS 'lets no turn of this kind of actor start until resume(); mail is still accepted';

CREATE FUNCTION djactor.pause(actor_type text, actor_key text) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_pause_actor';
COMMENT ON FUNCTION djactor.pause(text, text) IS 'lets no turn of this actor start until resume(); mail is still accepted';

CREATE FUNCTION djactor.resume(actor_type text) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_resume_type';
COMMENT ON FUNCTION djactor.resume(text) IS 'ends pause(type)';

CREATE FUNCTION djactor.resume(actor_type text, actor_key text) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_resume_actor';
COMMENT ON FUNCTION djactor.resume(text, text) IS
'ends the pause or suspension of an actor: resets the attempts of its first message and makes it due now, even if the actor never had a turn';

CREATE FUNCTION djactor.resume() RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_resume_database';
COMMENT ON FUNCTION djactor.resume() IS
'releases mail that is held because this database is a copy (restored, cloned, started from a backup), or because it has arrived by replication; for the owner of the database';

CREATE FUNCTION djactor.held() RETURNS boolean
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_held_database';
COMMENT ON FUNCTION djactor.held() IS
'whether the mail of this database is held until djactor.resume(), because the database is a copy';

CREATE FUNCTION djactor.stop_actor(actor_type text, actor_key text) RETURNS boolean
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_stop_actor';
COMMENT ON FUNCTION djactor.stop_actor(text, text) IS
'stops an actor as its own stop() would, after the running turn; false = there is no such actor';

CREATE FUNCTION djactor.erase
(
	actor_type text,
	actor_key text,
	OUT table_name text,
	OUT deleted bigint
) RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT ROWS 9
	AS 'MODULE_PATHNAME', 'dja_erase';
COMMENT ON FUNCTION djactor.erase(text, text) IS
'deletes all that is kept about an actor, after the running turn: state, mail, timers, watches, dead letters, replies, idempotency keys and journal; returns how many rows of each table';

CREATE FUNCTION djactor.cancel(message_id bigint) RETURNS boolean
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_cancel';
COMMENT ON FUNCTION djactor.cancel(bigint) IS
'takes back a message that has not been handled; its asker gets an error; false = the message is no longer there';

CREATE FUNCTION djactor.cancel(message_id bigint, running boolean) RETURNS text
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_cancel_running';
COMMENT ON FUNCTION djactor.cancel(bigint, boolean) IS
'takes a message back as cancel(message_id) does, and with running breaks off the turn that handles it; returns where it was: waiting, running, or gone (no longer there)';

CREATE FUNCTION djactor.redrive(id bigint) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_redrive';
COMMENT ON FUNCTION djactor.redrive(bigint) IS
'puts a dead letter back into its mailbox, under its id, as if it had never failed; many: SELECT djactor.redrive(id) FROM djactor.dead_letter WHERE ...';

CREATE FUNCTION djactor.redrive(id bigint, payload jsonb) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_redrive_changed';
COMMENT ON FUNCTION djactor.redrive(bigint, jsonb) IS
'puts a dead letter back as redrive(id) does, with another payload; for roles that may act for the owner of its type';

CREATE FUNCTION djactor.discard(id bigint) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_discard';
COMMENT ON FUNCTION djactor.discard(bigint) IS 'deletes a dead letter';

CREATE FUNCTION djactor.schedule
(
	actor_type text,
	actor_key text,
	name text,
	after interval DEFAULT NULL,
	payload jsonb DEFAULT '{}'::pg_catalog.jsonb,
	every interval DEFAULT NULL,
	at timestamptz DEFAULT NULL,
	cron text DEFAULT NULL,
	time_zone text DEFAULT NULL,
	catch_up text DEFAULT 'once'::text
) RETURNS timestamptz
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_schedule';
COMMENT ON FUNCTION djactor.schedule(text, text, text, interval, jsonb, interval, timestamptz, text, text, text) IS
'sets a timer of an actor from outside, and returns when it fires next; repeated with the same rule it leaves the next firing as it is, unless the clock was wrong';

CREATE FUNCTION djactor.unschedule(actor_type text, actor_key text, name text) RETURNS boolean
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_unschedule';
COMMENT ON FUNCTION djactor.unschedule(text, text, text) IS
'ends a timer of an actor from outside, and a firing that is in the mailbox already; false = there was none';

CREATE FUNCTION djactor.run_now(actor_type text, actor_key text, name text) RETURNS bigint
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_run_now';
COMMENT ON FUNCTION djactor.run_now(text, text, text) IS
'makes a timer of an actor fire now, even a paused one, and returns the id of the message; the timer continues with the next time of its rule';

CREATE FUNCTION djactor.pause(actor_type text, actor_key text, name text) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_pause_timer';
COMMENT ON FUNCTION djactor.pause(text, text, text) IS 'keeps a timer of an actor from firing until resume()';

CREATE FUNCTION djactor.resume(actor_type text, actor_key text, name text) RETURNS void
	LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dja_resume_timer';
COMMENT ON FUNCTION djactor.resume(text, text, text) IS
'ends pause(type, key, name): the timer continues with the next time of its rule; times that fell into the pause are not made up for';

CREATE FUNCTION djactor.timer_next(actor_type text, actor_key text, name text, count int DEFAULT 1) RETURNS SETOF timestamptz
	LANGUAGE sql STABLE STRICT ROWS 10 SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
WITH this AS
(
	SELECT t.due_at, t.every, t.anchor, t.cron,
		COALESCE(t.time_zone, a.settings OPERATOR(pg_catalog.->>) 'TimeZone'::pg_catalog.text, pg_catalog.current_setting('TimeZone'::pg_catalog.text)) AS zone,
		GREATEST(t.due_at, pg_catalog.now()) AS after
	FROM djactor.timer t LEFT JOIN djactor.actor_type a ON a.name OPERATOR(pg_catalog.=) t.actor_type
	WHERE t.actor_type OPERATOR(pg_catalog.=) $1 AND t.actor_key OPERATOR(pg_catalog.=) $2
		AND t.name OPERATOR(pg_catalog.=) $3 AND t.message_id IS NOT NULL AND $4 OPERATOR(pg_catalog.>) 0
)
SELECT due_at FROM this
UNION ALL
SELECT n.n FROM this, djactor.cron_next(this.cron, this.after, this.zone, $4 OPERATOR(pg_catalog.-) 1) AS n (n)
UNION ALL
SELECT n.n FROM this, djactor.every_next(this.every, this.anchor, this.after, this.zone, $4 OPERATOR(pg_catalog.-) 1) AS n (n)
ORDER BY 1;
END;
COMMENT ON FUNCTION djactor.timer_next(text, text, text, int) IS
'when a timer of an actor fires next: its due time first, then the next times of its rule; no rows while it is paused; reads with the caller''s rights';

CREATE FUNCTION djactor.wait_idle(timeout interval DEFAULT '10 s'::interval, actor_type text DEFAULT NULL) RETURNS boolean
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_wait_idle';
COMMENT ON FUNCTION djactor.wait_idle(interval, text) IS
'waits until no mail is left that could be handled; false = the timeout passed; messages that wait for a retry count, delayed and paused ones do not; holds its statement''s snapshot while it waits, which CALL wait_idle() does not';

CREATE PROCEDURE djactor.wait_idle(timeout interval, actor_type text, INOUT idle boolean)
	LANGUAGE c AS 'MODULE_PATHNAME', 'dja_call_wait_idle';
COMMENT ON PROCEDURE djactor.wait_idle(interval, text, boolean) IS
'commits and then waits as the function wait_idle() does, but holds no snapshot and no lock while it waits';

CREATE FUNCTION djactor.reload() RETURNS int
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_reload';
COMMENT ON FUNCTION djactor.reload() IS
'ends the workers of this database after their batch and returns how many, so that fresh sessions replace them (a session loads PL/Python code once); workers of roles that the caller may not act for stay';

/* ---------- outcomes and traces: the bodies are bound to the tables, also if these are renamed ---------- */

CREATE FUNCTION djactor.outcome(message_id bigint) RETURNS text
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
SELECT CASE
	WHEN m.id IS NOT NULL THEN
		CASE
			WHEN m.aside OPERATOR(pg_catalog.~~) 'held%'::pg_catalog.text THEN 'held'
			WHEN m.aside IS NOT NULL THEN 'waiting'
			WHEN djactor.held() OR t.paused OR a.paused OR a.status OPERATOR(pg_catalog.=) 'suspended'::pg_catalog.text THEN 'held'
			WHEN m.retry_at IS NOT NULL OR m.attempts OPERATOR(pg_catalog.>) 0 THEN 'retrying'
			ELSE 'waiting'
		END
	WHEN EXISTS (SELECT FROM djactor.dead_letter d WHERE d.id OPERATOR(pg_catalog.=) $1) THEN 'dead'
	WHEN EXISTS (SELECT FROM djactor.reply r WHERE r.message_id OPERATOR(pg_catalog.=) $1) THEN 'replied'
	WHEN EXISTS (SELECT FROM djactor.journal j WHERE j.id OPERATOR(pg_catalog.=) $1) THEN 'handled'
END
FROM (VALUES (1)) one
	LEFT JOIN djactor.message m ON m.id OPERATOR(pg_catalog.=) $1
	LEFT JOIN djactor.actor_type t ON t.name OPERATOR(pg_catalog.=) m.actor_type
	LEFT JOIN djactor.actor a ON a.actor_type OPERATOR(pg_catalog.=) m.actor_type
		AND a.actor_key OPERATOR(pg_catalog.=) m.actor_key;
END;
COMMENT ON FUNCTION djactor.outcome(bigint) IS
'what became of a message: waiting, retrying, held (paused, suspended, or waiting for djactor.resume()), dead, replied (while its row in djactor.reply is kept), handled (while djactor.journal shows it), NULL = unknown; reads with the caller''s rights';

CREATE FUNCTION djactor.trace
(
	trace_id uuid,
	OUT id bigint, OUT cause_id bigint, OUT depth int, OUT actor_type text, OUT actor_key text,
	OUT kind text, OUT status text, OUT sent_at timestamptz, OUT started_at timestamptz,
	OUT finished_at timestamptz, OUT wait interval, OUT run interval, OUT error text
) RETURNS SETOF record
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
WITH RECURSIVE found AS MATERIALIZED
(
	SELECT j.id, j.cause_id, j.actor_type, j.actor_key, j.kind,
		CASE
			WHEN j.outcome OPERATOR(pg_catalog.=) 'deferred'::pg_catalog.text
				AND NOT EXISTS (SELECT FROM djactor.message m WHERE m.id OPERATOR(pg_catalog.=) j.id)
				THEN 'handled'::pg_catalog.text
			ELSE j.outcome
		END AS status,
		j.sent_at, j.deliver_at, j.started_at, j.finished_at, j.last_error AS error
	FROM djactor.journal j
	WHERE j.trace_id OPERATOR(pg_catalog.=) $1
		AND NOT EXISTS (SELECT FROM djactor.dead_letter d WHERE d.id OPERATOR(pg_catalog.=) j.id)
	UNION ALL
	SELECT m.id, m.cause_id, m.actor_type, m.actor_key, m.kind, djactor.outcome(m.id),
		m.sent_at, m.deliver_at, NULL, NULL, m.last_error
	FROM djactor.message m
	WHERE m.trace_id OPERATOR(pg_catalog.=) $1
		AND NOT EXISTS (SELECT FROM djactor.journal j WHERE j.id OPERATOR(pg_catalog.=) m.id)
	UNION ALL
	SELECT d.id, d.cause_id, d.actor_type, d.actor_key, d.kind, 'dead'::pg_catalog.text,
		d.sent_at, d.deliver_at, NULL, d.failed_at, COALESCE(d.error, d.reason)
	FROM djactor.dead_letter d
	WHERE d.trace_id OPERATOR(pg_catalog.=) $1
),
tree AS
(
	SELECT f.id, 0 AS depth, ARRAY[f.id] AS path
	FROM found f
	WHERE NOT EXISTS (SELECT FROM found c WHERE c.id OPERATOR(pg_catalog.=) f.cause_id)
	UNION ALL
	SELECT f.id, t.depth OPERATOR(pg_catalog.+) 1, t.path OPERATOR(pg_catalog.||) f.id
	FROM tree t JOIN found f ON f.cause_id OPERATOR(pg_catalog.=) t.id
	WHERE f.id OPERATOR(pg_catalog.<>) ALL (t.path)
)
SELECT f.id, f.cause_id, t.depth, f.actor_type, f.actor_key, f.kind, f.status, f.sent_at,
	f.started_at, f.finished_at,
	CASE WHEN f.started_at IS NOT NULL OR f.finished_at IS NULL THEN
		GREATEST(COALESCE(f.started_at, pg_catalog.now()) OPERATOR(pg_catalog.-) GREATEST(f.sent_at, f.deliver_at),
			'0'::pg_catalog.interval)
	END,
	f.finished_at OPERATOR(pg_catalog.-) f.started_at,
	f.error
FROM tree t JOIN found f ON f.id OPERATOR(pg_catalog.=) t.id
ORDER BY t.path;
END;
COMMENT ON FUNCTION djactor.trace(uuid) IS
'the messages of one trace as a tree, each below the one whose turn sent it: when it was sent, started and finished, how long it waited and ran; handled messages show only if their type keeps a journal; scans djactor.message and djactor.dead_letter; reads with the caller''s rights';

/* ---------- testing ---------- */

CREATE FUNCTION djactor.drain
(
	max int DEFAULT NULL,
	until timestamptz DEFAULT NULL,
	on_error text DEFAULT 'raise'::text,
	only_type text DEFAULT NULL,
	only_key text DEFAULT NULL
) RETURNS bigint
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'dja_drain';
COMMENT ON FUNCTION djactor.drain(int, timestamptz, text, text, text) IS
'handles due messages at once, in the caller''s transaction, including those that it sent itself, and returns how many; delays, timers and retries up to until count as due, in their order; only those of one type, or of one actor, if that is named; for tests';

/* ---------- hosts ---------- */

CREATE FUNCTION djactor.host_open
(
	types text[],
	name text DEFAULT ''::text,
	lease interval DEFAULT '30 s'::interval,
	version text DEFAULT ''::text
) RETURNS bigint
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_sql_host_open';
COMMENT ON FUNCTION djactor.host_open(text[], text, interval, text) IS
'makes this session a host of hosted types, whose owner has to be its role, and returns the host''s id; the lease, 1 s to 1 h, is renewed by each take() and heartbeat()';

CREATE FUNCTION djactor.host_close() RETURNS void
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_sql_host_close';
COMMENT ON FUNCTION djactor.host_close() IS
'ends the host that this session is; what it has taken goes back';

CREATE FUNCTION djactor.heartbeat(host bigint) RETURNS boolean
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_sql_heartbeat';
COMMENT ON FUNCTION djactor.heartbeat(bigint) IS
'renews the lease of a host of the same role; false if the host is gone';

CREATE FUNCTION djactor.host_drain(host bigint) RETURNS boolean
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_sql_host_drain';
COMMENT ON FUNCTION djactor.host_drain(bigint) IS
'has a host of the same role take nothing more; false if the host is gone';

CREATE FUNCTION djactor.host_crashed(host bigint, charged bigint[]) RETURNS boolean
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_sql_host_crashed';
COMMENT ON FUNCTION djactor.host_crashed(bigint, bigint[]) IS
'reports that the process of a host has died, and the messages that it was executing: each is charged with a crash, all others are cleared of suspicion; false if nothing is known of the host any more';

CREATE FUNCTION djactor.take
(
	mailboxes int,
	messages int DEFAULT 1,
	OUT token bigint,
	OUT claim bigint,
	OUT id bigint,
	OUT actor_type text,
	OUT actor_key text,
	OUT first boolean,
	OUT state jsonb,
	OUT "exists" boolean,
	OUT turns bigint,
	OUT from_version int,
	OUT payload jsonb,
	OUT headers jsonb,
	OUT trace_id uuid,
	OUT kind text,
	OUT meta jsonb,
	OUT attempts int,
	OUT wants_reply boolean,
	OUT sender_type text,
	OUT sender_key text,
	OUT cause_id bigint,
	OUT in_reply_to bigint,
	OUT priority smallint,
	OUT sent_at timestamptz,
	OUT time_limit interval
) RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_take';
COMMENT ON FUNCTION djactor.take(int, int) IS
'claims up to so many mailboxes for this host, and hands out up to so many messages of each, in their order; goes back if the transaction aborts';

CREATE FUNCTION djactor.drain_take
(
	until timestamptz DEFAULT NULL,
	only_type text DEFAULT NULL,
	only_key text DEFAULT NULL,
	OUT token bigint,
	OUT claim bigint,
	OUT id bigint,
	OUT actor_type text,
	OUT actor_key text,
	OUT first boolean,
	OUT state jsonb,
	OUT "exists" boolean,
	OUT turns bigint,
	OUT from_version int,
	OUT payload jsonb,
	OUT headers jsonb,
	OUT trace_id uuid,
	OUT kind text,
	OUT meta jsonb,
	OUT attempts int,
	OUT wants_reply boolean,
	OUT sender_type text,
	OUT sender_key text,
	OUT cause_id bigint,
	OUT in_reply_to bigint,
	OUT priority smallint,
	OUT sent_at timestamptz,
	OUT time_limit interval
) RETURNS SETOF record
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'dja_drain_take';
COMMENT ON FUNCTION djactor.drain_take(timestamptz, text, text) IS
'hands out the next due message of a hosted type here and now, in the caller''s transaction, also of mail that this has sent itself; delays, timers and retries up to until count as due, in their order; only those of one type, or of one actor, if that is named';

CREATE FUNCTION djactor.begin_turn(token bigint, message_id bigint) RETURNS void
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_begin_turn';
COMMENT ON FUNCTION djactor.begin_turn(bigint, bigint) IS
'begins a turn in this transaction, up to end_turn(); 40001 or 55P03 if it cannot be done any more, or not now: the claim has ended';

CREATE PROCEDURE djactor.end_turn(state jsonb DEFAULT NULL, reply jsonb DEFAULT NULL)
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'dja_end_turn';
COMMENT ON PROCEDURE djactor.end_turn(jsonb, jsonb) IS
'ends the turn that begin_turn() has begun, with the new state (NULL = unchanged) and the reply (NULL = none)';

CREATE FUNCTION djactor.waited_for() RETURNS boolean
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'dja_waited_for';
COMMENT ON FUNCTION djactor.waited_for() IS
'does another session wait for a lock that this one holds? Commit soon then, and run no further turn before';

CREATE PROCEDURE djactor.next_turn(token bigint, message_id bigint, state jsonb DEFAULT NULL, reply jsonb DEFAULT NULL)
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'dja_next_turn';
COMMENT ON PROCEDURE djactor.next_turn(bigint, bigint, jsonb, jsonb) IS
'ends the turn under way like end_turn(), with state and reply, and begins another one like begin_turn()';

CREATE FUNCTION djactor.complete
(
	tokens bigint[],
	message_ids bigint[],
	states jsonb[],
	replies jsonb[] DEFAULT NULL,
	usec bigint[] DEFAULT NULL
) RETURNS text[]
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'dja_complete';
COMMENT ON FUNCTION djactor.complete(bigint[], bigint[], jsonb[], jsonb[], bigint[]) IS
'ends many turns with their states (NULL = unchanged) and replies (NULL = none); returns for each: done, stale, changed, gone, halted or locked; all but done have ended the claim';

CREATE FUNCTION djactor.fail
(
	token bigint,
	message_id bigint,
	sqlstate text,
	error text,
	context text DEFAULT NULL,
	meta jsonb DEFAULT NULL
) RETURNS text
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'dja_fail';
COMMENT ON FUNCTION djactor.fail(bigint, bigint, text, text, text, jsonb) IS
'writes a failed attempt down, with what the host wants to know of it later (meta, for a message of kind user), and ends the claim; returns retry, put_off, dead_letter, suspended, or why there is nothing to be written: stale, gone, locked';

CREATE FUNCTION djactor.progress(token bigint, message_id bigint, value jsonb) RETURNS boolean
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_progress_hosted';
COMMENT ON FUNCTION djactor.progress(bigint, bigint, jsonb) IS
'says how far a turn is that a host runs outside of transactions, and notifies djactor_progress of its message''s id; false if the turn is over';

CREATE FUNCTION djactor.release(tokens bigint[]) RETURNS int
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_release';
COMMENT ON FUNCTION djactor.release(bigint[]) IS
'gives the claims of these tokens back; returns how many have ended';

CREATE FUNCTION djactor.hosted_state
(
	message_id bigint,
	OUT state text,
	OUT host text,
	OUT since timestamptz
)
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_hosted_state';
COMMENT ON FUNCTION djactor.hosted_state(bigint) IS
'whether a host runs a message: running, with the host''s name, since it was taken or the turn before it ended; next, if it is the first of several that the host has taken together and that are not done; waiting; NULL = the message is gone';

/* ---------- views ---------- */

CREATE FUNCTION djactor.worker_list
(
	OUT pid int, OUT role pg_catalog.regrole, OUT state text,
	OUT resident boolean, OUT actor_type text, OUT message_id bigint, OUT since timestamptz
) RETURNS SETOF record
	LANGUAGE c VOLATILE ROWS 10
	AS 'MODULE_PATHNAME', 'dja_worker_list';
COMMENT ON FUNCTION djactor.worker_list() IS 'live workers of this database, from shared memory';

CREATE VIEW djactor.worker AS
	SELECT pid, role, state, resident, actor_type, message_id, since FROM djactor.worker_list();
COMMENT ON VIEW djactor.worker IS 'live workers, what they run, and since when';
COMMENT ON COLUMN djactor.worker.pid IS 'process id; NULL while the worker starts';
COMMENT ON COLUMN djactor.worker.role IS 'role whose types it runs and that its session is logged in as';
COMMENT ON COLUMN djactor.worker.state IS 'starting, idle or busy';
COMMENT ON COLUMN djactor.worker.resident IS 'true for the one worker of its database and role that listens, keeps the time and sweeps';
COMMENT ON COLUMN djactor.worker.actor_type IS 'type of the message being handled, truncated to 63 bytes; NULL = none';
COMMENT ON COLUMN djactor.worker.message_id IS 'message being handled; NULL = none';
COMMENT ON COLUMN djactor.worker.since IS 'when the current state began';

CREATE FUNCTION djactor.host_list
(
	OUT id bigint,
	OUT pid int,
	OUT role pg_catalog.regrole,
	OUT name text,
	OUT version text,
	OUT types text[],
	OUT claims int,
	OUT state text,
	OUT since timestamptz,
	OUT lease_until timestamptz
) RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT
	AS 'MODULE_PATHNAME', 'dja_sql_host_list';
COMMENT ON FUNCTION djactor.host_list() IS 'rows of the view djactor.host';

CREATE VIEW djactor.host AS
	SELECT id, pid, role, name, version, types, claims, state, since, lease_until FROM djactor.host_list();
COMMENT ON VIEW djactor.host IS 'sessions that take mail of hosted types';
COMMENT ON COLUMN djactor.host.id IS 'what host_open() has returned';
COMMENT ON COLUMN djactor.host.pid IS 'process id of its session';
COMMENT ON COLUMN djactor.host.role IS 'role whose types it serves';
COMMENT ON COLUMN djactor.host.name IS 'its name for people, as it has given it; cut to 63 bytes';
COMMENT ON COLUMN djactor.host.version IS 'version of its code, as it has given it; cut to 63 bytes';
COMMENT ON COLUMN djactor.host.types IS 'actor types that it serves';
COMMENT ON COLUMN djactor.host.claims IS 'actors whose mail it has taken and not dealt with';
COMMENT ON COLUMN djactor.host.state IS 'busy, idle, waiting (to be notified of mail) or draining (it takes nothing more)';
COMMENT ON COLUMN djactor.host.since IS 'when it was opened';
COMMENT ON COLUMN djactor.host.lease_until IS 'when its mail is given to others, unless it is heard of before';

CREATE FUNCTION djactor.progress_list
(
	OUT message_id bigint, OUT value jsonb, OUT said_at timestamptz
) RETURNS SETOF record
	LANGUAGE c VOLATILE ROWS 10
	AS 'MODULE_PATHNAME', 'dja_progress_list';
COMMENT ON FUNCTION djactor.progress_list() IS 'rows of the view djactor.progress';

CREATE VIEW djactor.progress AS
	SELECT message_id, value, said_at FROM djactor.progress_list();
COMMENT ON VIEW djactor.progress IS 'what running turns have said last by progress()';
COMMENT ON COLUMN djactor.progress.message_id IS 'message that the turn handles';
COMMENT ON COLUMN djactor.progress.value IS 'what the turn has said';
COMMENT ON COLUMN djactor.progress.said_at IS 'when it has said so';

CREATE FUNCTION djactor.stat_list
(
	OUT actor_type text, OUT handled bigint, OUT failed bigint, OUT retried bigint, OUT dead bigint,
	OUT duplicates bigint, OUT expired bigint, OUT turns_per_second double precision,
	OUT wait_p50 interval, OUT wait_p95 interval, OUT wait_p99 interval,
	OUT run_p50 interval, OUT run_p95 interval, OUT run_p99 interval, OUT since timestamptz,
	OUT conflicts bigint, OUT batch_limit int, OUT worker_limit int, OUT coalesced bigint
) RETURNS SETOF record
	LANGUAGE c VOLATILE ROWS 100
	AS 'MODULE_PATHNAME', 'dja_stat_list';
COMMENT ON FUNCTION djactor.stat_list() IS 'counters, rates and times of the actor types of this database, from shared memory';

CREATE VIEW djactor.stat AS
	SELECT s.actor_type, s.handled, s.failed, s.retried, s.dead, s.duplicates, s.expired, s.turns_per_second,
		s.wait_p50, s.wait_p95, s.wait_p99, s.run_p50, s.run_p95, s.run_p99, s.since,
		s.conflicts, s.batch_limit, s.worker_limit, s.coalesced, t.wait_target
	FROM djactor.stat_list() s
	LEFT JOIN djactor.actor_type t ON t.name OPERATOR(pg_catalog.=) s.actor_type;
COMMENT ON VIEW djactor.stat IS 'what workers have done for each actor type since the server started, and how fast in the last one to two minutes; only committed work, without that of drain()';
COMMENT ON COLUMN djactor.stat.actor_type IS 'kind of actor';
COMMENT ON COLUMN djactor.stat.handled IS 'successful turns';
COMMENT ON COLUMN djactor.stat.failed IS 'failed attempts';
COMMENT ON COLUMN djactor.stat.retried IS 'attempts to be made again, including transient errors, which failed does not count';
COMMENT ON COLUMN djactor.stat.dead IS 'messages that workers have given up, for any reason';
COMMENT ON COLUMN djactor.stat.duplicates IS 'messages discarded because of their idempotency key';
COMMENT ON COLUMN djactor.stat.expired IS 'asks not run because they were past their expires_at';
COMMENT ON COLUMN djactor.stat.turns_per_second IS 'successful turns a second, in the last one to two minutes';
COMMENT ON COLUMN djactor.stat.wait_p50 IS 'time from when a message was sent, or was to be delivered, to the start of its turn, earlier attempts included: median of the last one to two minutes; like all these times exact to a quarter; NULL without turns';
COMMENT ON COLUMN djactor.stat.wait_p95 IS 'likewise, 95th percentile';
COMMENT ON COLUMN djactor.stat.wait_p99 IS 'likewise, 99th percentile';
COMMENT ON COLUMN djactor.stat.run_p50 IS 'duration of a turn: median of the last one to two minutes; NULL without turns';
COMMENT ON COLUMN djactor.stat.run_p95 IS 'likewise, 95th percentile';
COMMENT ON COLUMN djactor.stat.run_p99 IS 'likewise, 99th percentile';
COMMENT ON COLUMN djactor.stat.since IS 'when counting began: the start of the server, or later if the type''s place in shared memory was given to another type meanwhile';

COMMENT ON COLUMN djactor.stat.conflicts IS 'batches that held the locks of several turns when another session waited for one, or that failed on another session''s lock; since the server started, or the type was defined';
COMMENT ON COLUMN djactor.stat.batch_limit IS 'maximum number of turns that share a transaction, lowered by conflicts and long turns; grows again when they cease; NULL = no limit beyond djactor.batch_size and the type''s own batch_size';
COMMENT ON COLUMN djactor.stat.worker_limit IS 'maximum number of workers that run the type at once, lowered by conflicts between them; grows again when these cease; NULL = no limit beyond djactor.max_workers and the type''s concurrency';
COMMENT ON COLUMN djactor.stat.coalesced IS 'messages merged into others of their coalesce_key';
COMMENT ON COLUMN djactor.stat.wait_target IS 'the type''s target for wait_p95; NULL = none';

CREATE FUNCTION djactor.stat_percentile_add(sum internal, counts int[], part double precision) RETURNS internal
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'dja_stat_percentile_add';
COMMENT ON FUNCTION djactor.stat_percentile_add(internal, int[], double precision) IS 'adds a histogram, for stat_percentile()';

CREATE FUNCTION djactor.stat_percentile_end(sum internal) RETURNS interval
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'dja_stat_percentile_end';
COMMENT ON FUNCTION djactor.stat_percentile_end(internal) IS 'result of stat_percentile()';

CREATE AGGREGATE djactor.stat_percentile(counts int[], part double precision)
(
	SFUNC = djactor.stat_percentile_add,
	STYPE = internal,
	FINALFUNC = djactor.stat_percentile_end,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE djactor.stat_percentile(int[], double precision) IS
'time that the given part of all turns did not exceed (0.95 is the 95th percentile), over the histograms wait or run of any rows of djactor.stat_history; exact to a quarter; NULL without turns';

CREATE FUNCTION djactor.stat_times_list
(
	OUT actor_type text, OUT waited interval, OUT ran interval,
	OUT up_to interval[], OUT waits bigint[], OUT runs bigint[]
) RETURNS SETOF record
	LANGUAGE c VOLATILE ROWS 100
	AS 'MODULE_PATHNAME', 'dja_stat_times_list';
COMMENT ON FUNCTION djactor.stat_times_list() IS 'rows of the view djactor.stat_times';

CREATE VIEW djactor.stat_times AS
	SELECT actor_type, waited, ran, up_to, waits, runs FROM djactor.stat_times_list();
COMMENT ON VIEW djactor.stat_times IS 'how long the successful turns of each actor type have waited and run since the time that djactor.stat calls since, as histograms for monitoring systems';
COMMENT ON COLUMN djactor.stat_times.actor_type IS 'kind of actor';
COMMENT ON COLUMN djactor.stat_times.waited IS 'sum of the times that the messages had waited, as wait_p50 of djactor.stat counts them';
COMMENT ON COLUMN djactor.stat_times.ran IS 'sum of the durations of the turns';
COMMENT ON COLUMN djactor.stat_times.up_to IS 'where the buckets of waits and runs end: 2 us, 4 us, 8 us and so on; the last one has no end';
COMMENT ON COLUMN djactor.stat_times.waits IS 'number of turns in each bucket, by how long their messages had waited';
COMMENT ON COLUMN djactor.stat_times.runs IS 'number of turns in each bucket, by how long they took';

CREATE FUNCTION djactor.put_off_list
(
	OUT type_hash bigint, OUT key_hash bigint, OUT times int, OUT until timestamptz, OUT reason text
) RETURNS SETOF record
	LANGUAGE c VOLATILE ROWS 10
	AS 'MODULE_PATHNAME', 'dja_put_off_list';
COMMENT ON FUNCTION djactor.put_off_list() IS 'mailboxes of this database whose mail waits although it is due, from shared memory: hashes as in djactor.name_hash() (no key_hash: all of the type), how often they were put off so far, until when, and whether for a row that another transaction has locked (lock) or since the type, or the mailbox''s value of rate_by, has had its turns (rate)';

/* The last_error of the first message would be better, but needs all mail sorted. */
CREATE VIEW djactor.mailbox AS
	SELECT m.actor_type, m.actor_key, m.depth, m.oldest_sent_at,
		pg_catalog.now() OPERATOR(pg_catalog.-) m.oldest_sent_at AS oldest_age,
		m.put_offs OPERATOR(pg_catalog.+) COALESCE(locked.times, 0) AS put_offs,
		CASE WHEN locked.reason OPERATOR(pg_catalog.=) 'lock' THEN 'another transaction has locked the actor''s row, or a message''s'
			ELSE m.last_error END AS last_error,
		COALESCE(spent.reason, locked.reason) AS waits_for,
		COALESCE(spent.until, locked.until) AS waits_until
	FROM (
		SELECT actor_type, actor_key, pg_catalog.count(*) AS depth,
			pg_catalog.min(sent_at) AS oldest_sent_at, pg_catalog.max(put_offs) AS put_offs,
			pg_catalog.min(last_error) AS last_error
		FROM djactor.message
		WHERE aside IS NULL OR aside OPERATOR(pg_catalog.<>) ALL (ARRAY['deferred', 'duplicate', 'coalesced', 'held deferred', 'held duplicate', 'held coalesced'])
		GROUP BY actor_type, actor_key
	) m
	LEFT JOIN djactor.put_off_list() locked
		ON locked.type_hash OPERATOR(pg_catalog.=) djactor.name_hash(m.actor_type)
		AND locked.key_hash OPERATOR(pg_catalog.=) djactor.name_hash(m.actor_key)
	LEFT JOIN djactor.put_off_list() spent
		ON spent.type_hash OPERATOR(pg_catalog.=) djactor.name_hash(m.actor_type)
		AND spent.key_hash IS NULL;
COMMENT ON VIEW djactor.mailbox IS 'waiting messages of each actor and the age of the oldest';
COMMENT ON COLUMN djactor.mailbox.actor_type IS 'kind of the receiving actor';
COMMENT ON COLUMN djactor.mailbox.actor_key IS 'key of the receiving actor';
COMMENT ON COLUMN djactor.mailbox.depth IS 'waiting messages, delayed ones included';
COMMENT ON COLUMN djactor.mailbox.oldest_sent_at IS 'when the oldest waiting message was sent';
COMMENT ON COLUMN djactor.mailbox.oldest_age IS 'age of the oldest waiting message';
COMMENT ON COLUMN djactor.mailbox.put_offs IS 'how often its mail was put off without using up an attempt: the maximum over its messages, or the successive waits for a row that another transaction has locked';
COMMENT ON COLUMN djactor.mailbox.last_error IS 'why mail was put off, or the error of one of its messages that has failed; NULL = neither';
COMMENT ON COLUMN djactor.mailbox.waits_for IS 'what mail that is due waits for: rate (the type, or its value of rate_by, has had all the turns that the rate allows for now) or lock (another transaction has locked a row); NULL = neither';
COMMENT ON COLUMN djactor.mailbox.waits_until IS 'when it is looked at again; NULL = it does not wait';

/* ---------- grants: to the database's owner, whichever role that is, with grant option ---------- */

GRANT USAGE ON SCHEMA djactor TO PUBLIC;
GRANT USAGE ON SCHEMA djactor TO pg_database_owner WITH GRANT OPTION;
GRANT SELECT ON djactor.actor_type, djactor.actor, djactor.actor_identity, djactor.message,
	djactor.dead_letter, djactor.reply, djactor.timer, djactor.watch, djactor.idempotency,
	djactor.journal, djactor.home, djactor.mailbox, djactor.worker, djactor.host, djactor.progress, djactor.stat,
	djactor.stat_history, djactor.stat_times TO pg_database_owner WITH GRANT OPTION;
/* pg_dump reads these sequences, too */
GRANT SELECT ON SEQUENCE djactor.actor_identity_id_seq, djactor.message_id_seq TO pg_database_owner WITH GRANT OPTION;
GRANT INSERT (actor_type, actor_key, payload, headers, priority, deliver_at, expires_at,
		idempotency_key, wants_reply, in_reply_to, trace_id, coalesce_key, coalesce_mode, coalesce_until)
	ON djactor.message TO pg_database_owner WITH GRANT OPTION;
GRANT UPDATE (state) ON djactor.actor TO pg_database_owner WITH GRANT OPTION;
GRANT DELETE ON djactor.dead_letter, djactor.reply, djactor.journal, djactor.stat_history TO pg_database_owner WITH GRANT OPTION;

REVOKE ALL ON FUNCTION djactor.define_actor_type(text, text, jsonb, int, text, int, interval, interval, text, text, interval, int, int, int, text, int, interval, interval, regrole, jsonb, boolean, boolean, interval, text, text, text, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.alter_actor_type(text, text, jsonb, int, text, int, interval, interval, text, text, interval, int, int, int, text, int, interval, interval, regrole, jsonb, boolean, boolean, interval, text, text, text, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.worker_list() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.host_list() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.progress_list() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.hosted_state(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.stat_list() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.stat_times_list() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.put_off_list() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.stat_percentile_add(internal, int[], double precision) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.stat_percentile_end(internal) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.message_sent() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.message_arrived() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.home_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.refuse_write() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION djactor.define_actor_type(text, text, jsonb, int, text, int, interval, interval, text, text, interval, int, int, int, text, int, interval, interval, regrole, jsonb, boolean, boolean, interval, text, text, text, interval) TO pg_database_owner WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION djactor.alter_actor_type(text, text, jsonb, int, text, int, interval, interval, text, text, interval, int, int, int, text, int, interval, interval, regrole, jsonb, boolean, boolean, interval, text, text, text, interval) TO pg_database_owner WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION djactor.worker_list() TO pg_database_owner WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION djactor.host_list() TO pg_database_owner WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION djactor.progress_list() TO pg_database_owner WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION djactor.hosted_state(bigint) TO pg_database_owner WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION djactor.stat_list() TO pg_database_owner WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION djactor.stat_times_list() TO pg_database_owner WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION djactor.put_off_list() TO pg_database_owner WITH GRANT OPTION;

/* ---------- pg_dump includes the users' data ---------- */

SELECT pg_catalog.pg_extension_config_dump('djactor.actor_type', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.actor', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.actor_identity', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.actor_identity_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.message', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.message_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.dead_letter', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.reply', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.timer', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.watch', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.idempotency', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.journal', '');
SELECT pg_catalog.pg_extension_config_dump('djactor.home', '');

/* ---------- without the preload nothing would ever run: warn now ---------- */

CREATE FUNCTION djactor.check_preload() RETURNS void
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dja_check_preload';
COMMENT ON FUNCTION djactor.check_preload() IS 'warns when djactor is missing from shared_preload_libraries';
REVOKE ALL ON FUNCTION djactor.check_preload() FROM PUBLIC;
SELECT djactor.check_preload();
