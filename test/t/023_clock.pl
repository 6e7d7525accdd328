# A clock that jumps. Forwards: what is due by the new clock fires, a periodic timer once, with the count of what it
# missed. Backwards: nothing is lost, nothing fires early by the new clock, other mail flows on, nobody spins.
# Section 3 points 6 and 16. The server runs under jumping_clock.c, whose clock follows a file.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
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

my $day = 86400;
my $node = new_server('clock', Init => [], autovacuum => 'off', 'djactor.poll_interval' => '1s', 'djactor.idle_timeout' => '2s');

$node->stop;
set_clock(0);
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{JUMPING_CLOCK} = $file;

	$node->start;
}

new_database($node, 'app', 'app');
as_role($node, 'app', 'app', q{
	ALTER SCHEMA public OWNER TO CURRENT_USER;
	CREATE TABLE fired (serial serial, actor_key text, name text, missed int, due_at timestamptz, at timestamptz);
	CREATE FUNCTION clock(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	DECLARE
		m djactor.message := djactor.message();
	BEGIN
		INSERT INTO fired (actor_key, name, missed, due_at, at) VALUES (m.actor_key, coalesce(m.meta->>'name', message->>'name'),
			(m.meta->>'missed')::int, coalesce((m.meta->>'due_at')::timestamptz, m.deliver_at), clock_timestamp());
		IF message ? 'set' THEN
			PERFORM djactor.set_timer('once', '1 h'), djactor.set_timer('hourly', every => '1 h');
		END IF;
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('clock', 'clock')});

sub send_now
{
	my ($name) = @_;

	as_role($node, 'app', 'app', qq{SELECT djactor.send('clock', '$name', '{"name": "$name"}')});
	return ok(wait_until("$name is handled", sub {
		$node->safe_psql('app', "SELECT count(*) FROM fired WHERE name = '$name'") eq '1' }), "$name: mail without delay flows");
}
sub set_timers
{
	my ($key) = @_;

	as_role($node, 'app', 'app', qq{
		SELECT djactor.send('clock', '$key', '{"set": true, "name": "set $key"}');
		SELECT djactor.send('clock', '$key', '{"name": "delayed"}', deliver_at => now() + interval '1 h')});
	return ok(wait_until('timers are set', sub {
		$node->safe_psql('app', "SELECT count(*) FROM djactor.timer WHERE actor_key = '$key'") eq '2' }), 'timers are set');
}
sub fired
{
	my ($key) = @_;

	return $node->safe_psql('app', qq{SELECT name, missed, count(*) FROM fired WHERE actor_key = '$key' AND name NOT LIKE 'set%' GROUP BY 1, 2 ORDER BY 1, 2});
}

my $log = -s $node->logfile;
my $clock = time;
my $server_clock = $node->safe_psql('postgres', 'SELECT extract(epoch FROM clock_timestamp())::bigint');
cmp_ok(abs($server_clock - $clock), '<', 60, 'the clock is right at first');
send_now('before');
set_timers('a');

# One day forwards, while the workers sleep
sleep 2;
set_clock($day);
$server_clock = $node->safe_psql('postgres', 'SELECT extract(epoch FROM clock_timestamp())::bigint');
cmp_ok($server_clock - time, '>', $day - 60, 'the clock of the server has jumped');
ok(wait_until('timers fire', sub { fired('a') =~ /delayed.*hourly.*once/s }), 'what is due by the new clock is handled');
is(fired('a'), "delayed||1\nhourly|23|1\nonce|0|1", 'each once, with the count of what was missed');
send_now('forwards');
is($node->safe_psql('app', q{SELECT name, due_at > clock_timestamp() FROM djactor.timer}), 'hourly|t', 'the periodic timer goes on from there');
is($node->safe_psql('app', 'SELECT count(*) FROM fired WHERE at < due_at'), '0', 'nothing was early');

# A day backwards
set_timers('b');
set_clock(0);
send_now('backwards');
send_now('still');
is(fired('b'), '', 'nothing fires early by the new clock');
is($node->safe_psql('app', q{SELECT name, due_at > clock_timestamp() + interval '1 day' FROM djactor.timer WHERE actor_key = 'b' ORDER BY 1}), "hourly|t\nonce|t", 'the timers wait for their time');

# Nobody spins: no more transactions than the polling takes, little CPU
sleep 3;
my @pids;
ok(wait_until('nobody else', sub {
	@pids = (process_ids($node, 'djactor launcher'), process_ids($node, 'djactor worker'));
	@pids == 2 }), 'a launcher and a resident');
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
my $ticks = ticks();
sleep 5;
cmp_ok(ticks() - $ticks, '<', 50, 'launcher and workers do not spin');

# Released into the mailbox by a clock that was ahead, and not handled yet, when the clock is put back
as_role($node, 'app', 'app', q{
	SELECT djactor.send('clock', 'c', '{"name": "set c"}')});
ok(wait_until('c exists', sub { $node->safe_psql('app', q{SELECT count(*) FROM djactor.actor WHERE actor_key = 'c'}) eq '1' }), 'c exists');
as_role($node, 'app', 'app', q{
	SELECT djactor.pause('clock', 'c');
	SELECT djactor.send('clock', 'c', '{"name": "released"}', deliver_at => now() + interval '6 h')});
set_clock($day / 2);
ok(wait_until('it is released', sub {
	$node->safe_psql('app', q{SELECT released FROM djactor.message WHERE actor_key = 'c'}) eq 't' }), 'a delayed message is let into its mailbox');
set_clock(0);
as_role($node, 'app', 'app', q{SELECT djactor.send('clock', 'c', '{"name": "after"}'); SELECT djactor.resume('clock', 'c')});
ok(wait_until('after', sub { fired('c') =~ /after/ }), 'mail behind it is handled');
is(fired('c'), 'after||1', 'and it is not, before its time');

# Forwards again: nothing of all that was lost, nothing fires twice
set_clock(2 * $day);
ok(wait_until('b fires', sub { fired('b') =~ /delayed.*hourly.*once/s && fired('c') =~ /released/ }), 'two days later all of it is there');
is(fired('b'), "delayed||1\nhourly|23|1\nonce|0|1", 'each once');
is(fired('c'), "after||1\nreleased||1", 'also what was let into its mailbox too early');
is($node->safe_psql('app', 'SELECT count(*) FROM fired WHERE at < due_at'), '0', 'nothing was early');
is($node->safe_psql('app', q{SELECT count(*) FROM djactor.dead_letter}), '0', 'no dead letters');
is(log_count($node, qr/PANIC|FATAL|WARNING/, $log), 0, 'and no complaints');

$node->stop;
done_testing();
