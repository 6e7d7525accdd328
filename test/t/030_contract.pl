# The points of the contract (docs/contract.md) that need a crash, a copy, a single worker or a listener: 26, 28, 29.
# The other points have test/sql/contract_NN_*.sql, test/specs/contract-NN-*.spec; 15 has 016_crash_marker.pl, 27 has 017_held.pl.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Cluster;
use Test::More;

# One worker, so that nobody else can do what it leaves undone; nothing but its promise makes a commit durable.
my $node = new_server('contract',
	Init => [ allows_streaming => 1 ],
	'djactor.max_workers' => 1,
	'djactor.poll_interval' => '1h',
	wal_writer_delay => '10s',
	fsync => 'on',
	synchronous_commit => 'on');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE FUNCTION count_up(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
	BEGIN
		state := to_jsonb(coalesce((state->>0)::int, 0) + 1);
		RETURN ROW(state, state)::djactor.result;
	END $$;
	SELECT djactor.define_actor_type('t.count', 'count_up', initial_state => '0')});

subtest 'contract 26: an observed reply is durable' => sub {
	for my $n (1 .. 6)
	{
		is(as_role($node, 'app', 'app', q{CALL djactor.ask('t.count', 'a', timeout => '1 min')}), $n,
			"reply $n: what came before is still there");
		$node->stop('immediate');
		$node->start;
		is($node->safe_psql('app', q{SELECT state, turns FROM djactor.actor WHERE actor_type = 't.count'}),
			"$n|$n", 'after the crash the state is what the reply said');
		is($node->safe_psql('app', 'SELECT count(*), max(payload::text) FROM djactor.reply'), "$n|$n",
			'the replies are there');
	}
	$node->safe_psql('app', q{SELECT djactor.drop_actor_type('t.count', true)});
};

subtest 'contract 26: after a failover state, mailboxes and tables agree' => sub {
	my $standby = PostgreSQL::Test::Cluster->new('contract_standby');
	my $known;

	start_sender($node, 'app', 'app', id => $_, keys => 30, fail => 30, pause => 0.002) for 1 .. 2;
	ok(wait_until('there is load', sub {
		$node->safe_psql('app', 'SELECT count(*) FROM ledger') > 500 }), 'there is load');
	$node->backup('copy');
	$standby->init_from_backup($node, 'copy', has_streaming => 1);
	$standby->start;
	ok(wait_until('it follows', sub { $standby->safe_psql('app', 'SELECT count(*) FROM ledger') > 800 }),
		'a standby follows');

	# The primary dies in the middle of it all; what the standby has, it has whole.
	$node->stop('immediate');
	$standby->promote;
	ok(wait_drained($standby, 'app'), 'it goes on where the primary was');
	check_ledger($standby, 'app');
	$standby->stop;
	$node->start;
	$known = stop_senders();
	ok(wait_drained($node, 'app'), 'and the primary, when it is back, likewise');
	check_ledger($node, 'app', $known);
};

subtest 'contract 28: a backlog of one type delays another by a batch' => sub {
	define_work($node, 'app', 'app', 't.big', 'batch_size => 100');
	define_work($node, 'app', 'app', 't.small');
	$node->safe_psql('app', q{
		TRUNCATE ledger, sent;
		SELECT djactor.pause('t.big'), djactor.pause('t.small');
		SELECT post(100, 1, 20000, 't.big', 2000);
		SELECT post(101, 1, 1, 't.small', 1)});
	# Both become due at once; the big one has been there for longer.
	$node->safe_psql('app', q{SELECT djactor.resume('t.big'), djactor.resume('t.small')});
	ok(wait_drained($node, 'app'), 'both are handled');
	cmp_ok($node->safe_psql('app', q{
		SELECT count(*) FROM ledger WHERE sender = 100
			AND serial < (SELECT serial FROM ledger WHERE sender = 101)}),
		'<=', 200, 'the one message waited for a batch, not for the backlog');
};

subtest 'contract 29: pg_notify works in a turn, and is sent by its commit' => sub {
	my $listener = session($node, 'app', 'app');
	my $got = '';

	as_role($node, 'app', 'app', q{
		CREATE FUNCTION tell(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM pg_notify('told', message->>'n');
			IF message ? 'fail' THEN
				RAISE EXCEPTION 'failing';
			END IF;
		END $$;
		SELECT djactor.define_actor_type('t.tell', 'tell', max_attempts => 1)});
	$listener->query('LISTEN told');
	as_role($node, 'app', 'app', q{
		INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES
			('t.tell', 'a', '{"n": "first"}'), ('t.tell', 'a', '{"n": "failed", "fail": true}'), ('t.tell', 'b', '{"n": "last"}')});
	ok(wait_until('notifications', sub { $got .= $listener->query('SELECT 1'); $got =~ /last/ && $got =~ /first/ }),
		'those of turns that committed arrive');
	unlike($got, qr/failed/, 'that of the turn that failed does not');
	$listener->quit;
};

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');

$node->stop;
done_testing();
