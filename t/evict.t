# evict: a full zone gives up old records for new ones, counts what it gave up, and never refuses what can fit. And what
# /zonemesh/zones shows of a zone.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 2, http => <<'CONF')->start;
    keyval_zone zone=cache:64k timeout=1h evict;
    keyval_zone zone=strict:64k sync;
    keyval_zone zone=a/b:64k type=ip;
    keyval $arg_key $value zone=cache;
    server {
        listen 127.0.0.1:%%PORT%%;
        client_body_buffer_size 64k;
        location /api  { api write=on; }
        location /read { return 200 "$value"; }
        location /set  { set $value $arg_v; return 204; }
    }
CONF

sub zone { return $node->get('/api/9/zonemesh/zones/' . $_[0])->json }

my $value = 'v' x 100;
my @refused = grep { $node->add('cache', "key $_", $value) != 201 } 1 .. 1500;
is("@refused", '', '1500 pairs are taken by a zone that has room for fewer');
my $left = $node->keyvals('cache');
cmp_ok(scalar keys %$left, '<', 1400, '... which gave up some');
cmp_ok(scalar keys %$left, '>', 100, '... and kept ' . keys %$left);
is(scalar(grep { $_ ne $value } values %$left), 0, '... each whole');
ok($left->{'key 1500'}, '... the last written among them');
my $shown = zone('cache');
is($shown->{evictions} + $shown->{records}, 1500, 'every pair is there or counted as evicted');
is($shown->{records}, scalar(keys %$left), '... and those that are there are counted');
is($shown->{refusals}, 0, '... and none was refused');

# Variables.
$node->clear('cache');
$node->get("/set?key=new$_&v=$value") for 1 .. 1500;
is($node->get('/read?key=new1500')->body, $value, 'a variable writes to a full zone');
is(scalar(my @lines = $node->grep_log(qr/can't write/)), 0, '... and nothing is logged');

# Mixed sizes.
is($node->add('cache', 'large', 'x' x 20_000), 201, 'a large value takes the place of many');
is($node->change('cache', 'large', 'y' x 20_000), 204, '... can be changed');
is($node->keyvals('cache')->{large}, 'y' x 20_000, '... and is whole');
is($node->post('/api/9/http/keyvals/cache', '{"impossible":"' . 'z' x 63_000 . '"}')->status, 507, 'what can never fit is refused');
is(zone('cache')->{refusals}, 1, '... and counted');

# Without evict.
my $i = 0;
1 while $i < 3000 && $node->add('strict', 'key ' . ++$i, $value) == 201;
cmp_ok($i, '<', 2000, 'a zone without evict refuses');
my $strict = zone('strict');
is($strict->{evictions}, 0, '... evicts nothing');
is($strict->{refusals}, 1, '... and counts it');
is($strict->{records}, $i - 1, '... and what it has');
is($node->drop('strict', 'key 1'), 204, 'a delete');
is(zone('strict')->{tombstones}, 1, '... leaves a tombstone, which is shown');

# What the endpoint shows.
ok(scalar(grep { $_ eq 'zones' } @{ $node->get('/api/9/zonemesh/')->json }), '/zonemesh/ names what is below it');
for my $slash ('', '/') {
    is_deeply($node->get("/api/9/zonemesh/zones$slash")->json, [ 'a/b', 'cache', 'strict' ], "zones$slash lists names");
}
is(zone('a/b')->{type},   'ip', 'a name with a slash');
is(zone('a%2Fb')->{type}, 'ip', '... which may be encoded');
is_deeply([ sort keys %$shown ],
    [ qw(busy bytes comparisons evict evictions expired future incomplete joined joining mended origins pages pending rate records refusals retired state sync timeout tombstones type) ],
    'all figures are there');
is($shown->{timeout}, 3_600_000, 'the timeout is in milliseconds');
is($strict->{timeout}, undef, '... and null where there is none');
ok($shown->{evict} && !$shown->{sync} && $strict->{sync} && !$strict->{evict}, 'evict and sync are as configured');
cmp_ok($shown->{pages}{used}, '>', 10, 'pages are counted');
is($shown->{bytes}{used} / $shown->{pages}{used}, $shown->{bytes}{free} / ($shown->{pages}{free} || 1), '... in bytes as well')
    if $shown->{pages}{free};
is_deeply($node->get('/api/9/zonemesh/zones/cache?fields=type,evict')->json, { type => 'string', evict => JSON::PP::true }, 'fields= chooses');
my $none = $node->get('/api/9/zonemesh/zones/none');
is($none->status, 404, 'a zone that is not there');
is($none->json->{error}{code}, 'ZoneNotFound', '... has an error of its own');
is($node->delete('/api/9/zonemesh/zones/cache')->status, 405, 'nothing can be done to it here');
is($node->get('/api/9/zonemesh/other')->status, 404, 'an unknown path');
is(scalar(grep { $_ eq 'zonemesh' } @{ $node->get('/api/9/')->json }), 0, 'the documented roots are as documented');
is($node->post('/api/9/http/keyvals/cache', '{"brief":{"value":"v","expire":50}}')->status, 201, 'a pair that lives for 50 ms');
eventually { zone('cache')->{expired} > 0 } 'what ended is counted';

done_testing;
