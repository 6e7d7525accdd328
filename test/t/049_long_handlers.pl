# A handler that takes long holds up its own actor, and nothing else that another process could do.
#
# - Delays, timers, retries and mail of other actors of the same owner are seen to, although the worker that is there for them
#   (the resident) is the one in the long handler.
# - When the resident ends while the other worker of its pool is in a long handler, another one comes.
# - A type that was paused goes on with resume(), although a worker that has seen it paused is in a long handler.
# - A database goes short no longer than it takes an idle worker of another one to end. For one that has nobody, one is asked to go.
# - Types whose mail falls due all the time do not keep those of other types waiting.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep time);

# So long the handlers take that nobody should wait for: what takes half of it has not waited.
my $long = 60;
# Two workers: one is in the long handler, the other has all else to do, however slow it is
my $node = new_server('long', 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', 'djactor.idle_timeout' => '1h', fsync => 'off');

# The pids of workers of app, the resident's first.
sub workers_of_app
{
	return split /\n/, $node->safe_psql('app', 'SELECT pid FROM djactor.worker WHERE pid IS NOT NULL ORDER BY resident DESC, pid');
}

sub runs
{
	my ($key) = @_;

	return wait_until("$key runs", sub { $node->safe_psql('app', qq{
		SELECT resident, message_id IS NOT NULL FROM djactor.worker w JOIN djactor.message m ON m.id = w.message_id WHERE m.actor_key = '$key'}) });
}

# How long it takes until there is an actor of that key, since then.
sub handled_after
{
	my ($key, $since, $database) = @_;

	wait_until("$key is handled", sub { $node->safe_psql($database // 'app', qq{SELECT count(*) FROM djactor.actor WHERE actor_key = '$key'}) ne '0' });
	return time - $since;
}

# ends what still runs
sub end_long
{
	$node->safe_psql('app', q{SELECT djactor.pause('t.long')});
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'djactor worker' AND wait_event = 'PgSleep'});
	$node->safe_psql('app', q{SELECT djactor.drop_actor_type('t.long', discard => true)});
}

new_app($node, 'app');
define_work($node, 'app', 'app', 't.long', "handler_timeout => '0'");

#
# The resident in a long handler
#
ok(wait_until('a resident', sub { $node->safe_psql('app', 'SELECT count(*) FROM djactor.worker WHERE resident') eq '1' }), 'a resident');
as_role($node, 'app', 'app', qq{SELECT djactor.send('t.long', 'long', '{"sleep": $long}')});
like(runs('long'), qr/^t/, 'it is in a long handler');
my $start = time;
as_role($node, 'app', 'app', q{
	SELECT djactor.send('t.work', 'at once');
	SELECT djactor.send('t.work', 'delayed', deliver_at => now() + interval '1 s');
	SELECT djactor.send('t.work', 'retried', '{"fail": 1}')});
cmp_ok(handled_after($_, $start), '<', $long / 2, "mail of another actor: $_") for 'at once', 'delayed', 'retried';
my @workers = workers_of_app();
is(scalar @workers, 2, 'another worker has come');
like($node->safe_psql('app', q{SELECT resident FROM djactor.worker w JOIN djactor.message m ON m.id = w.message_id}), qr/^f/, '... and has relieved it');
my $first = $workers[1];

#
# Nobody is the resident, and the other one is in a long handler
#
$node->safe_psql('postgres', "SELECT pg_terminate_backend($workers[0])");
$start = time;
as_role($node, 'app', 'app', q{SELECT djactor.send('t.work', 'without resident')});
cmp_ok(handled_after('without resident', $start), '<', $long / 2, 'the resident has gone: another one comes');
ok((grep { $_ == $first } workers_of_app()), '... beside the one in the long handler');
end_long();
ok(wait_drained($node, 'app'), 'nothing is left');

#
# What another worker has to leave to the resident
#
define_work($node, 'app', 'app', 't.long', "handler_timeout => '0'");
define_work($node, 'app', 'app', 't.paused');
as_role($node, 'app', 'app', q{SELECT djactor.send('t.work', 'busy', '{"sleep": 3}')});
runs('busy');
as_role($node, 'app', 'app', qq{
	BEGIN; SELECT djactor.pause('t.paused'); SELECT djactor.send('t.long', 'long 2', '{"sleep": 6}'); SELECT djactor.send('t.paused', 'paused'); COMMIT});
runs('long 2');
ok(wait_until('it is over', sub { $node->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_key = 'busy'}) eq '0' }), 'one is idle again');
as_role($node, 'app', 'app', q{SELECT djactor.resume('t.paused')});
wait_until('it is over', sub { $node->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_key = 'long 2'}) eq '0' });
$start = time;
cmp_ok(handled_after('paused', $start), '<', $long / 2, 'resumed while the other worker was in a long handler: handled');

