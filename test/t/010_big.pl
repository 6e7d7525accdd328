# A payload of 100 MB and a state of 50 MB go through a worker whole, and its memory afterwards is
# what it was before.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('big', 'djactor.max_workers' => 1, shared_buffers => '64MB', max_wal_size => '1GB');

new_app($node, 'app');
$node->safe_psql('app', q{
	-- text that compression does little about
	CREATE FUNCTION public.noise(megabytes int) RETURNS text LANGUAGE sql AS $$
		SELECT string_agg(md5(i::text), '') FROM generate_series(1, megabytes * 32768) i $$;
	CREATE FUNCTION public.big(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1,
			'length', length(message->>'text'), 'md5', md5(message->>'text'),
			'before', length(state->>'text'),
			'text', CASE WHEN message ? 'keep' THEN left(message->>'text', (message->>'keep')::int) ELSE state->>'text' END);
	END $$;
	SELECT djactor.define_actor_type('t.big', 'public.big', owner => 'app', handler_timeout => '5 min')});

# Anonymous memory only: pages of shared_buffers are everybody's
sub memory
{
	my ($pid) = worker_pids($node, 'app');

	return slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m ? $1 / 1024 : 0;
}

$node->safe_psql('app', q{SELECT djactor.send('t.big', 'warm', '{"text": "x"}')});
ok(wait_drained($node, 'app'), 'a small message');
my ($pid) = worker_pids($node, 'app');
my $before = memory();

my $mb = 1024 * 1024;
$node->safe_psql('app', qq{
	SELECT djactor.send('t.big', 'k', jsonb_build_object('text', noise(100), 'keep', 50 * $mb))});
ok(wait_drained($node, 'app', 180), 'a payload of 100 MB is handled');
is($node->safe_psql('app', q{
	SELECT (state->>'length')::int, state->>'md5' = md5(noise(100)), length(state->>'text'), left(state->>'text', 100) = left(noise(1), 100)
	FROM djactor.actor WHERE actor_key = 'k'}), (100 * $mb) . '|t|' . (50 * $mb) . '|t', 'it came whole, and left a state of 50 MB');
$node->safe_psql('app', q{SELECT djactor.send('t.big', 'k', '{"text": "small"}')});
ok(wait_drained($node, 'app', 180), 'a small message to that actor');
is($node->safe_psql('app', q{
	SELECT state->>'n', state->>'before', length(state->>'text'), right(state->>'text', 64) = right(left(noise(100), 50 * 1024 * 1024), 64)
	FROM djactor.actor WHERE actor_key = 'k'}), '2|' . (50 * $mb) . '|' . (50 * $mb) . '|t', 'found the state, and left it whole');
my $first = memory();

# several of them waiting: what a worker reads ahead is limited too
$node->safe_psql('app', q{
	SELECT djactor.pause('t.big');
	INSERT INTO djactor.message (actor_type, actor_key, payload)
		SELECT 't.big', 'm' || i % 3, jsonb_build_object('text', text, 'keep', 1000) FROM noise(20) text, generate_series(1, 15) i;
	SELECT djactor.resume('t.big')});
my $peak = 0;
ok(wait_until('all are handled', sub {
	my $now = memory();

	$peak = $now if $now > $peak;
	return $node->safe_psql('app', 'SELECT count(*) FROM djactor.message') eq '0';
}, 180), '15 messages of 20 MB');
is($node->safe_psql('app', q{SELECT sum((state->>'n')::int), bool_and(state->>'length' = '20971520') FROM djactor.actor WHERE actor_key LIKE 'm%'}),
	'15|t', 'all came whole');
is((worker_pids($node, 'app'))[0], $pid, 'by the same worker');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'no dead letters');
ok(wait_until('memory is given back', sub { memory() < $before + 64 }, 20), 'the worker gives the memory back');
note(sprintf 'memory of the worker: %d MB before, %d after 100 MB, at most %d seen, %d in the end', $before, $first, $peak, memory());

$node->stop;
done_testing();
