# A worker is a good citizen of the server: what others see of it, what settings of its role do to it, and what it costs them.
#
# - Time limits that ALTER ROLE sets reach workers, and do no harm; nor does exit_on_error.
# - pg_stat_activity says what runs; functions, tables and transactions are counted as for any session.
# - The error of a turn says which actor and message it was.
# - Turns under savepoints share a transaction only as long as the server can keep track of them cheaply.
# - A worker's memory does not grow with the turns that fail.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('session', 'djactor.poll_interval' => '1h', 'djactor.max_workers' => 1, track_functions => 'all',
	track_commit_timestamp => 'on', autovacuum => 'off');

$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');
for my $setting ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
	split /\n/, $node->safe_psql('postgres', q{SELECT name FROM pg_settings WHERE name = 'transaction_timeout'}))
{
	$node->safe_psql('postgres', "ALTER ROLE app SET $setting = '5ms'");
}
$node->safe_psql('postgres', 'ALTER ROLE app SET exit_on_error = on');

# A superuser's sessions have none of it.
sub app { return $node->safe_psql('app', "SET ROLE app; $_[0]") }

$node->safe_psql('postgres', 'CREATE DATABASE app OWNER app');
app(q{
	CREATE EXTENSION djactor;
	CREATE SCHEMA own;
	CREATE TABLE own.turns (xid xid8, key text);
	CREATE TABLE own.bed AS SELECT false AS awake;
	CREATE FUNCTION own.note(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'fail' THEN
			RAISE EXCEPTION 'it fails';
		END IF;
		LOCK TABLE own.turns IN ROW EXCLUSIVE MODE;
		PERFORM pg_sleep((message->>'sleep')::float8);
		WHILE message ? 'nap' AND NOT (SELECT awake FROM own.bed) LOOP
			PERFORM pg_sleep(0.05);
		END LOOP;
		INSERT INTO own.turns VALUES (pg_current_xact_id(), (djactor.self()).actor_key);
		RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1);
	END $$;
	SELECT djactor.define_actor_type('t.note', 'own.note', max_attempts => 1, breaker_failures => NULL)});

my $pid = wait_until('a worker', sub { (worker_pids($node, 'app'))[0] });

#
# Limits
#
app(q{SELECT djactor.send('t.note', 'slow', '{"sleep": 0.3}')});
ok(wait_drained($node, 'app'), 'a turn may last longer than the limits of its role');
my $lock = session($node, 'app');
$lock->query('BEGIN; LOCK TABLE own.turns');
app(q{SELECT djactor.send('t.note', 'locked')});
ok(wait_until('retries', sub { $node->safe_psql('app', 'SELECT retry_at IS NOT NULL FROM djactor.message') eq 't' }), 'lock_timeout ends its wait for a lock');
sleep 0.5;
is($node->safe_psql('app', 'SELECT count(*), max(attempts), max(crashes) FROM djactor.message'), '1|0|0', '... nobody is charged');
$lock->query('COMMIT');
ok(wait_drained($node, 'app'), '... and it is handled when the lock is free');
app(q{SELECT djactor.send('t.note', 'failing', '{"fail": true}')});
ok(wait_drained($node, 'app'), 'a turn that fails');
is($node->safe_psql('app', 'SELECT reason FROM djactor.dead_letter'), 'failed', '... is given up as such');
like($node->safe_psql('app', 'SELECT context FROM djactor.dead_letter'), qr/PL\/pgSQL function own\.note.*\nactor t\.note "failing", message \d+$/,
	'... and its context says whose it was');
sleep 1.5;
is(join(' ', worker_pids($node, 'app')), $pid, 'the worker is the same through all that');

#
# What others see
#
my $activity = q{SELECT datname, usename, application_name, state, query FROM pg_stat_activity WHERE backend_type = 'djactor worker'};
like($node->safe_psql('app', $activity), qr/^app\|app\|djactor worker\|idle\|/, 'an idle worker is seen as idle');
app(q{SELECT djactor.send('t.note', 'seen', '{"nap": true}')});
ok(wait_until('work', sub { $node->safe_psql('app', "$activity AND wait_event = 'PgSleep'") =~ /^app\|app\|djactor worker\|active\|djactor: t\.note$/ }),
	'a busy one by what it runs');
