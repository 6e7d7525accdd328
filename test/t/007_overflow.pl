# More mailboxes than the run queue holds (djactor.run_queue_size = 64), and transactions that
# send to more mailboxes than they can announce (above 1,024): a sweep finds them,
# all are handled, and the order within each actor is kept (contract 9).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('overflow',
	'djactor.run_queue_size' => 64,
	'djactor.poll_interval' => '1h',
	'djactor.max_workers' => 3);

new_app($node, 'app');
define_work($node, 'app', 'app', 't.more');
define_work($node, 'app', 'app', 't.paused');

# In one transaction: a few more than the queue, just the limit of announcing, one more, many
my $sender = 0;
for my $keys (60, 65, 1024, 1025, 5000)
{
	$sender++;
	$node->safe_psql('app', "SELECT post($sender, 1, 2 * $keys, 't.work', $keys)");
	ok(wait_drained($node, 'app'), "one transaction to $keys mailboxes is handled without polling");
}
$sender++;
$node->safe_psql('app', "BEGIN; SELECT post($sender, 1, 5000, 't.work', 5000); ROLLBACK");
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 0, 'a rolled-back flood leaves nothing');
check_ledger($node, 'app');

# Two types in one transaction, one of them a flood
$sender++;
$node->safe_psql('app', qq{
	BEGIN;
	SELECT post($sender, 1, 10, 't.more', 10);
	SELECT post($sender, 11, 3000, 't.work', 3000);
	SELECT post($sender, 3011, 10, 't.more', 10);
	COMMIT});
ok(wait_drained($node, 'app'), 'two types, one of them flooded');

# A paused type whose mail fills the queue does not keep the others from it
$sender++;
$node->safe_psql('app', qq{
	SELECT djactor.pause('t.paused');
	SELECT post($sender, 1, 3000, 't.paused', 1000)});
$sender++;
$node->safe_psql('app', "SELECT post($sender, 1, 1000, 't.work', 500)");
ok(wait_until('the other type is handled', sub {
	$node->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_type = 't.work'}) eq '0' }),
	'the mail of a paused type is in nobody\'s way');
$node->safe_psql('app', q{SELECT djactor.resume('t.paused')});
ok(wait_drained($node, 'app'), 'and is handled after resume');

# Retries and delays of more actors than there is room for
$sender++;
$node->safe_psql('app', qq{
	SELECT post($sender, 1, 300, 't.work', 300, '{"fail": 2}');
	SELECT post($sender, 301, 300, 't.work', 300);
	INSERT INTO sent SELECT 99, i, 't.more', 'k' || i FROM generate_series(1, 500) i;
	INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at)
		SELECT 't.more', 'k' || i, jsonb_build_object('sender', 99, 'seq', i), clock_timestamp() + '1 s'
		FROM generate_series(1, 500) i});
ok(wait_drained($node, 'app'), 'retries and delays of more actors than the queue holds');

# A queue that is full of another pool's mail: whoever found no room looks again, without polling
new_app($node, 'app2', 'other');
ok(wait_until('a resident in app2', sub { worker_pids($node, 'app2') }), 'another pool');
$sender++;
$node->safe_psql('app', qq{SELECT post($sender, 1, 300, 't.work', 300, '{"sleep": 0.03}')});
$node->safe_psql('app2', q{SELECT post(1, 1, 1100, 't.work', 1100)});
ok(wait_drained($node, 'app2'), '... whose mail finds the queue full of others is handled all the same');
ok(wait_drained($node, 'app'), '... and so is theirs');

# Many transactions at once
start_sender($node, 'app', 'app', id => 100 + $_, keys => 700 * $_, big => 2500, fail => 300,
	types => [ 't.work', 't.more' ]) for 1 .. 3;
sleep 8;
my $known = stop_senders();
ok(wait_drained($node, 'app'), 'concurrent senders to thousands of mailboxes, floods among them');
check_ledger($node, 'app', $known);
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'no dead letters');
note('messages: ', $node->safe_psql('app', 'SELECT count(*) FROM sent'));

$node->stop;
done_testing();
