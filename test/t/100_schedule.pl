# Schedules by workers: the days on which the clock is changed, on a server whose clock jumps there; a clock that was a year
# ahead and is put right, which the alarm of docs/operations.md finds and schedule() repairs; workers killed with SIGKILL over
# firings, and a standby that takes over in the midst of them: each firing counts once.
# Contract point 16.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $library = PostgreSQL::Test::Utils::tempdir_short() . '/jumping_clock.so';

system('cc', '-shared', '-fPIC', '-o', $library, "$FindBin::RealBin/jumping_clock.c", '-ldl') == 0
  or plan skip_all => 'there is no C compiler';

my $file = PostgreSQL::Test::Utils::tempdir_short() . '/clock';

# set_clock($offset): seconds from the real time, with sign
sub set_clock
{
	my ($offset) = @_;

	open my $out, '>', "$file.new" or die "$file: $!";
	printf $out "%+d\n", $offset;
	close $out;
	chmod 0644, "$file.new";
	rename "$file.new", $file;
}

my $define = q{
	CREATE TABLE fired (serial serial, actor_key text, name text, missed int, due_at timestamptz, at timestamptz, turn bigint);
	CREATE FUNCTION fire(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	DECLARE
		m djactor.message := djactor.message();
	BEGIN
		PERFORM pg_sleep((message->>'sleep')::float8);
		INSERT INTO fired (actor_key, name, missed, due_at, at, turn) VALUES (m.actor_key, m.meta->>'name',
			(m.meta->>'missed')::int, (m.meta->>'due_at')::timestamptz, clock_timestamp(), (djactor.self()).turns);
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('fire', 'fire', settings => '{"TimeZone": "Europe/Berlin"}')};

#
# A clock that jumps
#
my $node = new_server('clock', Init => [], autovacuum => 'off', 'djactor.poll_interval' => '1s', 'djactor.idle_timeout' => '2s');

$node->stop;

# the night from 25 to 26 March 2034, and 28 January before it
my $january = `TZ=Europe/Berlin date -d '2034-01-30 08:00' +%s`;
my @steps = ([ '2034-01-31 09:00', 'Jan' ], [ '2034-02-28 09:00', 'Feb' ], [ '2034-03-25 02:30', 'the night before' ],
	[ '2034-03-26 03:00', 'the change' ], [ '2034-03-27 02:30', 'the night after' ], [ '2034-03-31 09:00', 'Mar' ]);

set_clock($january - time);
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{JUMPING_CLOCK} = $file;

	$node->start;
}
new_database($node, 'app', 'app');
as_role($node, 'app', 'app', "ALTER SCHEMA public OWNER TO CURRENT_USER; $define");
as_role($node, 'app', 'app', q{
	SET TimeZone = 'Europe/Berlin';
	SELECT djactor.schedule('fire', 'm', 'monthly', at => '2034-01-31 09:00', every => '1 mon'),
		djactor.schedule('fire', 'd', 'daily', at => '2034-03-25 02:30', every => '1 day'),
		djactor.schedule('fire', 'c', 'cron', cron => '30 2 25-31 3 *')});

for my $step (@steps)
{
	my ($wall, $name) = @$step;
	my $moment = `TZ=Europe/Berlin date -d '$wall' +%s`;

	set_clock($moment + 1 - time);
	ok(wait_until($name, sub { $node->safe_psql('app', "SELECT count(*) FROM fired WHERE due_at = to_timestamp($moment)") > 0 }), "$name: it fires at $wall");
}
my $shown = q{SELECT string_agg(to_char(due_at AT TIME ZONE 'Europe/Berlin', 'MM-DD HH24:MI'), ', ' ORDER BY serial) FROM fired WHERE };
ok(wait_until('all', sub { $node->safe_psql('app', 'SELECT count(*) FROM fired') >= 11 }), 'all have fired');
is($node->safe_psql('app', "$shown name = 'monthly'"), '01-31 09:00, 02-28 09:00, 03-31 09:00', 'the 31st comes back after February');
like($node->safe_psql('app', "$shown name = 'daily'"), qr/^03-25 02:30, 03-26 03:00, 03-27 02:30, 03-28 02:30/, 'half past two comes back after the change');
like($node->safe_psql('app', "$shown name = 'cron'"), qr/^03-25 02:30, 03-26 03:00, 03-27 02:30, 03-28 02:30/, '... by cron, too');
is($node->safe_psql('app', 'SELECT count(*) FROM fired WHERE at < due_at'), '0', 'nothing was early');

