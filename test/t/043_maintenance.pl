# What database administrators do to tables, done to djactor's under load, ledger-checked: VACUUM FULL, CLUSTER, REINDEX,
# also CONCURRENTLY, other tablespaces, VACUUM FREEZE, indexes of their own, exclusive locks, changed settings; all of it
# beside a snapshot that stays open.  Rows change their places, indexes their OIDs, and no turn is lost, run twice or
# charged for it.  What cannot go well is refused: TRUNCATE, and triggers that workers would not fire.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('maintenance', 'djactor.max_workers' => 3, 'djactor.poll_interval' => '1h',
	'djactor.max_crashes' => 100, autovacuum_naptime => '1s', max_wal_size => '256MB');

new_app($node, 'app');
define_work($node, 'app', 'app', 't.more', q{retry_order => 'hold'});
define_work($node, 'app', 'app', 't.paused');
start_ticking($node, 'app', 'app', '50 ms');
as_role($node, 'app', 'app', q{
	SELECT djactor.pause('t.paused');
	SELECT post(1, 1, 300, 't.paused', 30)});
$node->safe_psql('app', q{SET allow_in_place_tablespaces = on; CREATE TABLESPACE spare LOCATION ''});

my $old = session($node, 'app');
$old->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_snapshot()');
start_sender($node, 'app', 'app', id => 10 + $_, keys => 30 * $_, fail => 50, pause => 0.005, types => [ 't.work', 't.more' ]) for 1 .. 3;

my @tables = qw(actor message actor_identity timer actor_type);
my @commands = (
	(map { "VACUUM FULL djactor.$_" } @tables),
	'CLUSTER djactor.actor USING actor_key', 'CLUSTER djactor.message USING message_pkey',
	(map { "REINDEX TABLE djactor.$_" } @tables),
	(map { "REINDEX TABLE CONCURRENTLY djactor.$_" } @tables),
	'REINDEX SCHEMA CONCURRENTLY djactor',
	(map { "ALTER TABLE djactor.$_ SET TABLESPACE spare" } @tables),
	'ALTER INDEX djactor.message_mailbox SET TABLESPACE spare', 'ALTER INDEX djactor.actor_key SET TABLESPACE spare',
	'VACUUM (FREEZE, ANALYZE)', 'ANALYZE',
	'ALTER TABLE djactor.actor SET (fillfactor = 90)',
	q{CREATE INDEX mine ON djactor.actor USING gin (state)},
	q{CREATE INDEX CONCURRENTLY mine_too ON djactor.actor (((state->>'turn')::int)) WHERE actor_key > 'k1'},
	q{CREATE INDEX CONCURRENTLY mine_as_well ON djactor.message USING gin (payload)},
	'VACUUM FULL djactor.actor', 'DROP INDEX CONCURRENTLY djactor.mine', 'DROP INDEX djactor.mine_as_well',
	(map { "BEGIN; LOCK TABLE djactor.$_; SELECT pg_sleep(0.2); COMMIT" } qw(message actor)),
	q{ALTER SYSTEM SET djactor.batch_size = 7; SELECT pg_reload_conf()},
	q{ALTER SYSTEM SET djactor.batch_time = '1ms'; ALTER SYSTEM SET djactor.idle_timeout = '1s'; SELECT pg_reload_conf()},
	q{ALTER SYSTEM RESET ALL; SELECT pg_reload_conf()},
	'VACUUM FULL', 'VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) djactor.actor');

for my $command (@commands)
{
	my $before = $node->safe_psql('app', 'SELECT count(*) FROM ledger');
	my $start = time;
	# what is done CONCURRENTLY waits for old snapshots
	$old->query('COMMIT') if $command =~ /CONCURRENTLY/;
	my ($status, undef, $error) = $node->psql('app', $command);

	is($error, '', "$command: done");
	note(sprintf '%.0f ms', 1000 * (time - $start));
	ok(wait_until('mail flows', sub { $node->safe_psql('app', 'SELECT count(*) FROM ledger') > $before + 20 }), '... and mail flows');
}
$old->quit;

