# pg_dump, by the database's owner, and restore into another database: types, actors with their state, waiting messages with
# their ids, dead letters and the counters of ids arrive, and the copy goes on from there, once
# djactor.resume() has said that it may.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('dump');

new_app($node, 'app');
define_work($node, 'app', 'app', 't.paused', q{batch_size => 7, concurrency => 2, retry_order => 'skip', mailbox_limit => 1000});
$node->safe_psql('app', q{
	CREATE FUNCTION public.broken(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
		$$ BEGIN RAISE EXCEPTION 'broken' USING ERRCODE = 'P0004'; END $$;
	SELECT djactor.define_actor_type('t.broken', 'public.broken', max_attempts => 1, owner => 'app');
	SELECT djactor.define_actor_type('t.suspends', 'public.broken', max_attempts => 1, on_exhausted => 'suspend', owner => 'app');
	SELECT post(1, 1, 300, 't.work', 30);
	SELECT djactor.send('t.broken', 'k', '{"text": "grün"}', headers => '{"tenant": 7}');
	SELECT djactor.send('t.suspends', 'k', '{"n": 1}')});
ok(wait_until('handled', sub {
	$node->safe_psql('app', q{SELECT count(*) FROM djactor.message}) eq '1'
	  and $node->safe_psql('app', q{SELECT count(*) FROM djactor.actor WHERE status = 'suspended'}) eq '1'
	  and $node->safe_psql('app', q{SELECT count(*) FROM djactor.dead_letter}) eq '1' }), 'some mail is handled, some given up');
$node->safe_psql('app', q{
	SELECT djactor.pause('t.paused');
	SELECT djactor.pause('t.work');
	SELECT post(2, 1, 200, 't.paused', 20);
	SELECT post(3, 1, 200, 't.work', 40);
	SELECT djactor.send('t.work', 'k1', '{"sender": 4, "seq": 1}', priority => 5, deliver_at => now() + '2 s',
		expires_at => now() + '1 day', headers => '{"tenant": 8}');
	INSERT INTO sent VALUES (4, 1, 't.work', 'k1')});

my @tables = ('actor_type', 'actor', 'actor_identity', 'message', 'dead_letter');
# Ids stand for identity; what is written into the copy goes on from there
my %content = map { $_ => $node->safe_psql('app', qq{SELECT t FROM djactor.$_ t ORDER BY t::text COLLATE "C"}) } @tables;
my $last = $node->safe_psql('app', 'SELECT max(id) FROM djactor.message');

my %dumps = (
	plain => sub {
		my ($file, $database) = @_;
		return ok(run_log([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', $file ]), 'psql restores');
	},
	custom => sub {
		my ($file, $database) = @_;
		return ok(run_log([ 'pg_restore', '-e', '-d', $node->connstr($database), $file ]), 'pg_restore restores');
	},
	parallel => sub {
		my ($file, $database) = @_;
		# data is loaded in no certain order then: messages may come before their types
		my $done = run_log([ 'pg_restore', '-e', '-j', '3', '-d', $node->connstr($database), $file ]);

		ok($done, 'pg_restore -j 3 restores');
		return $done;
	});

for my $how (sort keys %dumps)
{
	my $file = PostgreSQL::Test::Utils::tempdir() . "/dump.$how";
	my $database = "copy_$how";

	command_ok([ 'pg_dump', '-U', 'app', '-F', $how eq 'plain' ? 'p' : 'c', '-f', $file, '-d', $node->connstr('app') ],
		"$how: pg_dump by the database's owner");
	$node->safe_psql('postgres', "CREATE DATABASE $database OWNER app");
	$dumps{$how}->($file, $database) or next;
	for my $table (@tables)
	{
		# the delayed message may have been released meanwhile
		my $got = $node->safe_psql($database, qq{SELECT t FROM djactor.$table t ORDER BY t::text COLLATE "C"});

		is($got, $content{$table}, "$how: $table arrives") if $table ne 'message';
		is($node->safe_psql($database, 'SELECT count(*), min(id), max(id) FROM djactor.message'),
			$node->safe_psql('app', 'SELECT count(*), min(id), max(id) FROM djactor.message'), "$how: messages arrive")
		  if $table eq 'message';
	}
	cmp_ok($node->safe_psql($database, q{SELECT djactor.send('t.paused', 'k1', '{"sender": 5, "seq": 1}')}), '>', $last,
		"$how: ids go on");
	$node->safe_psql($database, q{
		INSERT INTO sent VALUES (5, 1, 't.paused', 'k1');
		SELECT djactor.resume('t.work'); SELECT djactor.resume('t.paused');
		SELECT djactor.resume()});
	ok(wait_until("the mail of $database is handled", sub {
		$node->safe_psql($database, q{SELECT count(*) FROM djactor.message}) eq '1' }), "$how: what waited is handled in the copy");
	is($node->safe_psql($database, q{SELECT status FROM djactor.actor WHERE actor_type = 't.suspends'}), 'suspended',
		"$how: who was suspended is");
	is($node->safe_psql($database, q{
		(SELECT sender, seq FROM sent EXCEPT SELECT sender, seq FROM ledger) UNION ALL
		(SELECT sender, seq FROM ledger EXCEPT SELECT sender, seq FROM sent) UNION ALL
		(SELECT sender, seq FROM ledger GROUP BY 1, 2 HAVING count(*) > 1)}), '', "$how: each exactly once");
	is($node->safe_psql($database, q{
		SELECT * FROM (SELECT actor_type, actor_key, count(*) FROM ledger GROUP BY 1, 2) l
		JOIN djactor.actor a USING (actor_type, actor_key) WHERE a.turns <> l.count OR (a.state->>'turn')::int <> l.count}), '',
		"$how: the actors go on from their state");
	$node->safe_psql($database, q{SELECT djactor.send('t.work', 'new', '{"sender": 6, "seq": 1}')});
	ok(wait_until('a new actor', sub {
		$node->safe_psql($database, q{SELECT turns FROM djactor.actor WHERE actor_key = 'new'}) eq '1' }), "$how: new actors get ids of their own");
	is($node->safe_psql($database, 'SELECT count(*) FROM (SELECT id FROM djactor.actor GROUP BY id HAVING count(*) > 1) x'), 0, "$how: unique ones");
}
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 402, 'the original is as it was');
$node->stop;
done_testing();
