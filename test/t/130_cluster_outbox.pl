# Two servers that are merely connected by postgres_fdw, with an outbox: what one node sends to actors of the other comes
# there exactly once and in order, also when
#
# - a turn that has sent a batch fails, or its process is killed, after the other node has committed;
# - either node is down, or is killed, while both send;
# - the other node refuses a message.
#
# No sender waits for the other node.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = PostgreSQL::Test::Utils::tempdir_short() . '/late_failure.so';
chomp(my $headers = `pg_config --includedir-server`);
system('cc', '-shared', '-fPIC', '-isystem', $headers, '-o', $library, "$FindBin::RealBin/late_failure.c") == 0
  or die 'late_failure.c does not compile';

my ($one, $two) = my @nodes = new_cluster(library => $library);
my $there = key_of($one, 2);
my $here = key_of($one, 1);

#
# One message
#
as_role($one, 'app', 'app', 'SELECT post_all(1, 1, 100, 20)');
ok(all_handled(@nodes), 'messages to actors of both nodes are handled');
cmp_ok($_->safe_psql('app', 'SELECT count(*) FROM ledger'), '>', 10, '... on both') for @nodes;
my $sent = $one->safe_psql('app', qq{
	INSERT INTO djactor_cluster.message (actor_type, actor_key, payload)
		VALUES ('t.work', '$there', '{"sender": 2, "seq": 1}'), ('t.work', '$here', '{"sender": 2, "seq": 2}') RETURNING id >> 42;
	INSERT INTO sent VALUES (2, 1, 't.work', '$there'), (2, 2, 't.work', '$here')});
is($sent, "1\n1", 'ids are of the node that sends');
ok(all_handled(@nodes), 'they are handled');
#
# The turns that send fail, or are killed, after the other node has committed: one in two
#
for my $what ('error', 'kill')
{
	my $sender = $what eq 'error' ? 10 : 20;

	for my $node (@nodes)
	{
		my $other = $node == $one ? 2 : 1;

		$node->safe_psql('app', qq{
			CREATE FUNCTION late_failure() RETURNS trigger LANGUAGE c AS '$library';
			CREATE TRIGGER late_failure AFTER DELETE ON djactor_cluster.message_$other
				FOR EACH STATEMENT EXECUTE FUNCTION late_failure('$what', '2')});
	}
	for my $round (0 .. ($what eq 'kill' ? 8 : 20))
	{
		for my $i (0, 1)
		{
			# the server may be restarting, and the answer to a commit may be lost
			ok(wait_until('a sender', sub { as_role($nodes[$i], 'app', 'app', sprintf(q{
				SELECT post_all(%1$d, %2$d, 25, 10) WHERE NOT EXISTS (SELECT FROM sent WHERE sender = %1$d AND seq = %2$d); SELECT 1},
				$sender + $i, 1 + 25 * $round)) }), 'a sender');
		}
	}
	ok(all_handled(@nodes), "what was sent is handled, with a late $what in every second turn");
	cmp_ok(log_count($one, qr/late $what/) + log_count($two, qr/late $what/), '>=', 4, '... which there were');
	$_->safe_psql('app', 'DROP FUNCTION late_failure() CASCADE') for @nodes;
}

#
# A node is down
#
$two->stop('immediate');
my $took = time;
as_role($one, 'app', 'app', 'SELECT post_all(30, 1, 2500, 10)');
cmp_ok(time - $took, '<', 5, 'no sender waits for a node that is down');
ok(wait_until('attempts', sub {
	$one->safe_psql('app', q{SELECT last_error FROM djactor.mailbox WHERE actor_type = 'djactor_cluster.forward'}) =~ /could not connect to server "node2"/ }),
	'... and the mailbox of who forwards says what is wrong');
cmp_ok($one->safe_psql('app', 'SELECT count(*) FROM djactor_cluster.message'), '>', 1000, '... its mail waits');
$two->start;
ok(all_handled(@nodes), 'once it is up its mail comes');

#
# Kills while both send
#
for my $round (1 .. 6)
{
	my $victim = $nodes[ $round % 2 ];

	for my $i (0, 1)
	{
		as_role($nodes[$i], 'app', 'app', join '', map { sprintf("SELECT post_all(%d, %d, 5, 10);\n", 40 + $i, 1 + 5 * $_) } 20 * $round .. 20 * $round + 10);
	}
	my ($forwarder) = map { $_->[0] } grep { $_->[1] eq 'busy' } workers($victim, 'app');
	if ($forwarder && $round % 3)
	{
		kill_backend($victim, $forwarder);
	}
	else
	{
		$victim->stop('immediate');
		$victim->start;
	}
}
ok(all_handled(@nodes), 'after kills of servers and workers all is handled');
cmp_ok(check_cluster(@nodes), '>', 3500, 'ledger');