is($node->safe_psql('app', q{SELECT now() - query_start < '1 min' AND now() - xact_start < '1 min' FROM pg_stat_activity WHERE backend_type = 'djactor worker'}), 't',
	'... and since when');
app('UPDATE own.bed SET awake = true');
ok(wait_drained($node, 'app'), '... until it is done');

my %count = (
	functions => q{SELECT calls FROM pg_stat_user_functions WHERE funcname = 'note'},
	rows => q{SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'turns'},
	'handled messages' => q{SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'message'},
	'actors\' turns' => q{SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'actor'});
my %before;
sub counted { return $node->safe_psql('app', $count{ $_[0] }) }
ok(wait_until('statistics', sub { counted('functions') == 3 }), 'calls that came to an end are counted');
$before{$_} = counted($_) for keys %count;
app(q{SELECT djactor.send('t.note', 'slow') FROM generate_series(1, 100)});
ok(wait_drained($node, 'app'), 'a hundred turns');
ok(wait_until('statistics', sub { counted('functions') >= $before{functions} + 100 }), 'the server counts the calls of the handler');
# a kind of counter that somebody looks at is passed over, and added to the next time
wait_until($_, sub { counted($_) >= $before{$_} + 100 }) for 'rows', 'handled messages';
is(counted('functions') - $before{functions}, 100, '... each once');
is(counted('rows') - $before{rows}, 100, '... what they inserted');
is(counted('handled messages') - $before{'handled messages'}, 100, '... what was removed');
cmp_ok(counted('actors\' turns') - $before{'actors\' turns'}, '>=', 1, '... and updated');

#
# Savepoints; on a busy machine, too, the one that fails has others before it in its batch
#
$node->append_conf('postgresql.conf', "djactor.batch_time = '1min'\n");
$node->reload;
app(q{
	TRUNCATE own.turns;
	SELECT djactor.pause('t.note');
	SELECT djactor.send('t.note', (i % 10)::text, CASE WHEN i = 3 THEN '{"fail": true}' ELSE '{}' END::jsonb) FROM generate_series(1, 1000) i;
	SELECT djactor.resume('t.note')});
ok(wait_drained($node, 'app'), 'messages beside one that failed');
# what a subtransaction has written bears its number; a batch that met no failure has none, and may be larger
my $most = $node->safe_psql('app', q{SELECT max(n) FROM (SELECT count(DISTINCT xmin::text) AS n FROM own.turns WHERE xmin::text <> xid::text GROUP BY xid) x});
cmp_ok($most, '<=', 64, 'a transaction has no more subtransactions than the server keeps in shared memory');
cmp_ok($most, '>', 10, '... though many');
is($node->safe_psql('app', 'SELECT count(*) FROM own.turns'), 999, '... and none of them is lost');
$node->append_conf('postgresql.conf', "djactor.batch_time = '10ms'\n");
$node->reload;

#
# Memory
#
# What its memory contexts use, in kB: what malloc() keeps for later goes up and down.
sub memory
{
	my $offset = -s $node->logfile;
	my $used;

	$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($pid)");
	wait_until('the sum', sub { ($used) = slurp_file($node->logfile, $offset) =~ /Grand total: .* (\d+) used$/m; defined $used });
	return int($used / 1024);
}
my @memory;
for (1 .. 6)
{
	app(q{SELECT djactor.send('t.note', (i % 10)::text, '{"fail": true}') FROM generate_series(1, 2000) i});
	wait_drained($node, 'app') or die '2,000 turns do not fail';
	wait_until('idle', sub { $node->safe_psql('app', $activity) =~ /\|idle\|/ }); # what its last batch took it gives back after the commit
	push @memory, memory();
}
note("memory in kB: @memory");
cmp_ok($memory[5] - $memory[2], '<', 100, 'a worker takes no more memory after twice as many failed turns');
is(join(' ', worker_pids($node, 'app')), $pid, '... and is the same');
is(log_count($node, qr/FATAL|PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');

$node->stop;
done_testing();
