# log_min_messages = debug1, which some servers run with, floods no log: djactor's processes write nothing while
# they idle, nothing for each batch or message that goes well, and a line for each failed attempt.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('debug',
	log_min_messages => 'debug1',
	log_line_prefix => '<%b> ',
	'djactor.max_workers' => 4,
	'djactor.batch_size' => 20,
	'djactor.idle_timeout' => '1s');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	SELECT djactor.send('t.work', 'later', deliver_at => now() + '1 h');
	SELECT djactor.send('t.work', 'first')});
ok(wait_until('rest', sub { $node->safe_psql('app', q{
	SELECT count(*), bool_and(state = 'idle' AND now() - since > '1.5 s') FROM djactor.worker WHERE pid IS NOT NULL}) eq '1|t' }),
	'extra workers have ended, and the resident sleeps');

# lines($log): what djactor's processes have logged since, and the postmaster about them.
sub lines
{
	my ($log) = @_;

	return grep { /^<djactor / || /djactor|background worker/ } split /\n/, log_since($node, $log);
}

my $log = -s $node->logfile;
sleep 2;
is(join("\n", lines($log)), '', 'nothing while idle');

$log = -s $node->logfile;
as_role($node, 'app', 'app', 'DELETE FROM ledger');
as_role($node, 'app', 'app', "SELECT post(1, $_ * 500, 500, 't.work', 50)") for 1 .. 10;
ok(wait_until('all', sub { $node->safe_psql('app', 'SELECT count(*) FROM ledger') eq '5000' }), '5,000 messages');
my $batches = $node->safe_psql('app', 'SELECT count(DISTINCT xmin::text) FROM ledger');
my @lines = lines($log);
note("$batches batches: ", join("\n", @lines));
cmp_ok($batches, '>=', 250, 'in 250 batches at least');
# An extra worker's start and end are four lines of the server's own.
cmp_ok(scalar(@lines), '<=', 4 * 4, 'do not show in the log, but for workers that start and end');

$log = -s $node->logfile;
as_role($node, 'app', 'app', q{SELECT post(2, 1, 10, 't.work', 10, '{"fail": 3}')});
ok(wait_until('all', sub { $node->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender = 2') eq '10' }), 'ten that fail three times');
@lines = grep { /attempt \d fails/ } lines($log);
is(scalar(@lines), 30, 'are a line for each attempt');

$node->stop;
done_testing();
