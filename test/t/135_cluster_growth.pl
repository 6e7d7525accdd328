# A cluster grows. A node that is added has the keys that name it, under load: nobody's mail comes to the wrong node, and
# add_node() refuses if such keys have actors, mail or timers, or waits for who is about to send to one. A node moves to
# another machine, by dump and restore: what was sent meanwhile comes there, once and in order.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my ($one, $two) = my @nodes = new_cluster();
my $super = $one->safe_psql('app', 'SELECT current_user');

# connects($node, $number, $other): tells a node where another one is
sub connects
{
	my ($node, $number, $other) = @_;

	return sprintf(q{
		BEGIN;
		CREATE SERVER node%1$d FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%2$s', port '%3$d', dbname 'app', connect_timeout '5');
		CREATE USER MAPPING FOR app SERVER node%1$d OPTIONS (user 'app', password_required 'false');
		SELECT djactor_cluster.add_node(%1$d, 'node%1$d');
		COMMIT;
	}, $number, $other->host, $other->port);
}

# fails($sql, $regexp, $name): on node 1, as its superuser
sub fails
{
	my ($sql, $regexp, $name) = @_;

	like(($one->psql('app', $sql))[2], $regexp, $name);
}

#
# Keys that would be stranded
#
my $three = new_server('node3', 'djactor.poll_interval' => '1h');
new_app($three, 'app');
my $slots = $one->safe_psql('app', 'SELECT slots FROM djactor_cluster.here');
$three->safe_psql('app', qq{CREATE EXTENSION djactor_cluster CASCADE; SELECT djactor_cluster.set_up(3, '{1,2}', 'app', '$slots')});
is($three->safe_psql('app', 'SELECT slots FROM djactor_cluster.here'), $slots, 'a node is told where keys live');
is($three->safe_psql('app', q{SELECT count(*) FILTER (WHERE djactor_cluster.is_here('k' || g)), djactor_cluster.is_here('@3'), djactor_cluster.is_here('@3/x') FROM generate_series(1, 100) g}),
	'0|t|t', 'a node that is added has the keys that name it');
is($one->safe_psql('app', q{SELECT djactor_cluster.node_of_key('@3/x') = ANY ('{1,2}')}), 't', '... which are any keys to nodes that do not know it');
# keys of this form, of node 1 as yet
my ($old) = split /\n/, $one->safe_psql('app', q{SELECT '@3/old' || g FROM generate_series(1, 100) g WHERE djactor_cluster.is_here('@3/old' || g)});
my $stranded = qr/actor t\.work "\Q$old\E", or its mail, would be stranded/;
as_role($one, 'app', 'app', qq{SELECT djactor.schedule('t.work', '$old', 'tick', after => '1 day')});
fails(connects($one, 3, $three), $stranded, 'a timer');
as_role($one, 'app', 'app', qq{SELECT djactor.unschedule('t.work', '$old', 'tick'); SELECT djactor.send('t.work', '$old', '{"sender": 0}', deliver_at => now() + '1 day')});
fails(connects($one, 3, $three), $stranded, '... mail');
as_role($one, 'app', 'app', qq{SELECT djactor.cancel(id) FROM djactor.message WHERE actor_key = '$old'; SELECT djactor.send('t.work', '$old', '{"sender": 0}')});
ok(all_handled(@nodes), 'an actor');
fails(connects($one, 3, $three), $stranded, '... is not stranded either');
is($one->safe_psql('app', 'SELECT count(*) FROM djactor_cluster.node'), 2, 'nothing of that is left');
as_role($one, 'app', 'app', qq{SELECT djactor.stop_actor('t.work', '$old'); DELETE FROM ledger WHERE sender = 0});

