# Contract 27, pg_upgrade: a server with waiting and paused mail, timers, dead letters, actors with state, watches and
# keys of duplicates becomes one of a later version. Every row arrives as it was; the data is at home in another cluster now,
# so nothing runs until djactor.resume(); then each message is handled once. A database without mail runs at once.
#
# DJACTOR_OLD_BIN is the bin directory of the older server, with djactor built for it (tools/test-matrix brings one).
# Without it the server under test is upgraded to itself, which shows everything but what a version changes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use File::Basename;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

chomp(my $new_bin = `pg_config --bindir`);
my $old_bin = $ENV{DJACTOR_OLD_BIN} // $new_bin;
my $version = sub { return `'$_[0]/postgres' --version` =~ s/.*?(\d+).*/$1/sr };
diag(sprintf 'from PostgreSQL %s to %s%s', $version->($old_bin), $version->($new_bin),
	$ENV{DJACTOR_OLD_BIN} ? '' : '; DJACTOR_OLD_BIN names no older server');

my $classes = PostgreSQL::Test::Utils::tempdir();
append_to_file("$classes/counting.py", <<'END');
class Counter:
    def __init__(self, key):
        self.key = key
        self.seen = []

    def handle_message(self, message):
        self.seen.append(message["n"])
END

# 18 has checksums unless told otherwise; the two clusters have to agree.
my $python = has_extension('plpython3u');
my @settings = ('djactor.max_workers' => 2, 'djactor_python.path' => $classes, Init => [ extra => ['--data-checksums'] ]);
my $old = new_server('old', @settings, Install => dirname($old_bin));
my $new = new_server('new', @settings);


#
# Three databases: one with a ledger and senders at work until the end, one with something of everything else, one without mail
#
new_app($old, $_) for 'app', 'more', 'quiet';
define_work($old, 'app', 'app', 't.paused');
as_role($old, 'app', 'app', q{
	SELECT djactor.pause('t.paused');
	SELECT post(1, 1, 300, 't.paused', 30);
	SELECT djactor.send('t.work', 'later', deliver_at => clock_timestamp() + '1 h')});