#
# All places taken
#
$node->restart;
new_app($node, $_) for 'other', 'third';
as_role($node, 'app', 'app', qq{SELECT djactor.send('t.long', 'long', '{"sleep": $long}')});
runs('long');
sleep 1;						# it has had its share
as_role($node, 'other', 'app', q{SELECT djactor.send('t.work', 'k' || g % 3, '{"sleep": 0.1}') FROM generate_series(1, 20) g});
wait_until('other works', sub { $node->safe_psql('other', q{SELECT count(*) FROM djactor.actor}) ne '0' });
$start = time;
as_role($node, 'third', 'app', q{SELECT djactor.send('t.work', 'third')});
cmp_ok(handled_after('third', $start, 'third'), '<', $long / 2, 'a third database is served while one of two workers is in a long handler');

# One worker of app is in the long handler and stays there; it gets another one, whose owner does nothing, and gives it back
sleep 1;
$start = time;
as_role($node, 'app', 'app', q{SELECT djactor.send('t.work', 'beside')});
cmp_ok(handled_after('beside', $start), '<', $long / 2, 'another actor gets a worker that is idle in another database');
as_role($node, 'app', 'app', q{SELECT djactor.send('t.work', 'k' || g % 3, '{"sleep": 0.1}') FROM generate_series(1, 50) g});
sleep 1;
$start = time;
as_role($node, 'third', 'app', q{SELECT djactor.send('t.work', 'again')});
cmp_ok(handled_after('again', $start, 'third'), '<', $long / 4, '... but does not keep it from the others');
end_long();

# All places are those of idle workers
wait_drained($node, 'app');
$node->append_conf('postgresql.conf', "djactor.max_workers = 3\n");
$node->restart;
ok(wait_until('three workers', sub { process_ids($node, 'djactor worker') == 3 }), 'three databases, three workers');
sleep 1;
my @before = process_ids($node, 'djactor worker');
new_app($node, 'fourth');
$start = time;
as_role($node, 'fourth', 'app', q{SELECT djactor.send('t.work', 'fourth')});
handled_after('fourth', $start, 'fourth');
sleep 0.5;
my %now = map { $_ => 1 } process_ids($node, 'djactor worker');
is(scalar(grep { !$now{$_} } @before), 1, 'one of them makes room for a fourth database');
$node->safe_psql('postgres', "DROP DATABASE $_") for 'other', 'third', 'fourth';

#
# Time: each loop of the worker takes longer than until the next message of t.many is due
#
$node->append_conf('postgresql.conf', "fsync = on\ncommit_delay = 3000\ncommit_siblings = 0\n");
$node->restart;
define_work($node, 'app', 'app', 't.many');
as_role($node, 'app', 'app', q{
	SELECT count(djactor.send('t.many', 'k' || g % 5000, deliver_at => now() + interval '3 s' + g * interval '0.5 ms')) FROM generate_series(1, 40000) g});
ok(wait_until('they fall due', sub { $node->safe_psql('app', q{SELECT count(*) FROM djactor.actor WHERE actor_type = 't.many'}) ne '0' }),
	'messages of one type fall due all the time');
$start = time;
as_role($node, 'app', 'app', q{SELECT djactor.send('t.work', 'in time', deliver_at => now() + interval '1 s')});
cmp_ok(handled_after('in time', $start), '<', 10, 'one of another type is delivered in time');
ok($node->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_type = 't.many'}) > 0, '... meanwhile');

is(log_count($node, qr/terminated by signal|PANIC|TRAP:|OVERLAP/), 0, 'nothing crashed, no two turns of one actor at once');
$node->stop;
done_testing();
