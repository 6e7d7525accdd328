# An actor whose row, or whose message's row, somebody else has locked waits, and says so (contract 31).
#
# djactor.mailbox shows it for as long as it lasts, the log says it once, with the process that has the row where that
# is known; where one transaction has the rows of many actors, not of each.  When it is over nothing tells of it, and the next time it is said anew.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('locked', 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', fsync => 'off');
my $waits = q{another transaction has locked the actor's row, or a message's};

new_app($node, 'app');
define_work($node, 'app', 'app', 't.one', 'batch_size => 1');

my $web = session($node, 'app');
my $pid = $web->query('SELECT pg_backend_pid()');
my $seq = 0;

sub send_one
{
	my ($type) = @_;

	$seq++;
	as_role($node, 'app', 'app', "SELECT post(1, $seq, 1, '$type', 1)");
}
sub times_told { my ($type) = @_; return log_count($node, qr/LOG:  mail of actor \Q$type\E "k0" waits: /) }
sub put_off
{
	my ($type, $times) = @_;

	return wait_until("$times times", sub { $node->safe_psql('app', "SELECT put_offs >= $times FROM djactor.mailbox WHERE actor_type = '$type'") eq 't' });
}

for my $type ('t.work', 't.one')
{
	send_one($type);
	ok(wait_drained($node, 'app'), "$type: an actor");
	is($node->safe_psql('app', "SELECT put_offs, last_error FROM djactor.mailbox"), '', '... without mail');

	for my $time (1, 2)
	{
		$web->query("BEGIN; SELECT FROM djactor.actor WHERE actor_type = '$type' FOR UPDATE");
		send_one($type);
		ok(put_off($type, 12), '... its row is locked: its mail is put off again and again');
		is($node->safe_psql('app', 'SELECT last_error FROM djactor.mailbox'), $waits, '... its mailbox tells why');
		is($node->safe_psql('app', 'SELECT attempts, put_offs FROM djactor.message'), '0|0', '... to the message nothing has happened');
		is(times_told($type), $time, '... the log says it once');
		is(log_count($node, qr/DETAIL:  Process $pid has\./), $time, '... and who it is') if $type eq 't.work';
		$web->query('ROLLBACK');
		ok(wait_drained($node, 'app'), '... when that is over the mail is handled');
	}
	$node->safe_psql('app', "SELECT djactor.pause('$type')");
	send_one($type);
	is($node->safe_psql('app', 'SELECT put_offs, last_error FROM djactor.mailbox'), '0|', '... and nothing tells of it any more');

	# the message's own row
	$web->query('BEGIN; SELECT FROM djactor.message FOR UPDATE');
	$node->safe_psql('app', "SELECT djactor.resume('$type')");
	ok(put_off($type, 12), '... a message is locked: likewise');
	is($node->safe_psql('app', 'SELECT last_error FROM djactor.mailbox'), $waits, '... its mailbox tells why');
	is(times_told($type), 3, '... the log says it once');
	$web->query('COMMIT');
	ok(wait_drained($node, 'app'), '... when that is over the mail is handled');
	is($node->safe_psql('app', 'SELECT sum(failures) FROM djactor.actor'), 0, '... and none of it has failed');
}

# one transaction may have the rows of many
as_role($node, 'app', 'app', q{SELECT post(2, 1, 100, 't.work', 100)});
ok(wait_drained($node, 'app'), 'a hundred actors');
my $before = log_count($node, qr/LOG:  mail of actor/);
$web->query(q{BEGIN; UPDATE djactor.actor SET state = state WHERE actor_type = 't.work'});
as_role($node, 'app', 'app', q{SELECT post(2, 101, 100, 't.work', 100)});
ok(wait_until('all', sub { $node->safe_psql('app', 'SELECT count(*) FROM djactor.mailbox WHERE put_offs >= 9') eq '100' }), '... all locked by one transaction, and put off');
cmp_ok(log_count($node, qr/LOG:  mail of actor/) - $before, '<=', 2, '... each of two workers says it once');
$web->query('COMMIT');
ok(wait_drained($node, 'app'), '... they go on');

$web->quit;
check_ledger($node, 'app');
$node->stop;
done_testing();
