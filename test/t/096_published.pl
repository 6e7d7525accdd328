# Publications that would keep from subscribers what djactor does to its tables: the server refuses such changes by SQL, and djactor,
# which writes past that check, does likewise. Mail waits, nothing is charged or run, the log has a hint.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('published', Init => [ allows_streaming => 'logical' ], 'djactor.max_workers' => 2, fsync => 'off');
my $seq = 0;
my $offset;

new_app($node, 'app');
as_role($node, 'app', 'app', q{SELECT post(1, 1, 3, 't.work', 3)});
ok(wait_drained($node, 'app'), 'mail is handled');


sub refused
{
	my ($table) = @_;

	return qr/a publication of table djactor\.$table keeps djactor from writing there\n.*DETAIL:  .* would not hear of (updated|deleted) rows\.\n.*HINT:  /;
}

# publication => table, or undef if all goes well
my @publications = (
	[ q{FOR TABLE djactor.message WHERE (actor_type <> 'x')}, 'message' ],
	[ q{FOR TABLE djactor.message (payload)}, 'message' ],
	[ q{FOR TABLE djactor.actor (id, state)}, 'actor' ],
	[ q{FOR TABLE djactor.actor_identity WHERE (id > 0)}, 'actor_identity' ],
	[ q{FOR TABLE djactor.actor_type WHERE (handler <> 'x')}, 'actor_type' ],
	[ q{FOR TABLE djactor.dead_letter WHERE (reason = 'failed')}, 'dead_letter' ],
	[ q{FOR TABLE djactor.reply WHERE (payload IS NULL)}, 'reply' ],
	[ q{FOR TABLE djactor.timer WHERE (every IS NULL)}, 'timer' ],
	[ q{FOR TABLE djactor.idempotency WHERE (completed_at IS NULL)}, 'idempotency' ],
	[ q{FOR TABLE djactor.journal WHERE (turn > 1)}, 'journal' ],
	[ q{FOR TABLE djactor.home (database)}, 'home' ],
	[ q{FOR TABLE djactor.message WHERE (actor_type <> 'x') WITH (publish = 'insert')}, undef ],
	[ q{FOR TABLE djactor.dead_letter WHERE (reason = 'failed') WITH (publish = 'insert, update')}, undef ],
	[ q{FOR TABLE djactor.message WHERE (id > 0), djactor.actor WHERE (status = 'active')}, undef ],
	[ q{FOR ALL TABLES}, undef ]);

for (@publications)
{
	my ($publication, $table) = @$_;

	$offset = -s $node->logfile;
	$node->safe_psql('app', "CREATE PUBLICATION p $publication");
	$seq += 5;
	as_role($node, 'app', 'app', qq{SELECT post(2, $seq, 5, 't.work', 5)});
	if ($table)
	{
		my $refused = refused($table);

		ok(wait_until('the log', sub { log_since($node, $offset) =~ /a batch of djactor is tried again: $refused/ }), "$publication: the log says that nothing is written, and why");
		is($node->safe_psql('app', 'SELECT count(*), max(attempts), max(put_offs), count(last_error) FROM djactor.message'), '5|0|0|0', '... mail waits, and is not charged');
		is($node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = 2 AND seq >= $seq"), 0, '... nor has any handler run');
		like(($node->psql('app', 'SELECT djactor.drain()', extra_params => [ '-U', 'app' ]))[2], $refused, '... drain() says so');
		$node->safe_psql('app', 'DROP PUBLICATION p');
		ok(wait_drained($node, 'app'), '... without the publication it is handled');
	}
	else
	{
		ok(wait_drained($node, 'app'), "$publication: goes well");
		$node->safe_psql('app', 'DROP PUBLICATION p');
	}
}
check_ledger($node, 'app');

#
# What operators call says the same
#
send_broken($node, 'app', 'app', 1);
ok(wait_until('a dead letter', sub { $node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter') eq '1' }), 'a dead letter');
as_role($node, 'app', 'app', q{SELECT djactor.send('t.work', 'later', '{"sender": 3, "seq": 1}', deliver_at => now() + '1 h')});
$node->safe_psql('app', q{CREATE PUBLICATION p FOR TABLE djactor.message WHERE (priority = 0), djactor.dead_letter WHERE (priority = 0), djactor.actor_type WHERE (NOT paused)});
like(($node->psql('app', q{SELECT djactor.cancel(min(id)) FROM djactor.message}))[2], refused('message'), 'cancel() is refused');
like(($node->psql('app', q{SELECT djactor.redrive(min(id)) FROM djactor.dead_letter}))[2], refused('dead_letter'), '... and redrive()');
like(($node->psql('app', q{SELECT djactor.pause('t.work')}))[2], refused('actor_type'), '... and pause()');
like(($node->psql('app', q{SELECT djactor.drop_actor_type('t.broken', true)}))[2], refused('dead_letter|actor_type|message'), '... and drop_actor_type()');
is(($node->psql('app', q{DELETE FROM djactor.dead_letter}))[0], 3, '... as the server refuses DELETE');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 1, '... and all is there still');

# an identity is enough
$node->safe_psql('app', q{ALTER PUBLICATION p SET TABLE djactor.message; ALTER TABLE djactor.message REPLICA IDENTITY NOTHING});
like(($node->psql('app', q{SELECT djactor.cancel(min(id)) FROM djactor.message}))[2], qr/djactor\.message keeps .*\n.*has no replica identity.*\nHINT:  Use ALTER TABLE djactor\.message REPLICA IDENTITY DEFAULT\./, 'a table without replica identity is known');
$node->safe_psql('app', q{ALTER TABLE djactor.message REPLICA IDENTITY DEFAULT});
is($node->safe_psql('app', q{SELECT djactor.cancel(min(id)) FROM djactor.message}), 't', '... with one all is well');

#
# A publication that comes while a batch is under way is met before it writes
#
$offset = -s $node->logfile;
as_role($node, 'app', 'app', q{SELECT post(4, 1, 1, 't.work', 1, '{"lock": 7}')});
my $locker = session($node, 'app');
$locker->query('SELECT pg_advisory_lock(7)');
as_role($node, 'app', 'app', q{SELECT post(4, 2, 1, 't.work', 1, '{"lock": 7}')});
ok(wait_until('a turn', sub { $node->safe_psql('app', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}) eq '1' }), 'a turn is under way');
$node->safe_psql('app', q{ALTER PUBLICATION p SET TABLE djactor.message WHERE (priority = 0)});
$locker->query('SELECT pg_advisory_unlock(7)');
my $refused_message = refused('message');
ok(wait_until('the log', sub { log_since($node, $offset) =~ $refused_message }), 'a publication that comes during a turn is seen at its end');
is($node->safe_psql('app', 'SELECT max(attempts) FROM djactor.message'), 0, '... and nobody charged');
$node->safe_psql('app', 'DROP PUBLICATION p');
ok(wait_drained($node, 'app'), '... without it mail is handled');
$locker->quit;
check_ledger($node, 'app');
is($node->safe_psql('app', q{SELECT count(*) FROM djactor.dead_letter WHERE actor_type <> 't.broken'}), 0, 'nothing was given up');
is(log_count($node, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');
$node->stop;
done_testing();