# Killed in the middle of it, the server starts anew, and whatever is left of the command does no harm.
for my $command ('VACUUM FULL djactor.actor', 'REINDEX TABLE CONCURRENTLY djactor.message', 'CLUSTER djactor.message', 'ALTER TABLE djactor.actor SET TABLESPACE pg_default')
{
	my $offset = -s $node->logfile;
	my $session = session($node, 'app');
	my $pid = $session->query('SELECT pg_backend_pid()');
	my ($blocker, $before);

	# no lock on what is rebuilt: a snapshot that CONCURRENTLY waits for; the others go as far as they come
	$blocker = session($node, 'app') if $command =~ /CONCURRENTLY/;
	$blocker->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_snapshot()') if $blocker;
	$session->start($command);
	$blocker ? wait_until('it waits', sub { $node->safe_psql('app', q{SELECT count(*) FROM pg_index WHERE NOT indisvalid}) }) : sleep rand 0.05;
	kill 'KILL', $pid;
	ok(wait_until('a restart', sub { log_count($node, qr/all server processes terminated; reinitializing/, $offset)
		&& $node->safe_psql('app', 'SELECT 1') }), "killed during $command");
	$before = $node->safe_psql('app', 'SELECT count(*) FROM ledger');
	ok(wait_until('mail flows', sub { $node->safe_psql('app', 'SELECT count(*) FROM ledger') > $before + 20 }), '... and mail flows');
	$_->quit for grep { defined } $session, $blocker;
}
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM pg_index WHERE NOT indisvalid'), '>', 0, 'an index was left half done');
my $known = stop_senders();
$node->safe_psql('app', q{SELECT djactor.resume('t.paused')});
ok(wait_until('mail', sub { $node->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE kind <> 'timer'}) eq '0' }), 'all mail is handled');
as_role($node, 'app', 'app', q{SELECT djactor.stop_actor('t.ticks', 'k')});
check_ledger($node, 'app', $known);
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'no dead letters');
is(log_count($node, qr/tried again|could not record|PANIC|TRAP:|terminated by signal (?!9)/), 0, 'no batch was torn');

# Workers write rows without firing triggers, so one that counts on it keeps them from writing: what pg_repack does, say.
my $offset = -s $node->logfile;
$node->safe_psql('app', q{
	CREATE TABLE changes (what text);
	CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
		$$ BEGIN INSERT INTO public.changes VALUES (TG_OP); RETURN NULL; END $$;
	CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON djactor.message FOR EACH ROW EXECUTE FUNCTION note_change();
	SELECT post(20, 1, 10, 't.work', 5)});
my $hint = qr/trigger "note" on table djactor\.message keeps djactor from writing there\n.*DETAIL:.*\n.*HINT:/;
ok(wait_until('the log', sub { log_since($node, $offset) =~ $hint }), 'a trigger: the log says that nothing is written, and why');
is($node->safe_psql('app', 'SELECT string_agg(DISTINCT what, $$ $$) FROM changes'), 'INSERT', '... who sends is not concerned');
is($node->safe_psql('app', 'SELECT count(*), max(attempts) FROM djactor.message'), '10|0', '... mail waits, and is not charged');
like(($node->psql('app', 'SELECT djactor.cancel(min(id)) FROM djactor.message'))[2], qr/keeps djactor from writing/, '... it cannot be cancelled either');
$node->safe_psql('app', 'ALTER TABLE djactor.message DISABLE TRIGGER note');
ok(wait_drained($node, 'app'), '... without the trigger it is handled');
check_ledger($node, 'app');

for my $table (split /\n/, $node->safe_psql('app', q{SELECT relname FROM pg_class WHERE relnamespace = 'djactor'::regnamespace AND relkind = 'r' ORDER BY 1}))
{
	like(($node->psql('app', "TRUNCATE djactor.$table"))[2], qr/table djactor\.$table cannot be changed this way\nHINT/, "TRUNCATE djactor.$table is refused");
}
$node->stop;
done_testing();