#
# What the other node does not take
#
as_role($two, 'app', 'app', q{
	SELECT djactor.define_actor_type('t.work', 'public.work', mailbox_limit => 5);
	SELECT djactor.pause('t.work')});
as_role($one, 'app', 'app', qq{SELECT djactor.define_actor_type('t.only_here', 'public.work')});
as_role($one, 'app', 'app', qq{
	SELECT djactor.send('t.work', '$there', '{"sender": 50}') FROM generate_series(1, 7);
	SELECT djactor.send('t.only_here', '$there', '{"sender": 50}');
	SELECT djactor.send('t.work', '$there' || 'x', '{"sender": 50}') WHERE NOT djactor_cluster.is_here('$there' || 'x')});
ok(wait_until('dead letters', sub { $two->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter') eq '3' }), 'what is refused becomes a dead letter there');
is($two->safe_psql('app', q{SELECT actor_type, reason, sqlstate, count(*) FROM djactor.dead_letter GROUP BY 1, 2, 3 ORDER BY 1}),
	"t.only_here|rejected|42704|1\nt.work|mailbox_full|53400|2", '... with its reason');
is($two->safe_psql('app', qq{SELECT count(*) FROM djactor.message WHERE actor_key = '$there'}), 5, '... and what came with it is delivered');
like(($one->psql('app', qq{SELECT djactor.send('t.nowhere', '$there')}))[2], qr/actor type "t.nowhere" does not exist/, 'a sender hears of a type that does not exist');
like(($one->psql('app', qq{SELECT djactor.send('t.work', '$there' || repeat('x', 600) || g) FROM generate_series(1, 30) g}))[2], qr/actor key is too long/, '... and of a key that is too long');
like(($one->psql('app', q{INSERT INTO djactor_cluster.message (actor_type, actor_key) SELECT NULL, 'k' || g FROM generate_series(1, 30) g}))[2],
	qr/column "actor_type" of djactor_cluster.message must not be null/, '... and of a column that is missing');
like(($one->psql('app', qq{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('t.work', '$there')}))[2], qr/actors with the key "\Q$there\E" live on node 2/, 'nothing is sent past the cluster');
is($one->safe_psql('app', 'SELECT count(*) FROM djactor_cluster.message'), 0, 'nothing of that is left');

#
# The message by which the actor that forwards wakes itself is lost
#
as_role($two, 'app', 'app', q{SELECT djactor.define_actor_type('t.work', 'public.work'); SELECT djactor.resume('t.work')});
ok(all_handled(@nodes), 'what waited is handled');
$two->stop;
as_role($one, 'app', 'app', qq{SELECT djactor.send('t.work', '$there', '{"sender": 55}')});
ok(wait_until('an attempt', sub { $one->safe_psql('app', q{SELECT last_error IS NOT NULL FROM djactor.mailbox WHERE actor_type = 'djactor_cluster.forward'}) eq 't' }),
	'a batch waits for a node that is down');
as_role($one, 'app', 'app', q{SELECT djactor.cancel(id) FROM djactor.message WHERE actor_type = 'djactor_cluster.forward' AND kind = 'user'});
$two->start;
as_role($one, 'app', 'app', q{SELECT djactor.run_now('djactor_cluster.forward', '@1/2', 'again')});
ok(all_handled(@nodes), '... and its timer, of a minute, brings it there');
is($one->safe_psql('app', 'SELECT count(*) FROM djactor.timer'), 0, '... and is gone then');

#
# A node is set back
#
my $batch = $two->safe_psql('app', 'SELECT received FROM djactor_cluster.node WHERE node = 1');
cmp_ok($batch, '>', 10, 'batches have numbers');
$two->safe_psql('app', 'UPDATE djactor_cluster.node SET received = received - 10 WHERE node = 1');
as_role($one, 'app', 'app', qq{SELECT djactor.send('t.work', '$there', '{"sender": 60}')});
ok(wait_until('an error', sub {
	$one->safe_psql('app', q{SELECT last_error FROM djactor.mailbox WHERE actor_type = 'djactor_cluster.forward'}) =~ /has sent batch \d+, after batch/ }),
	'a batch with a number that does not follow is not taken');
$two->safe_psql('app', 'SELECT djactor_cluster.accept(1)');
ok(all_handled(@nodes), '... until the operator has accepted it');
is($two->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender = 60'), 1, '... and it was not lost');
$_->stop for @nodes;
done_testing();
