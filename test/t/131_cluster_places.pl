# Which node is it? Three servers connected by postgres_fdw agree on where a key lives, and give ids of ranges of their own.
# Types are defined on all nodes or on none. Views show all nodes, and ask one of them if the key is given. What set_up()
# refuses; rights; a dump.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my @nodes = new_cluster(nodes => 3);
my ($one, $two, $three) = @nodes;

# fails($node, $sql, $regexp, $name, $role)
sub fails
{
	my ($node, $sql, $regexp, $name, $role) = @_;

	like(($node->psql('app', $sql, extra_params => [ '-U', $role // 'app' ]))[2], $regexp, $name);
}

#
# Places and ids
#
my $places = q{SELECT string_agg(djactor_cluster.node_of_key('k' || g)::text, '' ORDER BY g) FROM generate_series(1, 1000) g};
is($_->safe_psql('app', $places), $one->safe_psql('app', $places), 'nodes agree on where keys live') for $two, $three;
is($one->safe_psql('app', q{
	SELECT count(*) FROM (SELECT djactor_cluster.node_of_key('k' || g), count(*) FROM generate_series(1, 3000) g GROUP BY 1) n WHERE count BETWEEN 800 AND 1200}),
	3, '... and have about the same share of them');
is($one->safe_psql('app', q{
	SELECT string_agg(djactor_cluster.node_of_key(key)::text, ' ') FROM unnest('{@1,@2,@3/x,@3/1/2}'::text[]) key}), '1 2 3 3', 'a key may name its node');
is($one->safe_psql('app', q{
	SELECT count(*) FROM unnest('{@,@0,@4,@22,@2x,2@,@-1,@999999999999}'::text[]) key
	WHERE djactor_cluster.node_of_key(key) NOT BETWEEN 1 AND 3}), 0, '... and no other key looks like that');
is($_->safe_psql('app', q{
	SELECT count(*) FROM generate_series(1, 300) g WHERE djactor_cluster.is_here('k' || g) <> (djactor_cluster.node_of_key('k' || g) = djactor_cluster.this_node())}),
	0, 'is_here()') for @nodes;
for my $i (1 .. 3)
{
	is($nodes[ $i - 1 ]->safe_psql('app', q{
		SELECT DISTINCT djactor_cluster.node_of(id) FROM (SELECT id FROM djactor.actor UNION ALL SELECT djactor.send('t.work', '@' || djactor_cluster.this_node())) x}),
		$i, "ids of node $i are of its range");
}
is($one->safe_psql('app', q{
	SELECT string_agg(djactor_cluster.node_of(djactor_cluster.first_id(n)) || ' ' || djactor_cluster.node_of(djactor_cluster.first_id(n + 1) - 1), ',')
	FROM unnest('{0,1,63}'::int[]) n}), '0 0,1 1,63 63', 'ranges end where the next begins');
is($one->safe_psql('app', 'SELECT djactor_cluster.first_id(64) - 1'), '281474976710655', '... and 64 of them are all ids that a message can have');
ok(all_handled(@nodes), 'mail is handled');

#
# Types, on all nodes or on none
#
as_role($two, 'app', 'app', q{
	SET search_path = public, pg_temp; SET TimeZone = 'Asia/Tokyo';
	SELECT djactor_cluster.execute($run$
		CREATE FUNCTION handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
			BEGIN RETURN state || jsonb_build_object('zone', current_setting('TimeZone'), 'said', message); END $$ $run$);
	SELECT djactor_cluster.define_actor_type('t.all', 'handle', '{"max_attempts": 7, "initial_state": {"a": 1}, "journal": "1 day", "breaker_failures": null}')});
is($_->safe_psql('app', q{SELECT handler, max_attempts, initial_state, journal, breaker_failures, owner, settings->>'TimeZone', settings->>'search_path' FROM djactor.actor_type WHERE name = 't.all'}),
	'public.handle(jsonb,jsonb)|7|{"a": 1}|1 day||app|Asia/Tokyo|public, pg_temp', 'a type is the same on all nodes') for @nodes;
as_role($three, 'app', 'app', 'DROP FUNCTION handle');
fails($one, q{SELECT djactor_cluster.define_actor_type('t.some', 'public.handle')}, qr/function public\.handle.* does not exist|handler/, 'if one node cannot, it is an error');
is($_->safe_psql('app', q{SELECT count(*) FROM djactor.actor_type WHERE name = 't.some'}), 0, '... and none has the type') for @nodes;
fails($one, q{SELECT djactor_cluster.define_actor_type('t.some', 'work', '{"no_such": 1}')}, qr/no_such/, 'an option that does not exist');
fails($one, q{SELECT djactor_cluster.execute('SELECT 1/0')}, qr/division by zero/, 'an error here');
fails($one, q{SELECT djactor_cluster.execute($$DO 'BEGIN IF djactor_cluster.this_node() = 2 THEN RAISE EXCEPTION ''on two''; END IF; END'$$)}, qr/on two/, '... and one there');
$two->stop;
fails($one, q{SELECT djactor_cluster.define_actor_type('t.some', 'work')}, qr/could not connect to server "node2"/, 'a node that is down');
is($_->safe_psql('app', q{SELECT count(*) FROM djactor.actor_type WHERE name = 't.some'}), 0, '... and none has the type') for $one, $three;
$two->start;
as_role($one, 'app', 'app', q{SELECT djactor_cluster.execute('SELECT djactor.alter_actor_type(''t.work'', max_attempts => 3)')});
is($_->safe_psql('app', q{SELECT max_attempts FROM djactor.actor_type WHERE name = 't.work'}), 3, 'other commands run on all nodes as well') for @nodes;
is(as_role($two, 'app', 'app', q{
	BEGIN; SET LOCAL search_path = public; SELECT djactor_cluster.execute('SELECT 1'); SELECT count(*) FROM djactor_cluster.actor; COMMIT}) =~ /\d/, 1,
	'after a command a node is as it was');

#
# Views
#
as_role($one, 'app', 'app', 'SELECT post_all(1, 1, 60, 30)');
ok(all_handled(@nodes), 'actors on all nodes');
for my $node (@nodes)
{
	is(as_role($node, 'app', 'app', q{SELECT count(*), count(DISTINCT node), bool_and(node = djactor_cluster.node_of_key(actor_key)) FROM djactor_cluster.actor WHERE actor_key LIKE 'k%'}),
		'30|3|t', 'the view shows the actors of all nodes');
}
my $there = key_of($one, 2, 'k');
is(as_role($one, 'app', 'app', "SELECT node, state->>'turn' FROM djactor_cluster.actor WHERE actor_type = 't.work' AND actor_key = '$there'"), '2|2', 'an actor of another node');
for my $view ('actor', 'mail', 'dead_letter')
{
	my $plan = as_role($one, 'app', 'app', "EXPLAIN (VERBOSE, COSTS off) SELECT * FROM djactor_cluster.$view WHERE actor_key = '$there'");

	is(() = $plan =~ /Foreign Scan/g, 1, "$view: with a key one node is asked");
	like($plan, qr/Foreign Scan on djactor_cluster\.remote_\w+_2 .*Remote SQL: [^\n]*WHERE \(\(actor_key = '\Q$there\E'/s, '... for that key');
	unlike(as_role($one, 'app', 'app', "EXPLAIN SELECT * FROM djactor_cluster.$view WHERE actor_key = '" . key_of($one, 1) . "'"), qr/Foreign/, '... and none if the actor is here');
	is(() = as_role($one, 'app', 'app', "EXPLAIN SELECT * FROM djactor_cluster.$view") =~ /Foreign Scan/g, 2, '... and all without');
}
as_role($two, 'app', 'app', 'SELECT djactor.pause($$t.work$$)');
as_role($one, 'app', 'app', qq{SELECT djactor.send('t.work', '$there', '{"waits": 1}')});
ok(wait_until('mail', sub { as_role($three, 'app', 'app', "SELECT node, payload FROM djactor_cluster.mail WHERE actor_key = '$there'") eq '2|{"waits": 1}' }), 'mail of another node');

#
# What is refused
#
my $super = $one->safe_psql('app', 'SELECT current_user');
$one->safe_psql('app', 'CREATE ROLE someone LOGIN; GRANT INSERT (actor_type, actor_key, payload), SELECT (id) ON djactor_cluster.message TO someone');
fails($one, q{SELECT djactor_cluster.set_up(1, '{1,2}', 'app')}, qr/is node 1 of a cluster already/, 'to set up again', $super);
fails($one, q{SELECT djactor_cluster.set_up(1, '{1,2}', 'app')}, qr/permission denied for function set_up/, 'set_up() is for superusers');
fails($one, q{INSERT INTO djactor_cluster.message (actor_type, actor_key, kind) VALUES ('t.work', 'k', 'reply')}, qr/permission denied/, 'senders cannot forge a kind', 'someone');
fails($one, q{INSERT INTO djactor_cluster.inbox VALUES (2, 1, '[]')}, qr/permission denied/, '... nor a batch', 'someone');
fails($one, q{INSERT INTO djactor_cluster.command VALUES ('SELECT 1', '{}')}, qr/permission denied/, '... nor send commands', 'someone');
fails($one, q{SELECT djactor_cluster.keep_answer(1, '1', NULL)}, qr/permission denied/, '... nor an answer', 'someone');
is(as_role($one, 'app', 'someone', qq{INSERT INTO djactor_cluster.message (actor_type, actor_key) VALUES ('t.work', '$there') RETURNING id >> 42}), 1, 'they can send');
as_role($one, 'app', 'app', q{INSERT INTO djactor_cluster.command VALUES ('CREATE TABLE public.made_by AS SELECT current_user AS who', '{}')});
is($one->safe_psql('app', 'SELECT who FROM made_by'), 'app', 'a command runs as who inserts it, and no other');

my $alone = new_server('alone');
new_app($alone, 'app');
$alone->safe_psql('app', 'CREATE EXTENSION djactor_cluster CASCADE');
is($alone->safe_psql('app', q{SELECT djactor_cluster.this_node() IS NULL, djactor_cluster.is_here('k')}), 't|t', 'before set_up() all keys are here');
$alone->safe_psql('app', q{SELECT post(1, 1, 20, 't.work', 10)});
ok(wait_drained($alone, 'app'), '... and mail is handled as ever');
for my $call (
	[ q{djactor_cluster.set_up(1, '{1,1}', 'app')}, qr/numbers from 0 to 63, and nodes different ones/ ],
	[ q{djactor_cluster.set_up(1, '{}', 'app')}, qr/numbers from 0 to 63, and nodes different ones/ ],
	[ q{djactor_cluster.set_up(64, '{1}', 'app')}, qr/numbers from 0 to 63, and nodes different ones/ ],
	[ q{djactor_cluster.set_up(1, '{1,64}', 'app')}, qr/numbers from 0 to 63, and nodes different ones/ ],
	[ q{djactor_cluster.set_up(NULL, '{1}', 'app')}, qr/numbers from 0 to 63, and nodes different ones/ ],
	[ q{djactor_cluster.set_up(1, '{1}', NULL)}, qr/role must not be null/ ],
	[ q{djactor_cluster.set_up(1, '{1}', 'app', '{1,1}')}, qr/slots must name one of the nodes for each of the 256 slots/ ],
	[ q{djactor_cluster.set_up(1, '{1}', 'app', array_fill(2, '{256}'))}, qr/slots must name one of the nodes for each of the 256 slots/ ],
	[ q{djactor_cluster.set_up(1, '{1}', 'app')}, qr/cannot be on node 1/ ],
	[ q{djactor_cluster.set_up(0, '{0,1}', 'app')}, qr/cannot be on node 0/ ],
	[ q{djactor_cluster.add_node(2, 'x')}, qr/not a node of a cluster/ ],
	[ q{djactor_cluster.node_of_key('k')}, qr/not a node of a cluster/ ],
	[ q{djactor_cluster.execute('SELECT 1')}, qr/not a node of a cluster/ ],
	[ q{djactor_cluster.accept(1)}, qr/there is no other node 1/ ])
{
	fails($alone, "SELECT $call->[0]", $call->[1], $call->[0], $super);
}
$alone->safe_psql('app', q{SELECT djactor_cluster.set_up(0, '{0}', 'app')});
$alone->safe_psql('app', q{SELECT post(2, 1, 20, 't.work', 12)});
ok(wait_drained($alone, 'app'), 'a database with actors becomes node 0, and goes on');
check_ledger($alone, 'app');
fails($alone, "SELECT djactor_cluster.add_node($_, 'x')", qr/node must be the number of another node/, "node $_", $super) for 0, 64, 'NULL';
fails($one, q{SELECT djactor_cluster.add_node(2, 'node2', 'carrier pigeon')}, qr/invalid value for transport/, 'another transport', $super);
fails($one, q{SELECT djactor_cluster.add_node(2, 'node2', 'citus')}, qr/Citus does not carry messages to node 2/, 'one that is not there', $super);
$alone->safe_psql('app', 'DROP EXTENSION djactor_cluster CASCADE');
$alone->safe_psql('app', q{SELECT post(3, 1, 20, 't.work', 12)});
ok(wait_drained($alone, 'app'), 'without the extension the database is one of its own');

#
# A dump has it all
#
$three->stop;
as_role($one, 'app', 'app', 'SELECT post_all(5, 1, 30, 30)');
ok(wait_until('an outbox', sub { $one->safe_psql('app', 'SELECT count(*) > 0 FROM djactor_cluster.message_3') eq 't' }), 'mail waits for a node that is down');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/one.dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $one->connstr('app') ], 'pg_dump');
$alone->safe_psql('postgres', 'CREATE ROLE someone LOGIN; CREATE DATABASE restored OWNER app');
command_ok([ 'pg_restore', '--exit-on-error', '-d', $alone->connstr('restored'), $dump ], 'pg_restore');
for my $sql (
	'SELECT * FROM djactor_cluster.here', 'SELECT * FROM djactor_cluster.node ORDER BY node', 'SELECT id, actor_key FROM djactor_cluster.message ORDER BY id',
	q{SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgrelid::regclass::text LIKE 'djactor_cluster.message%' ORDER BY 1::text, 2},
	q{SELECT last_value FROM djactor.message_id_seq})
{
	is($alone->safe_psql('restored', $sql), $one->safe_psql('app', $sql), "restored: $sql");
}
is($alone->safe_psql('restored', 'SELECT djactor.held()'), 't', '... and the copy is held');
$three->start;
ok(wait_until('the outbox is empty', sub { $one->safe_psql('app', 'SELECT count(*) FROM djactor_cluster.message_3') eq '0' }), 'the original goes on');
$_->stop for @nodes, $alone;
done_testing();
