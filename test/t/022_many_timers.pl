# Timers that are to fire later cost nothing: with 100,000 of them and as many delayed messages pending the server
# runs no transaction and uses no measurable CPU; and one that is due is not kept waiting by the others.
# Section 3 point 16, section 4.5.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('timers',
	autovacuum => 'off',
	fsync => 'off',
	'djactor.idle_timeout' => '1s',
	'djactor.poll_interval' => '1h');

new_database($node, 'app', 'app');
as_role($node, 'app', 'app', q{
	ALTER SCHEMA public OWNER TO CURRENT_USER;
	CREATE FUNCTION clock(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF (djactor.message()).kind = 'timer' THEN
			RETURN jsonb_build_object('fired', (djactor.message()).meta->'name');
		END IF;
		PERFORM djactor.set_timer('n' || n, (message->>'after')::interval, every => (message->>'every')::interval)
		FROM generate_series(1, (message->>'n')::int) n;
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('clock', 'clock');
	INSERT INTO djactor.message (actor_type, actor_key, payload)
	SELECT 'clock', 'k' || i, '{"n": 100, "after": "1 h", "every": "1 h"}' FROM generate_series(1, 1000) i;
	INSERT INTO djactor.message (actor_type, actor_key, deliver_at)
	SELECT 'clock', 'k' || i, now() + interval '2 h' FROM generate_series(1, 100000) i});
ok(wait_until('all timers are set', sub {
	$node->safe_psql('app', 'SELECT count(*) FROM djactor.timer') eq '100000' }, 180), '100,000 timers');
is($node->safe_psql('app', q{SELECT kind, count(*) FROM djactor.message GROUP BY 1 ORDER BY 1}),
	"timer|100000\nuser|100000", 'their firings and 100,000 delayed messages wait');
my @pids;
ok(wait_until('nobody else', sub {
	@pids = (process_ids($node, 'djactor launcher'), process_ids($node, 'djactor worker'));
	@pids == 2 }), 'a launcher and a resident');
ok(wait_written($node, 'app'), 'the history is written');
sleep 4;

sub ticks
{
	my $sum = 0;

	for my $pid (@pids)
	{
		my @fields = split ' ', slurp_file("/proc/$pid/stat") =~ s/^.*\) //r;

		$sum += $fields[11] + $fields[12];
	}
	return $sum;
}
sub transactions
{
	return $node->safe_psql('postgres',
		q{SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = 'app'});
}

my ($ticks, $transactions) = (ticks(), transactions());
sleep 6;
is(transactions(), $transactions, 'no transaction within six seconds');
cmp_ok(ticks() - $ticks, '<=', 1, 'no measurable CPU of launcher and workers');

# One that is due: it fires, and handling it does not look at the others.
$ticks = ticks();
as_role($node, 'app', 'app', q{SELECT djactor.send('clock', 'soon', '{"n": 1, "after": "10 ms"}')});
ok(wait_until('it fires', sub {
	$node->safe_psql('app', q{SELECT state->>'fired' FROM djactor.actor WHERE actor_key = 'soon'}) eq 'n1' }), 'a timer that is due fires');
cmp_ok(ticks() - $ticks, '<=', 5, 'at no measurable cost');

$node->stop;
done_testing();
