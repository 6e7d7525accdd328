# A handler runs in a transaction block, as if BEGIN had opened it. Extensions that write on other servers ask for that, and let those
# servers commit at once where there is none: what a failed turn has written there would stay (contract 3 and 11).
#
# - So it is in a batch, in a turn that runs alone, under a savepoint, in the next batch after one that failed, and in a handler in C.
# - So it is in deferred triggers, which fire at the end of a turn.
# - It ends with the batch: an idle worker is in no transaction.
# - drain() opens none: it runs in its caller's transaction, whatever that is.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = PostgreSQL::Test::Utils::tempdir_short() . '/in_block.so';
chomp(my $headers = `pg_config --includedir-server`);

system('cc', '-shared', '-fPIC', '-isystem', $headers, '-o', $library, "$FindBin::RealBin/in_block.c") == 0
  or die 'in_block.c does not compile';

my $node = new_server('block', 'djactor.max_workers' => 1);

new_app($node, 'app');
$node->safe_psql('app', qq{
	CREATE FUNCTION public.in_block() RETURNS boolean LANGUAGE c AS '$library';
	CREATE FUNCTION public.block_handler(state jsonb, message jsonb) RETURNS jsonb LANGUAGE c AS '$library';
	-- where = which kind of turn
	CREATE TABLE public.seen (place text, xid xid8, block boolean);
	GRANT ALL ON public.seen TO app});
as_role($node, 'app', 'app', q{
	CREATE FUNCTION public.see(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.seen VALUES (message ->> 'place', pg_current_xact_id(), public.in_block());
		IF message ? 'fail' AND (djactor.message()).attempts = 0 THEN
			-- by then no other is in its transaction, and what it has seen is undone with it
			RAISE EXCEPTION 'block: %', public.in_block();
		END IF;
		BEGIN
			INSERT INTO public.seen VALUES (message ->> 'place', pg_current_xact_id(), public.in_block());
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			INSERT INTO public.seen VALUES (message ->> 'place', pg_current_xact_id(), public.in_block());
		END;
		INSERT INTO public.late VALUES (message ->> 'place');
		RETURN state;
	END $$;
	CREATE TABLE public.late (place text);
	CREATE FUNCTION public.see_late() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.seen VALUES (new.place || ', deferred', pg_current_xact_id(), public.in_block());
		RETURN NULL;
	END $$;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON public.late DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION public.see_late();
	SELECT djactor.define_actor_type('t.batch', 'public.see', backoff => '1 ms');
	SELECT djactor.define_actor_type('t.alone', 'public.see', batch_size => 1, backoff => '1 ms');
	SELECT djactor.define_actor_type('t.c', 'public.block_handler');
	SELECT djactor.send('t.batch', 'k' || i, '{"place": "batch"}') FROM generate_series(1, 20) i;
	SELECT djactor.send('t.alone', 'k' || i, '{"place": "alone"}') FROM generate_series(1, 3) i;
	SELECT djactor.send('t.c', 'k')});
ok(wait_drained($node, 'app'), 'messages are handled');

sub seen
{
	return $node->safe_psql('app', q{
		SELECT place, bool_and(block), count(*) FROM public.seen GROUP BY 1 ORDER BY 1});
}

is(seen(), "alone|t|6\nalone, deferred|t|3\nbatch|t|40\nbatch, deferred|t|20", 'each turn runs in a transaction block, and so do its deferred triggers');
cmp_ok($node->safe_psql('app', q{SELECT count(DISTINCT xid) FROM public.seen WHERE place = 'batch'}), '<', 20, '... also where they share it');
is($node->safe_psql('app', q{SELECT state FROM djactor.actor WHERE actor_type = 't.c'}), 'true', '... and so does a handler in C');

# One fails: the batch is aborted and runs again, now with savepoints; of the turn that runs alone the message tells.
$node->safe_psql('app', 'TRUNCATE public.seen');
as_role($node, 'app', 'app', q{
	SELECT djactor.pause('t.batch');
	SELECT djactor.send('t.batch', 'k' || i, jsonb_build_object('place', 'savepoint') || CASE i WHEN 5 THEN '{"fail": true}'::jsonb ELSE '{}' END)
		FROM generate_series(1, 10) i;
	SELECT djactor.send('t.alone', 'k', '{"place": "failed alone", "fail": true}');
	SELECT djactor.resume('t.batch')});
ok(wait_drained($node, 'app'), 'a turn that failed is made again');
is(seen(), "failed alone|t|2\nfailed alone, deferred|t|1\nsavepoint|t|20\nsavepoint, deferred|t|10", '... and is in a block, too, and so are the turns beside it');
is($node->safe_psql('app', q{SELECT string_agg(DISTINCT last_error, ',') FROM djactor.actor WHERE last_error IS NOT NULL}), 'block: t',
	'... as it was when it failed');

is($node->safe_psql('app', q{
	SELECT bool_and(xact_start IS NULL AND backend_xmin IS NULL) FROM pg_stat_activity WHERE backend_type = 'djactor worker'}), 't',
	'an idle worker is in no transaction');

# in a transaction of its own, and in a block
my $send = q{SELECT djactor.send('t.batch', 'drained', '{"place": "drain"}')};

for ([ 'f', "$send, djactor.drain()" ], [ 't', "BEGIN; $send; SELECT djactor.drain(); COMMIT" ])
{
	my ($block, $drain) = @$_;
	my $session = session($node, 'app', 'app');

	$node->safe_psql('app', 'TRUNCATE public.seen');
	$session->query($drain);
	$session->quit;
	like(seen(), qr/^drain\|$block\|2$/m, $block eq 't' ? 'drain() in a block runs handlers in that block' : 'drain() opens no block');
}
$node->stop;
done_testing();
