# Failover.  A hot standby runs no workers and takes no mail; promoted, it goes on with what had
# been committed on the primary and streamed, as one: state, mailboxes and user tables
# agree (contract 26), and a promoted standby is not held (contract 27).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Cluster;
use Test::More;
use Time::HiRes qw(sleep);

my $primary = new_server('primary', Init => [ allows_streaming => 1 ], 'djactor.max_workers' => 2,
	shared_buffers => '16MB');
new_app($primary, 'app');
define_work($primary, 'app', 'app', 't.paused');
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

is(scalar(process_ids($standby, 'djactor launcher')), 0, 'no launcher in recovery');
my ($status, $out, $err) = $standby->psql('app', q{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('t.work', 'k')});
like($err, qr/read-only transaction/, 'a standby takes no mail');

$primary->safe_psql('app', q{
	SELECT djactor.pause('t.paused');
	SELECT post(1, 1, 500, 't.paused', 50);
	SELECT djactor.send('t.work', 'later', '{"sender": 2, "seq": 1}', deliver_at => clock_timestamp() + '5 s');
	INSERT INTO sent VALUES (2, 1, 't.work', 'later')});
start_sender($primary, 'app', 'app', id => 10 + $_, fail => 50) for 1 .. 3;
ok(wait_until('load', sub { $standby->safe_psql('app', 'SELECT count(*) FROM sent') > 1000 }), 'the standby follows under load');
# the standby may be behind; what it has is one moment of the primary
$primary->stop('immediate');
$standby->promote;
stop_senders();
ok(wait_until('a launcher', sub { process_ids($standby, 'djactor launcher') == 1 }), 'the launcher starts with the promotion');
ok(wait_until('all but the paused is handled', sub {
	$standby->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_type <> 't.paused'}) eq '0' }),
	'mail in flight is handled on the promoted standby');
is($standby->safe_psql('app', q{SELECT count(*) FROM djactor.message}), 500, 'what was paused is paused');
is($standby->safe_psql('app', 'SELECT djactor.held()'), 'f', 'it is no copy, and not held');
$standby->safe_psql('app', q{SELECT djactor.resume('t.paused')});
ok(wait_drained($standby, 'app'), 'until it is resumed');
check_ledger($standby, 'app');
cmp_ok($standby->safe_psql('app', 'SELECT count(*) FROM sent'), '>', 600, 'there was load');

$standby->safe_psql('app', q{SELECT post(3, 1, 500, 't.work', 50)});
ok(wait_drained($standby, 'app'), 'new mail too');
check_ledger($standby, 'app');

$standby->stop;
done_testing();