as_role($old, 'more', 'app', q{
	CREATE FUNCTION broken(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
		$$ BEGIN RAISE EXCEPTION 'broken'; END $$;
	CREATE FUNCTION ticks(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'set' THEN
			PERFORM djactor.watch('t.work', 'watched');
			PERFORM djactor.set_timer('tick', every => '300 ms', payload => '{"tick": true}');
			PERFORM djactor.set_timer('once', after => '1 h', payload => '{"once": true}');
		END IF;
		RETURN jsonb_build_object('ticks', coalesce((state->>'ticks')::int, 0) + 1);
	END $$;
	SELECT djactor.define_actor_type('t.broken', 'public.broken', max_attempts => 1);
	SELECT djactor.define_actor_type('t.ticks', 'public.ticks', journal => '1 day');
	SELECT djactor.send('t.broken', 'k' || g) FROM generate_series(1, 5) g;
	SELECT djactor.send('t.work', 'watched', '{"sender": 1, "seq": 1}', idempotency_key => 'once', wants_reply => true)});
$old->safe_psql('more', q{
	CREATE EXTENSION plpython3u;
	CREATE EXTENSION djactor_python;
	SELECT djactor.define_python_actor('t.counter', 'counting.Counter', owner => 'app')}) if $python;
define_work($old, 'more', 'app', 't.counter') unless $python;
$old->safe_psql('more', q{SELECT djactor.send('t.counter', 'k', '{"n": 1}')});
$old->safe_psql('quiet', q{SELECT post(1, 1, 50, 't.work', 5)});
ok(wait_drained($old, $_), "the mail of $_ is handled") for 'more', 'quiet';
$old->safe_psql('more', q{
	SELECT djactor.pause('t.counter');
	SELECT djactor.send('t.counter', 'k', '{"n": 2}');
	SELECT djactor.send('t.ticks', 'k', '{"set": true}')});
ok(wait_until('ticks', sub { $old->safe_psql('more', q{SELECT (state->>'ticks')::int > 1 FROM djactor.actor WHERE actor_type = 't.ticks'}) eq 't' }),
	'a timer ticks');
start_sender($old, 'app', 'app', id => 10 + $_, fail => 50) for 1 .. 2;
ok(wait_until('load', sub { $old->safe_psql('app', 'SELECT count(*) FROM ledger') > 300 }), 'there is load');
$old->stop('fast');
my $known = stop_senders();

# What all tables hold.  Without the library no worker touches them.
sub tables_of
{
	my ($node) = @_;
	my $all = '';

	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
	$node->start;
	for my $database ('app', 'more', 'quiet')
	{
		for my $table (split /\n/, $node->safe_psql($database, q{SELECT oid::regclass FROM pg_class
			WHERE relkind = 'r' AND relnamespace IN ('djactor'::regnamespace, 'public'::regnamespace) ORDER BY oid::regclass::text}))
		{
			$all .= "$database $table " . $node->safe_psql($database, "SELECT count(*), md5(string_agg(r::text, ' ' ORDER BY r::text)) FROM $table r") . "\n";
		}
	}
	$node->stop;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'djactor'\n");
	return $all;
}

my $tables = tables_of($old);
my %waits = map { $_ => ($tables =~ /^$_ djactor\.message (\d+)/m)[0] } 'app', 'more';
cmp_ok($waits{app}, '>', 300, 'mail waits');
like($tables, qr/^more djactor\.$_ [1-9]/m, "rows of djactor.$_")
	for qw(actor_type actor message dead_letter reply timer watch idempotency journal);
$new->stop;
my $work = PostgreSQL::Test::Utils::tempdir();
chdir $work or die "$work: $!";
command_ok([ 'pg_upgrade', '--no-sync', '-b', $old_bin, '-B', $new_bin, '-d', $old->data_dir, '-D', $new->data_dir,
		'-s', $new->host, '-p', $old->port, '-P', $new->port ], 'pg_upgrade');
is(tables_of($new), $tables, 'every row arrives as it was');

#
# Held
#
$new->start;
for my $database ('app', 'more')
{
	ok(wait_until('a line in the log', sub { log_count($new, qr/djactor holds the mail of database "$database": it is a copy/) }),
		"$database: the log says that the mail is held");
	is($new->safe_psql($database, 'SELECT djactor.held()'), 't', "$database: so does held()");
}
sleep 0.7;
is($new->safe_psql($_, 'SELECT count(*) FROM djactor.message'), $waits{$_}, "$_: nothing runs, no timer fires") for 'app', 'more';
$new->safe_psql('quiet', q{SELECT post(1, 51, 50, 't.work', 5)});
ok(wait_drained($new, 'quiet'), 'a database that came without mail runs at once');
check_ledger($new, 'quiet');

#
# Resumed
#
as_role($new, 'app', 'app', 'SELECT djactor.resume()');
ok(wait_until('mail', sub { $new->safe_psql('app', 'SELECT count(*) FROM djactor.message') eq '301' }),
	'after resume() mail is handled, but not what is for later, nor what an operator paused');
as_role($new, 'app', 'app', q{
	SELECT djactor.resume('t.paused');
	SELECT post(2, 1, 50, 't.work', 5)});
ok(wait_until('mail', sub { $new->safe_psql('app', 'SELECT count(*) FROM djactor.message') eq '1' }), '... and then that, too');
check_ledger($new, 'app', $known);
is($new->safe_psql('app', q{
	SELECT count(*) FROM ledger a JOIN ledger b USING (message) WHERE a.serial <> b.serial}), 0, 'no id is given twice');

my $journal = $new->safe_psql('more', 'SELECT max(id) FROM djactor.journal');
as_role($new, 'more', 'app', q{
	SELECT djactor.resume();
	SELECT djactor.resume('t.counter');
	SELECT djactor.send('t.work', 'watched', '{"sender": 1, "seq": 2}', idempotency_key => 'once')});
ok(wait_until('ticks', sub { $new->safe_psql('more',
	qq{SELECT max((meta->>'missed')::int) FROM djactor.journal WHERE id > $journal}) > 0 }), 'timers tick, and say what was missed');
ok(wait_until('mail', sub { $new->safe_psql('more', q{SELECT count(*) FROM djactor.message WHERE kind = 'user'}) eq '0' }), 'mail is handled');
SKIP:
{
	skip 'no PL/Python here', 1 unless $python;
	is($new->safe_psql('more', q{SELECT state->'seen' FROM djactor.actor WHERE actor_type = 't.counter'}), '[1, 2]',
		'a Python actor goes on with its state');
}
is($new->safe_psql('more', q{SELECT count(*) FROM ledger WHERE sender = 1}), 1, 'a duplicate of before is one still');
as_role($new, 'more', 'app', q{
	SELECT djactor.stop_actor('t.work', 'watched');
	SELECT djactor.redrive(min(id)) FROM djactor.dead_letter});
ok(wait_until('a down message', sub { $new->safe_psql('more', q{SELECT count(*) FROM djactor.journal WHERE kind = 'down'}) eq '1' }),
	'who watched an actor is told of its end');
ok(wait_until('a redriven message', sub { $new->safe_psql('more', q{SELECT count(*) FROM djactor.dead_letter WHERE redrives > 0}) eq '1' }),
	'a dead letter can be redriven');
$new->stop;
done_testing();
