# Parallel query: workers of the server's own that load djactor, too.
#
# Everything that may run in parallel does so here, and the leader takes no part in it where it need not.
#
# - A parallel query over djactor's tables, with the hash functions of their indexes, sees what a plain one
#   sees; so do REINDEX and VACUUM in parallel.
# - What depends on the turn, or on the transaction, is the leader's business: it is right in a parallel query.
# - A handler's queries may be parallel; an error in a parallel worker is the message's failure, and the handler's
#   time limit ends them.
# - A parallel SELECT may send, and drain() works.
# - DROP DATABASE does not wait for a handler that runs a parallel query.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('parallel',
	max_worker_processes => 20,
	max_parallel_workers => 12,
	max_parallel_workers_per_gather => 2,
	max_parallel_maintenance_workers => 2,
	min_parallel_table_scan_size => 0,
	min_parallel_index_scan_size => 0,
	parallel_setup_cost => 0,
	parallel_tuple_cost => 0,
	parallel_leader_participation => 'off',
	'djactor.poll_interval' => '1h');
my ($forced) = split /\n/, $node->safe_psql('postgres',
	q{SELECT name FROM pg_settings WHERE name IN ('debug_parallel_query', 'force_parallel_mode')});

$node->append_conf('postgresql.conf', "$forced = on");
$node->restart;
new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE big AS SELECT i, md5(i::text) AS word FROM generate_series(1, 5000) i;
	CREATE INDEX ON big (i);
	ANALYZE big;
	CREATE FUNCTION workers_launched(query text) RETURNS int LANGUAGE plpgsql AS $$
	DECLARE
		plan json;
	BEGIN
		EXECUTE 'EXPLAIN (ANALYZE, FORMAT json) ' || query INTO plan;
		RETURN sum(n::int) FROM regexp_matches(plan::text, '"Workers Launched": (\d+)', 'g') m, unnest(m) n;
	END $$;
	-- the process that a function runs in; raises, or sleeps, in parallel workers only
	CREATE FUNCTION in_worker() RETURNS boolean LANGUAGE sql PARALLEL SAFE AS
		$$ SELECT backend_type = 'parallel worker' FROM pg_stat_activity WHERE pid = pg_backend_pid() $$;
	CREATE FUNCTION misbehave(how text) RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS $$
	BEGIN
		IF how = 'raise' AND in_worker() THEN
			RAISE EXCEPTION 'a parallel worker fails' USING ERRCODE = 'JA099';
		ELSIF how = 'sleep' AND in_worker() THEN
			PERFORM pg_sleep(600);
		END IF;
		RETURN true;
	END $$;
	CREATE FUNCTION parallel(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
	DECLARE
		n int;
		own int;
	BEGIN
		-- PL/pgSQL runs no SELECT INTO in parallel
		EXECUTE 'SELECT count(*) FROM big WHERE word LIKE ''%0%'' AND misbehave($1)' INTO n USING message->>'how';
		EXECUTE 'SELECT count(*) FROM big WHERE (djactor.self()).actor_key = ''a'' AND (djactor.message()).kind = ''user''
			AND djactor.now() IS NOT NULL AND djactor.current_sender_key() = ''a''
			AND djactor.current_cause() = (djactor.message()).id AND djactor.current_trace() = (djactor.message()).trace_id' INTO own;
		state := jsonb_build_object('n', n, 'own', own, 'workers',
			workers_launched('SELECT count(*) FROM big WHERE word LIKE ''%0%'''));
		RETURN (state, state);
	END $$;
});

# limit($time): for the handler
sub limit
{
	as_role($node, 'app', 'app', "SELECT djactor.define_actor_type('t.parallel', 'parallel', max_attempts => 1, handler_timeout => '$_[0]')");
}
limit('1 min');

my $n = $node->safe_psql('app', q{SELECT count(*) FROM big WHERE word LIKE '%0%'});

#
# Tables and functions
#
as_role($node, 'app', 'app', q{SELECT djactor.pause('t.work'); SELECT post(1, 1, 2000, 't.work', 100)});

# positions($condition): the count of k7's messages and the sum of their positions.
sub positions
{
	return $node->safe_psql('app', qq{
		SELECT count(*), sum(djactor.mailbox_position(priority, id)) FROM djactor.message WHERE $_[0]});
}

