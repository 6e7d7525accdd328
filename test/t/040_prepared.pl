# Prepared transactions, which outlive sessions and restarts.
#
# - What a prepared transaction has sent is handled once it is committed and never if it is rolled back, also when
#   the server has been stopped or has crashed in between, with the workers asleep and polling off: few
#   messages, more than the run queue is told of one by one, and an ask.
# - What is sent after COMMIT PREPARED is handled after it (contract 9).
# - A prepared transaction that has changed an actor's state delays that actor, nobody else; the change is not lost.
# - A type is not dropped while there is prepared mail for it.
# - A transaction that has changed a type cannot be prepared, and changes nothing.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('prepared',
	'djactor.poll_interval' => '1h',
	'djactor.idle_timeout' => '1s',
	max_prepared_transactions => 20);

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE FUNCTION keep(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
		$$ BEGIN RETURN state || message; END $$;
	SELECT djactor.define_actor_type('t.keep', 'keep');
	SELECT djactor.define_actor_type('t.gone', 'keep')});

# prepare($name, $sql): returns what the SQL has returned.
sub prepare
{
	my ($name, $sql) = @_;

	return as_role($node, 'app', 'app', "BEGIN; $sql; PREPARE TRANSACTION '$name'");
}

sub finish
{
	my ($how, $name) = @_;

	as_role($node, 'app', 'app', "$how PREPARED '$name'");
}

sub handled
{
	my ($sender, $n) = @_;

	return wait_until("$n messages of $sender", sub {
		$node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $sender") eq $n });
}

# drop_type($name): what became of it, without waiting for long.
sub drop_type
{
	my ($name) = @_;
	my (undef, undef, $stderr) = $node->psql('app', qq{
		SET lock_timeout = '300 ms'; SELECT djactor.drop_actor_type('$name', true)}, extra_params => [ '-U', 'app' ]);

	return $stderr;
}

my $sender = 0;
for my $end ('fast', 'immediate')
{
	my ($few, $flood, $undone, $asker, $other) = map { $sender + $_ } 1 .. 5;

	$sender += 5;
	prepare('few', "SELECT post($few, 1, 20, 't.work', 5)");
	prepare('flood', "SELECT post($flood, 1, 1500, 't.work', 1500)");
	prepare('undone', "SELECT post($undone, 1, 20, 't.work', 5); SELECT djactor.send('t.gone', 'a')");
	my $ask = prepare('ask', qq{
		INSERT INTO sent VALUES ($asker, 1, 't.work', 'k1');
		SELECT djactor.send('t.work', 'k1', '{"sender": $asker, "seq": 1}', wants_reply => true)});

	$node->stop($end);
	$node->start;
	as_role($node, 'app', 'app', "SELECT post($other, 1, 20, 't.work', 5)");
	ok(handled($other, 20), "$end stop and start: what others send meanwhile is handled");
	sleep 1.2;    # until all sleep
	is($node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender IN ($few, $flood, $undone, $asker)"),
		0, 'nothing of what is prepared is handled');
	like(drop_type('t.gone'), qr/lock timeout/, 'a type with prepared mail is not dropped');

	finish('ROLLBACK', 'undone');
	finish('COMMIT', 'few');
	as_role($node, 'app', 'app', "SELECT post($few, 21, 20, 't.work', 5)");
	ok(handled($few, 40), 'COMMIT PREPARED wakes the workers');
	finish('COMMIT', 'flood');
	ok(handled($flood, 1500), 'to 1,500 mailboxes, too');
	finish('COMMIT', 'ask');
	is($node->safe_psql('app', "SELECT djactor.wait_reply($ask, '30 s')"), 'null', 'an ask is answered');
}
is(drop_type('t.gone'), '', 'without prepared mail the type is dropped');
check_ledger($node, 'app');

#
# Other writes
#
as_role($node, 'app', 'app', q{SELECT djactor.send('t.keep', key, '{"n": 1}') FROM unnest('{a,b}'::text[]) key});
ok(wait_drained($node, 'app'), 'two actors');
prepare('by hand', q{UPDATE djactor.actor SET state = state || '{"by hand": true}' WHERE actor_key = 'a' AND actor_type = 't.keep'});
as_role($node, 'app', 'app', q{SELECT djactor.send('t.keep', key, '{"n": 2}') FROM unnest('{a,b}'::text[]) key});

my $state = q{SELECT state FROM djactor.actor WHERE actor_type = 't.keep' AND actor_key = };
ok(wait_until('b', sub { $node->safe_psql('app', "$state 'b'") eq '{"n": 2}' }),
	'while an actor is locked by a prepared transaction the others go on');
is($node->safe_psql('app', "$state 'a'"), '{"n": 1}', 'and that one waits');
my $log = -s $node->logfile;
sleep 1;
cmp_ok(log_count($node, qr/LOG|WARNING/, $log), '<=', 4, 'the log is not filled with that');
finish('COMMIT', 'by hand');
ok(wait_until('a', sub { $node->safe_psql('app', "$state 'a'") eq '{"n": 2, "by hand": true}' }),
	'its turn starts from the changed state');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'nothing was given up');

my (undef, undef, $stderr) = $node->psql('app', q{BEGIN; SELECT djactor.pause('t.keep'); PREPARE TRANSACTION 'paused'});
like($stderr, qr/cannot PREPARE a transaction that has changed an actor type/, 'a change of a type is not prepared');
as_role($node, 'app', 'app', q{SELECT djactor.send('t.keep', 'b', '{"n": 3}')});
ok(wait_until('b', sub { $node->safe_psql('app', "$state 'b'") eq '{"n": 3}' }), 'and the type runs on');

$node->stop;
done_testing();
