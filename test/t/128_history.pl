# djactor.stat_history: a row for each minute in which something was counted, hours of what is older than a day, nothing older
# than thirty days; each turn once, whatever happens to the server, to the clock, to types, or to the table; and no mail waits for it.
# The server runs under jumping_clock.c, whose clock follows a file, so that minutes pass at once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = PostgreSQL::Test::Utils::tempdir_short() . '/jumping_clock.so';

system('cc', '-shared', '-fPIC', '-o', $library, "$FindBin::RealBin/jumping_clock.c", '-ldl') == 0
  or plan skip_all => 'there is no C compiler';

my $file = PostgreSQL::Test::Utils::tempdir_short() . '/clock';
my $offset = 0;

# set_clock($seconds): from the real time
sub set_clock
{
	($offset) = @_;

	open my $out, '>', "$file.new" or die "$file: $!";
	printf $out "%+d\n", $offset;
	close $out;
	chmod 0644, "$file.new";
	rename "$file.new", $file;
}

my ($minute, $hour, $day) = (60, 3600, 86400);
my $node = new_server('history', autovacuum => 'off', 'djactor.poll_interval' => '1h', 'djactor.idle_timeout' => '1s');

$node->stop;
set_clock(0);
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{JUMPING_CLOCK} = $file;

	$node->start;
}
new_app($node, 'app');
new_app($node, 'other');
as_role($node, $_, 'app', q{
	CREATE FUNCTION judge(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'bad' THEN
			RAISE EXCEPTION 'bad';
		END IF;
	END $$;
	SELECT djactor.define_actor_type('t.judge', 'judge', max_attempts => 1, breaker_failures => NULL)}) for 'app', 'other';

# later($seconds): that much later, and what sleeps has noticed
sub later
{
	my ($seconds) = @_;

	set_clock($offset + $seconds);
	$node->safe_psql($_, 'NOTIFY djactor') for 'app', 'other';
}
sub post
{
	my ($good, $bad, $database) = @_;

	$database //= 'app';
	$node->safe_psql($database, qq{
		SELECT djactor.send('t.judge', g::text) FROM generate_series(1, $good) g;
		SELECT djactor.send('t.judge', g::text, '{"bad": true}') FROM generate_series(1, $bad) g});
	return ok(wait_drained($node, $database), 'mail flows');
}
sub history
{
	my ($what, $database) = @_;

	return $node->safe_psql($database // 'app', "SELECT $what FROM djactor.stat_history WHERE actor_type = 't.judge'");
}
sub written
{
	my ($handled, $failed, $what, $database) = @_;

	return ok(wait_until($what, sub {
		history('coalesce(sum(handled), 0), coalesce(sum(failed), 0)', $database) eq "$handled|$failed" }), $what);
}

#
# Minutes
#
post(20, 3);
later($minute);
written(20, 3, 'when the minute is over, what was counted in it is written');
is(history('sum(dead), bool_and(minutes = 1), bool_and(at = date_trunc(\'minute\', at)), bool_and(at <= now())'), '3|t|t|t',
	'... all of it, in rows of minutes');
is(history('sum((SELECT sum(n) FROM unnest(wait) n)), sum((SELECT sum(n) FROM unnest(run) n))'), '20|20', '... with the time of each turn');
is(history(q{djactor.stat_percentile(run, 0.95) BETWEEN '1 us' AND '1 min', djactor.stat_percentile(wait, 1) >= djactor.stat_percentile(wait, 0)}),
	't|t', '... of which percentiles are made');
my $rows = history('count(*)');
later($hour);
later($hour);
post(1, 0, 'other');
later($minute);
written(1, 0, 'another database has a history of its own', 'other');
is(history('count(*)'), $rows, 'hours in which nothing is counted have no rows');
for (1 .. 3)
{
	later(5 * $minute);
	post(5, 0);
	later($minute);
	written(20 + 5 * $_, 3, 'the next minute follows');
}
cmp_ok(history('count(*)'), '>=', $rows + 3, 'each has a row');

#
# Two types, one that moves to another pool, one that is dropped with something to be written
#
as_role($node, 'app', 'app', q{SELECT djactor.define_actor_type('t.gone', 'judge')});
$node->safe_psql('app', q{SELECT djactor.send('t.gone', 'k')});
post(5, 0);
as_role($node, 'app', 'app', q{SELECT djactor.drop_actor_type('t.gone', discard => true)});
later($minute);
written(40, 3, 'a type that is dropped leaves the others their history');

#
# A lock, and a failure
#
my $holder = session($node, 'app', 'app');
my $log = -s $node->logfile;

$holder->query('BEGIN; LOCK TABLE djactor.stat_history');
post(5, 0);
later($minute);
ok(wait_until('it gives up', sub { log_since($node, $log) =~ /canceling statement due to lock timeout.*could not write djactor.stat_history/s }), 'the lock is not waited for');
post(5, 0);
$holder->query('COMMIT');
later($minute);
written(50, 3, 'and nothing is missing afterwards');
$holder->quit;

my ($resident) = map { $_->[0] } grep { $_->[3] eq 't' } workers($node, 'app');

$log = -s $node->logfile;
$node->safe_psql('app', q{
	CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
	CREATE TRIGGER foreign_trigger BEFORE INSERT ON djactor.stat_history FOR EACH ROW EXECUTE FUNCTION nothing()});
post(5, 0);
later($minute);
ok(wait_until('it fails', sub { log_since($node, $log) =~ /trigger "foreign_trigger" on table djactor.stat_history/ }), 'an error is logged');
post(5, 0);
$node->safe_psql('app', 'DROP TRIGGER foreign_trigger ON djactor.stat_history');
later($minute);
written(60, 3, 'and nothing is missing when that is over');
is(join(' ', map { $_->[0] } grep { $_->[3] eq 't' } workers($node, 'app')), $resident, 'the worker has gone on');

#
# Hours, and what is too old
#
later(26 * $hour);
post(1, 0);
later($minute);
written(61, 3, 'a day later');
ok(wait_until('hours', sub { history(q{count(*) FILTER (WHERE minutes = 1 AND at < now() - interval '25 h')}) == 0 }),
	'minutes that are older than a day become hours');
is(history(q{bool_and(at = date_trunc('hour', at, 'UTC')) FILTER (WHERE minutes = 60), count(*) FILTER (WHERE minutes = 60) BETWEEN 1 AND 5}), 't|t',
	'... full hours, each once');
is(history('sum(handled), sum(failed), sum(dead), sum((SELECT sum(n) FROM unnest(wait) n))'), '61|3|3|61', '... that add up to the same');
later(28 * $day);
post(1, 0);
later($minute);
written(62, 3, 'the hours stay for days');
later(2.5 * $day);
post(1, 0);
later($minute);
ok(wait_until('old hours go', sub { history('sum(handled)') == 2 }), 'and go after thirty');
is(history('count(*) FILTER (WHERE at < now() - interval \'30 d\' - interval \'1 h\'), sum(failed)'), '0|0', '... none of them is left');
later(31 * $day);
post(1, 0);
later($minute);
written(1, 0, 'whatever is older goes');

#
# A clock that is set back
#
later(-3 * $day);
post(2, 0);
later($minute);
written(3, 0, 'after a clock was set back, history goes on');
is(history('count(*) FILTER (WHERE at > now()), count(*) FILTER (WHERE minutes = 1 AND at <= now()) > 0'), '1|t', '... at the new time');
post(2, 0);
later(-$hour);
written(5, 0, 'also what was counted before it was set back');

#
# A crash: the server counts anew
#
post(2, 0);
later($minute);
written(7, 0, 'before the crash');
($resident) = map { $_->[0] } grep { $_->[3] eq 't' } workers($node, 'app');
ok(kill_backend($node, $resident), 'a worker is killed');
post(2, 1);
later($minute);
written(9, 1, 'after a crash, nothing is counted twice, and nothing below zero');
is(history('count(*) FILTER (WHERE least(handled, failed, retried, dead, duplicates, expired, coalesced, 0) < 0)'), 0, 'in no column');

#
# What a host has done, while the resident sleeps: it wakes when the minute is over, by itself
#
as_role($node, 'app', 'app', q{SELECT djactor.define_actor_type('t.web', NULL, hosted => true)});
my $host = session($node, 'app', 'app');

$host->query(q{SELECT djactor.host_open('{t.web}', 'web')});
$node->safe_psql('app', q{SELECT djactor.send('t.web', 'k')});
$host->query('CREATE TEMP TABLE taken (token bigint, id bigint)');
ok(wait_until('mail', sub { $host->query('INSERT INTO taken SELECT token, id FROM djactor.take(1) RETURNING id') ne '' }), 'a host has mail');
ok(wait_until('it sleeps', sub {
	$node->safe_psql('app', q{SELECT count(*) FROM djactor.worker WHERE state = 'idle' AND since < now() - interval '3 s'}) eq '1' }),
	'... and the resident has nothing to do');
is($host->query('SELECT djactor.complete(array_agg(token), array_agg(id), array_agg(NULL::jsonb)) FROM taken'), '{done}', '... until it has ended its turn');
ok(wait_until('the row', sub {
	$node->safe_psql('app', q{SELECT sum(handled) FROM djactor.stat_history WHERE actor_type = 't.web'}) eq '1' }, 3 * $DjactorTest::PATIENCE),
	'it is written when its minute is over, though nobody wakes the resident');
$host->quit;

#
# Without the extension
#
post(1, 0);
$node->safe_psql('app', 'DROP EXTENSION djactor CASCADE');
later($minute);
$node->safe_psql('app', 'CREATE EXTENSION djactor');
is(history('count(*)'), 0, 'with the extension goes its history');
is(log_count($node, qr/PANIC|TRAP:/), 0, 'no process has failed');

$node->stop;
done_testing();