cmp_ok($node->safe_psql('app', q{SELECT workers_launched('SELECT count(djactor.name_hash(actor_key)) FROM djactor.message')}),
	'>', 0, 'the hash functions run in parallel workers');
is(positions(q{djactor.name_hash(actor_key) = djactor.name_hash('k7')}), positions(q{actor_key = 'k7'}),
	'with the same results');
my (undef, undef, $stderr) = $node->psql('app', q{
	SET client_min_messages = debug1; VACUUM (PARALLEL 2) djactor.message; REINDEX INDEX djactor.message_mailbox});
like($stderr, qr/building index "message_mailbox" .* with request for \d parallel worker/, 'the mailbox index is built in parallel');
as_role($node, 'app', 'app', q{SELECT djactor.resume('t.work')});
ok(wait_drained($node, 'app'), 'and what waits is found in it');
is($node->safe_psql('app', q{
	SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc
	WHERE pronamespace = 'djactor'::regnamespace AND proparallel = 's'}), 'cron_next every_next mailbox_position name_hash result stat_percentile stat_percentile_add stat_percentile_end',
	'only what depends on nothing but its arguments is parallel safe');

#
# Handlers
#
sub ask
{
	my ($payload) = @_;
	my (undef, $stdout, $stderr) = $node->psql('app', qq{CALL djactor.ask('t.parallel', 'a', '$payload', '30 s')},
		extra_params => [ '-U', 'app' ]);

	return $stdout . $stderr;
}

is(ask('{}'), qq/{"n": $n, "own": 5000, "workers": 2}/, 'a handler\'s queries are parallel, and its turn is known in them');
like(ask('{"how": "raise"}'), qr/"a parallel worker fails", "reason": "failed", "sqlstate": "JA099"/,
	'an error in a parallel worker is the message\'s failure');
limit('1 s');
my $start = time;
like(ask('{"how": "sleep"}'), qr/"reason": "failed", "sqlstate": "57014"/, 'the time limit ends parallel workers');
cmp_ok(time - $start, '<', 30, 'when it is over');
is($node->safe_psql('app', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'
	AND query NOT LIKE '%pg_stat_activity%'}), 0, 'and none is left behind');
limit('1 min');
like(ask('{}'), qr/"n": $n/, 'the actor goes on');

#
# Sending and draining
#
as_role($node, 'app', 'app', q{
	INSERT INTO sent SELECT 2, i, 't.work', 'k' || i % 50 FROM big;
	INSERT INTO djactor.message (actor_type, actor_key, payload)
		SELECT 't.work', 'k' || i % 50, jsonb_build_object('sender', 2, 'seq', i) FROM big ORDER BY i});
ok(wait_drained($node, 'app'), 'what a parallel SELECT sends is handled');
is(as_role($node, 'app', 'app', q{
	BEGIN;
	SELECT djactor.send('t.parallel', 'a');
	SELECT 'drained ' || djactor.drain();
	SELECT state FROM djactor.actor WHERE actor_key = 'a' AND actor_type = 't.parallel';
	COMMIT}) =~ s/^\d+\n//r, qq/drained 1\n{"n": $n, "own": 5000, "workers": 2}/, 'drain() runs parallel queries, too');
as_role($node, 'app', 'app', q{SELECT djactor.drop_actor_type('t.parallel', true)});
check_ledger($node, 'app');

#
# Leaving
#
as_role($node, 'app', 'app', q{SELECT djactor.define_actor_type('t.parallel', 'parallel', handler_timeout => '0');
	SELECT djactor.send('t.parallel', 'a', '{"how": "sleep"}')});
ok(wait_until('parallel workers sleep', sub {
	$node->safe_psql('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity
		WHERE backend_type = 'parallel worker' AND wait_event = 'PgSleep'}) eq 't' }), 'a handler waits for parallel workers');
$start = time;
as_role($node, 'postgres', 'app', 'DROP DATABASE app');
note(sprintf 'DROP DATABASE took %.0f ms', 1000 * (time - $start));
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'app'}), 0,
	'DROP DATABASE ends worker and parallel workers');
is(log_count($node, qr/PANIC|TRAP|terminated by signal/), 0, 'nothing has crashed');

$node->stop;
done_testing();
