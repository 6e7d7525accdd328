# A prepared transaction costs what it has sent, however many actor types its database has: PREPARE TRANSACTION remembers its mailboxes and
# types by its gid, and COMMIT PREPARED pushes these. Sweeps are counted, by a line that a worker logs at level debug2.
#
# - With 400 further types, COMMIT PREPARED of mail for a few mailboxes sweeps nothing; of more mailboxes than are remembered, their type; of
#   more types than are remembered, or of a gid that the server does not know any more, all types. Nothing is swept for a transaction
#   without mail, and for ROLLBACK PREPARED.
# - The mail is handled in order, with workers asleep and polling off: mail that is due, and mail that is delayed.
# - A crash of the server between PREPARE and COMMIT PREPARED loses nothing, and neither does its restart.
# - A gid may be used again, and a command that fails does not make the server forget it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep);

my $TYPES = 400;
my $node = new_server('prepared_types',
	'djactor.poll_interval' => '1h',
	'djactor.max_workers' => 1,
	max_prepared_transactions => 3);

new_app($node, 'app');
$node->safe_psql('app', 'ALTER ROLE app SET log_min_messages = debug2');
as_role($node, 'app', 'app', qq{
	SELECT count(djactor.define_actor_type('t.further' || i, 'public.work')) FROM generate_series(1, $TYPES) i;
	SELECT djactor.reload()});

# idle($seconds): until the worker has had nothing to do for so long: then it has swept whatever is to be swept.
sub idle
{
	my ($seconds) = @_;

	return wait_until('the pool sleeps', sub { $node->safe_psql('app', qq{
		SELECT count(*), bool_and(state = 'idle' AND now() - since > '$seconds s') FROM djactor.worker WHERE pid IS NOT NULL}) eq '1|t' });
}

# sweeps(): how many there have been since run() has begun its SQL.
my $log = 0;
sub sweeps
{
	idle(0.3);
	return log_count($node, qr/djactor begins a sweep of actor type t\./, $log);
}

# run($sql): runs it while nothing else goes on.
sub run
{
	idle(0.3);
	$log = -s $node->logfile;
	as_role($node, 'app', 'app', $_[0]);
}

sub prepare
{
	my ($gid, $sql) = @_;

	as_role($node, 'app', 'app', "BEGIN; $sql; PREPARE TRANSACTION '$gid'");
}

sub handled
{
	my ($sender, $n) = @_;

	return wait_until("$n messages of $sender", sub {
		$node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $sender") eq $n });
}

# A NOTIFY that has come while it started is heeded a second later.
idle(1.5);
cmp_ok(sweeps(), '>=', $TYPES, 'a worker sweeps each type when it starts');

# Few mailboxes
prepare('few', q{SELECT post(1, 1, 20, 't.work', 5); SELECT post(1, 21, 20, 't.further7', 5)});
run(q{COMMIT PREPARED 'few'});
ok(handled(1, 40), 'few mailboxes: their mail is handled');
is(sweeps(), 0, '... and nothing is swept');

# Mail that comes later is handled later, also if it comes at once
for my $i (1 .. 20)
{
	prepare('order', qq{SELECT post(2, $i * 2, 1, 't.work', 1)});
	as_role($node, 'app', 'app', qq{COMMIT PREPARED 'order'; SELECT post(2, $i * 2 + 1, 1, 't.work', 1)});
}
ok(handled(2, 40), 'many prepared transactions after each other');

# Delayed mail
prepare('delayed', q{SELECT djactor.send('t.further9', 'k', '{"sender": 3, "seq": 1}', deliver_at => now() + '1.5 s');
	INSERT INTO sent VALUES (3, 1, 't.further9', 'k')});
run(q{COMMIT PREPARED 'delayed'});
is($node->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender = 3'), 0, 'delayed mail is not early');
ok(handled(3, 1), '... and handled when it is due');
is(sweeps(), 0, '... and nothing is swept');

# No mail
prepare('none', q{INSERT INTO sent VALUES (4, 1, 'none', 'none'); DELETE FROM sent WHERE sender = 4});
run(q{COMMIT PREPARED 'none'});
is(sweeps(), 0, 'nothing is swept for a transaction without mail');
prepare('undone', q{SELECT post(4, 1, 20, 't.work', 5)});
run(q{ROLLBACK PREPARED 'undone'});
is(sweeps(), 0, 'nothing is swept for ROLLBACK PREPARED');

# A gid that is used again
prepare('undone', q{SELECT post(5, 1, 20, 't.further11', 5)});
$node->safe_psql('postgres', 'CREATE ROLE other LOGIN');
my (undef, undef, $stderr) = $node->psql('app', q{COMMIT PREPARED 'undone'}, extra_params => [ '-U', 'other' ]);
like($stderr, qr/permission denied to finish prepared transaction/, 'a role that may not commit it');
run(q{COMMIT PREPARED 'undone'});
ok(handled(5, 20), 'a gid that was used before');
is(sweeps(), 0, '... and nothing is swept');

# More than is remembered
prepare('flood', q{SELECT post(6, 1, 1500, 't.work', 1500); SELECT post(6, 1501, 40, 't.further13', 40); SELECT post(6, 1541, 1, 't.further14', 1)});
run(q{COMMIT PREPARED 'flood'});
ok(handled(6, 1541), 'many mailboxes: their mail is handled');
is(sweeps(), 3, '... and their types are swept');
prepare('wide', q{SELECT post(7, i, 1, 't.further' || i, 1) FROM generate_series(1, 100) i});
run(q{COMMIT PREPARED 'wide'});
ok(handled(7, 100), 'many types: their mail is handled');
is(sweeps(), $TYPES + 1, '... and all types are swept');

# Many at once, as many as the server takes, in another order
my $sender = 8;
prepare("many $_", qq{SELECT post($sender, $_ * 10, 10, 't.further$_', 3)}) for 1 .. 3;
run(qq{COMMIT PREPARED 'many 3'; COMMIT PREPARED 'many 1'; COMMIT PREPARED 'many 2'});
ok(handled($sender, 30), 'three at once');
is(sweeps(), 0, '... and nothing is swept');

# Shared memory is lost
for my $how ('crash', 'restart')
{
	$sender++;
	prepare('lost', qq{SELECT post($sender, 1, 20, 't.work', 5)});
	if ($how eq 'crash')
	{
		ok(kill_backend($node, (worker_pids($node, 'app'))[0]), 'crash');
	}
	else
	{
		$node->restart;
	}
	as_role($node, 'app', 'app', "SELECT post($sender, 21, 20, 't.further21', 5)");
	ok(handled($sender, 20), "$how: what others send meanwhile is handled");
	run(q{COMMIT PREPARED 'lost'});
	ok(handled($sender, 40), '... and nothing is lost');
	is(sweeps(), $TYPES + 1, '... but all types are swept');
}
check_ledger($node, 'app');
is(log_count($node, qr/PANIC|TRAP/), 0, 'nothing has gone wrong');
$node->stop;
done_testing();