# The clock was a year ahead, and is put right
my $page = slurp_file("$FindBin::RealBin/../../docs/operations.md");
my ($alarm) = $page =~ /(SELECT 'clock'[^;]*;)/s or die 'no alarm for the clock';
my $now = $january + 100 * 86400;
my $year = 365 * 86400;

set_clock($now - time);
as_role($node, 'app', 'app', q{SELECT djactor.unschedule('fire', actor_key, name) FROM djactor.timer});
ok(wait_until('quiet', sub { $node->safe_psql('app', 'SELECT count(*) FROM djactor.message') eq '0' }), 'quiet');
is(as_role($node, 'app', 'app', $alarm), '', 'no alarm');
set_clock($now + $year - time);
my $schedules = q{
	SELECT djactor.schedule('fire', 'a', 'hourly', every => '1 h') > clock_timestamp(), djactor.schedule('fire', 'a', 'cron', cron => '@hourly') > clock_timestamp()};
as_role($node, 'app', 'app', $schedules);
set_clock($now - time);
my $ahead = q{SELECT count(*) FROM djactor.timer WHERE due_at > clock_timestamp() + interval '2 h'};
is($node->safe_psql('app', $ahead), '2', 'timers sleep for a year');
like(as_role($node, 'app', 'app', $alarm), qr/clock/, 'the alarm says so');
as_role($node, 'app', 'app', $schedules);
is($node->safe_psql('app', $ahead), '0', 'schedule() repairs them');
is(as_role($node, 'app', 'app', $alarm), '', '... and the alarm is over');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), '2', 'nothing else waits');
$node->stop;

#
# Killed over firings, and failed over
#
my $one = new_server('one', Init => [ allows_streaming => 1 ], 'djactor.max_workers' => 2, 'djactor.max_crashes' => 1000);

new_database($one, 'app', 'app');
as_role($one, 'app', 'app', "ALTER SCHEMA public OWNER TO CURRENT_USER; $define");
$one->backup('base');
my $two = PostgreSQL::Test::Cluster->new('two');
$two->init_from_backup($one, 'base', has_streaming => 1);
$two->start;
$one->append_conf('postgresql.conf', "synchronous_standby_names = 'two'\n");
$one->reload;
ok(wait_until('synchronous', sub { $one->safe_psql('postgres', 'SELECT sync_state FROM pg_stat_replication') eq 'sync' }), 'a synchronous standby');
as_role($one, 'app', 'app', q{
	SELECT djactor.schedule('fire', 'k' || i, 'often', every => '200 ms', payload => '{"sleep": 0.05}') > now() FROM generate_series(1, 5) i});
for my $round (1 .. 8)
{
	my $pid = wait_until('a busy worker', sub {
		return $one->safe_psql('app', q{SELECT pid FROM djactor.worker WHERE message_id IS NOT NULL LIMIT 1}) || undef });

	last unless $pid;
	# The pid was of this server's worker a moment ago
	kill 'KILL', $pid;
	sleep rand 0.4;
}
ok(wait_until('it goes on', sub { $one->safe_psql('app', 'SELECT count(*) FROM fired') > 20 }), 'workers are killed over firings, and it goes on');
my $before = $one->safe_psql('app', 'SELECT count(*) FROM fired');
ok(wait_until('a worker is busy', sub { $one->safe_psql('app', q{SELECT count(*) FROM djactor.worker WHERE message_id IS NOT NULL}) > 0 }), 'in the midst of a firing');
$one->stop('immediate');
$two->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
$two->promote;
ok(wait_until('it goes on', sub { $two->safe_psql('app', 'SELECT count(*) FROM fired') > $before + 20 }), 'the standby goes on');
as_role($two, 'app', 'app', q{SELECT djactor.unschedule('fire', actor_key, name) FROM djactor.timer});
ok(wait_drained($two, 'app'), 'all mail is handled');
is($two->safe_psql('app', 'SELECT count(*) - count(DISTINCT (actor_key, due_at)) FROM fired'), '0', 'no firing counts twice');
is($two->safe_psql('app', q{
	SELECT count(*) FROM (SELECT due_at, missed, lead(due_at) OVER (PARTITION BY actor_key ORDER BY serial) AS next FROM fired) f
	WHERE next <> due_at + (missed + 1) * interval '200 ms'}), '0', 'none is lost: what was missed is counted');
is($two->safe_psql('app', 'SELECT count(*) FROM fired WHERE at < due_at'), '0', 'none was early');
is($two->safe_psql('app', q{SELECT sum(turns) FROM djactor.actor}), $two->safe_psql('app', 'SELECT count(*) FROM fired'), 'each was one turn');
is($two->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), '0', 'no dead letters');
$two->stop;
done_testing();
