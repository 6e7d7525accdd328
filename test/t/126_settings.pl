# What a role has set for its sessions holds for all that is sent afterwards (contract 33), also while a worker with the settings of
# before is in the middle of a batch: it takes no further mailbox into it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

# One worker, whose batch would go on for a minute.
my $node = new_server('settings', 'djactor.max_workers' => 1, 'djactor.batch_time' => 60000, 'djactor.batch_size' => 10000);

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE FUNCTION public.see(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_sleep((message ->> 'lasts')::float);
		RETURN to_jsonb(current_setting('shop.tenant', true));
	END $$;
	SELECT djactor.define_actor_type('t.see', 'public.see', initial_state => '"none"')});

sub app_says
{
	my ($what, $condition) = @_;

	return ok(wait_until($what, sub { $node->safe_psql('app', "SELECT $condition") eq 't' }), $what);
}

$node->safe_psql('postgres', q{ALTER ROLE app SET shop.tenant = 'old'});
as_role($node, 'app', 'app', q{SELECT djactor.send('t.see', 'a', '{"lasts": 0}')});
app_says('the first turn', '(SELECT count(*) = 1 FROM djactor.actor)');

# A batch is in the middle of many short turns when the setting changes; the last message is sent then.
as_role($node, 'app', 'app', q{SELECT djactor.send('t.see', 'b' || g, '{"lasts": 0.0005}') FROM generate_series(1, 2000) g});
app_says('the batch begins', "(SELECT count(*) = 1 FROM djactor.worker WHERE actor_type = 't.see')");
$node->safe_psql('postgres', q{ALTER ROLE app SET shop.tenant = 'new'});
as_role($node, 'app', 'app', q{SELECT djactor.send('t.see', 'c', '{"lasts": 0}')});
app_says('all turns', '(SELECT count(*) = 2002 FROM djactor.actor)');
is($node->safe_psql('app', q{SELECT state #>> '{}' FROM djactor.actor WHERE actor_key = 'a'}), 'old', 'a turn before ALTER ROLE');
is($node->safe_psql('app', q{SELECT state #>> '{}' FROM djactor.actor WHERE actor_key = 'c'}),
	'new', 'who is sent to after ALTER ROLE sees what it has set');

done_testing();
