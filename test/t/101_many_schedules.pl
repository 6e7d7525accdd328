# Schedules that are to fire later cost nothing: with 100,000 of them the server runs no transaction and uses no measurable
# CPU; sending is no slower than without; and a long outage of one that comes each minute is counted at once.
# Contract point 16.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('schedules',
	autovacuum => 'off',
	fsync => 'off',
	'djactor.idle_timeout' => '1s',
	'djactor.poll_interval' => '1h');

new_database($node, 'app', 'app');
as_role($node, 'app', 'app', q{
	ALTER SCHEMA public OWNER TO CURRENT_USER;
	CREATE TABLE missed (n int);
	CREATE FUNCTION report(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF (djactor.message()).kind = 'timer' THEN
			INSERT INTO missed VALUES (((djactor.message()).meta->>'missed')::int);
		ELSE
			PERFORM djactor.set_timer('minutely', cron => '* * * * *');
		END IF;
	END $$;
	SELECT djactor.define_actor_type('report', 'report'), djactor.define_actor_type('other', 'report')});

# sending($n): so many messages in one statement, to a type that is paused; seconds
sub sending
{
	my ($n) = @_;
	my $best;

	as_role($node, 'app', 'app', q{SELECT djactor.pause('report')});
	for (1 .. 3)
	{
		my $begin = time;

		as_role($node, 'app', 'app', "INSERT INTO djactor.message (actor_type, actor_key) SELECT 'report', 'k' || i FROM generate_series(1, $n) i");
		my $took = time - $begin;

		$best = $took if !defined $best || $took < $best;
		as_role($node, 'app', 'app', q{SELECT count(djactor.cancel(id)) FROM djactor.message WHERE kind = 'user'});
	}
	as_role($node, 'app', 'app', q{SELECT djactor.resume('report')});
	return $best;
}

my $without = sending(2000);

as_role($node, 'app', 'app', q{
	SELECT count(djactor.schedule('report', 'k' || i, 'daily', cron => '0 2 1 1 *', time_zone => 'Europe/Berlin')) FROM generate_series(1, 50000) i;
	SELECT count(djactor.schedule('report', 'k' || i, 'monthly', every => '1 mon')) FROM generate_series(1, 50000) i});
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.timer'), '100000', '100,000 schedules');
cmp_ok(sending(2000), '<', 3 * $without + 0.5, 'sending is not slower for that');

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

# Each minute, missed for ten years
my $begin = time;
is(as_role($node, 'app', 'app', q{
	BEGIN;
	INSERT INTO djactor.message (actor_type, actor_key, deliver_at) VALUES ('other', 'k', '2100-01-01 00:00:30+00');
	INSERT INTO djactor.message (actor_type, actor_key, deliver_at, priority) VALUES ('other', 'k', '2100-01-01 00:00:30+00', -1);
	SELECT djactor.pause('report');
	SELECT djactor.drain(max => 1, until => '2100-01-01 00:00:30+00');
	SELECT djactor.pause('other');
	CREATE FUNCTION later(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM djactor.resume('other'); END $$;
	SELECT djactor.define_actor_type('helper', 'later');
	INSERT INTO djactor.message (actor_type, actor_key, deliver_at) VALUES ('helper', 'k', '2110-01-01 00:00:30+00');
	SELECT count(*) FROM missed;
	SELECT djactor.drain(max => 3, until => '2110-01-01 00:00:30+00');
	SELECT 'missed ' || max(n) FROM missed;
	ROLLBACK}) =~ /missed (\d+)/ && $1, 3652 * 1440 - 1, 'ten years of minutes are counted');
cmp_ok(time - $begin, '<', 20, '... in no time');

$node->stop;
done_testing();