#
# A node is added, under load and beside a transaction that is about to send to its keys
#
as_role($one, 'app', 'app', 'SELECT post_all(1, 1, 500, 20)');
my $slow = session($one, 'app', 'app');
$slow->query(qq{BEGIN; SELECT djactor_cluster.is_here('$old')});
my $adding = session($one, 'app', $super);
$adding->start(connects($one, 3, $three) . 'SELECT $$added$$');
ok(wait_until('it waits', sub { $one->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%add_node%'}) eq '1' }),
	'add_node() waits for a transaction that has looked where keys live');
$slow->query('ROLLBACK');
like($adding->finish, qr/added/, '... and then goes on');
$_->quit for $slow, $adding;
$two->safe_psql('app', connects($two, 3, $three));
$three->safe_psql('app', connects($three, 1, $one) . connects($three, 2, $two));
push @nodes, $three;
as_role($three, 'app', 'app', q{
	CREATE FUNCTION post_all(sender int, first int, n int, keys int) RETURNS void LANGUAGE sql AS $$
		INSERT INTO sent SELECT $1, s, 't.work', 'k' || s % $4 FROM generate_series($2, $2 + $3 - 1) s;
		INSERT INTO djactor_cluster.message (actor_type, actor_key, payload)
			SELECT 't.work', 'k' || s % $4, jsonb_build_object('sender', $1, 'seq', s)
			FROM generate_series($2, $2 + $3 - 1) s;
	$$});
for my $i (0 .. 2)
{
	as_role($nodes[$i], 'app', 'app', sprintf('SELECT post_all(%d, 1, 300, 20)', 10 + $i));
	as_role($nodes[$i], 'app', 'app', sprintf(q{
		INSERT INTO sent SELECT %1$d, s, 't.work', '@3/' || s %% 5 FROM generate_series(1, 100) s;
		SELECT count(djactor.send('t.work', '@3/' || s %% 5, jsonb_build_object('sender', %1$d, 'seq', s))) FROM generate_series(1, 100) s}, 20 + $i));
}
ok(all_handled(@nodes), 'all nodes send to all keys');
is($three->safe_psql('app', q{SELECT count(*), count(DISTINCT actor_key) FROM ledger}), '300|5', 'the new node handles what is for its keys');
is(as_role($_, 'app', 'app', q{SELECT count(*), bool_and(node = 3) FROM djactor_cluster.actor WHERE actor_type = 't.work' AND actor_key LIKE '@3/%'}), '5|t', '... and all see its actors') for @nodes;
check_cluster(@nodes);

#
# A node moves to another machine
#
as_role($one, 'app', 'app', 'SELECT post_all(30, 1, 500, 20)');
# what the page says: nothing runs there any more, and nobody sends
$two->safe_psql('postgres', q{
	ALTER ROLE app NOLOGIN;
	SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'client backend'});
ok(wait_until('nobody is there', sub { ($two->psql('postgres', 'ALTER DATABASE app RENAME TO app_moved'))[0] == 0 }), 'a node is taken out of service');
as_role($one, 'app', 'app', 'SELECT post_all(31, 1, 300, 20)');
as_role($three, 'app', 'app', 'SELECT post_all(32, 1, 300, 20)');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/two.dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $two->connstr('app_moved') ], 'pg_dump');
my $four = new_server('node4', 'djactor.poll_interval' => '1h');
$four->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE DATABASE app OWNER app');
command_ok([ 'pg_restore', '--exit-on-error', '-d', $four->connstr('app'), $dump ], 'pg_restore');
$two->safe_psql('postgres', 'DROP DATABASE app_moved');
$_->safe_psql('app', sprintf(q{ALTER SERVER node2 OPTIONS (SET host '%s', SET port '%d')}, $four->host, $four->port)) for $one, $three;
$four->safe_psql('app', 'SELECT djactor.resume()');
@nodes = ($one, $four, $three);
as_role($nodes[$_], 'app', 'app', sprintf('SELECT post_all(%d, 1, 300, 20)', 40 + $_)) for 0 .. 2;
ok(all_handled(@nodes), 'what waited for it comes there');
cmp_ok($four->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender BETWEEN 31 AND 42'), '>', 100, '... and is handled');
cmp_ok(check_cluster(@nodes), '>', 3000, 'ledger');
$_->stop for @nodes, $two;
done_testing();
