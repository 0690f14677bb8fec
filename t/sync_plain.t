# Two nodes that share zones over plain text: the least that a cluster is.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

my @nodes = my ($a, $b) = cluster(2, zones => <<'CONF');
    keyval_zone zone=one:4m timeout=1h sync;
    keyval_zone zone=two:1m sync;
    keyval_zone zone=own:1m timeout=1h;
CONF

is($a->add('one', 'k', 'v1'), 201, 'written on one node');
eventually_is { $b->get('/read?key=k')->body } 'v1', '... read through a variable on the other';
is($b->change('one', 'k', 'v2'), 204, 'changed there');
eventually_is { $a->get('/read?key=k')->body } 'v2', '... seen here';
is($b->drop('one', 'k'), 204, 'deleted there');
everywhere(\@nodes, 'k', undef, '... gone on both');
is($a->get('/set?key=by_set&v=x')->status, 204, 'written by set');
everywhere(\@nodes, 'by_set', 'x', '... on both');
is($a->add('two', 'k', 'of two'), 201, 'a zone without a timeout');
eventually_is { $b->keyvals('two') } { k => 'of two' }, '... is shared';

# A zone that isn't shared stays apart; what is sent after it proves that nothing of it is under way.
$a->add('own', 'k', 'mine');
$a->add('one', 'after', 1);
everywhere(\@nodes, 'after', 1, 'a later write to a shared zone arrived');
is_deeply($b->keyvals('own'), {}, 'a zone without sync is not shared');

# Keys and values are bytes.
for (
    [ 'NUL',            '{"a\u0000b":"c\u0000d"}' ],
    [ 'quotes',         '{"\"\\\\\/":"\"\\\\"}' ],
    [ 'any Unicode',    '{"\u00e4\u20ac\ud83d\ude00":"\ud83d\ude00"}' ],
    [ 'an empty value', '{"empty":""}' ],
) {
    my ($name, $pair) = @$_;
    is($a->post('/api/9/http/keyvals/one', $pair)->status, 201, "$name: written");
    my ($key, $value) = %{ json($pair) };
    everywhere(\@nodes, $key, $value, "$name: the same on both");
}
my $bytes = join '', map { chr } 1 .. 8, 11, 12, 14 .. 31, 33 .. 255;
{
    my @with = cluster(
        2, http => 'keyval $http_x_key $by_header zone=one;
            server { listen 127.0.0.1:%%MORE%%; set $by_header $http_x_value; return 200 "[$by_header]"; }
            server { listen 127.0.0.1:%%READ%%; return 200 "[$by_header]"; }',
        not_started => 1, ports => [qw(MORE READ)],
    );
    $_->start for @with;
    connected(1, @with);
    my @ask = (headers => [ 'X-Key' => $bytes, 'X-Value' => $bytes ]);
    is(ZoneMesh::Http->request($with[0]{vars}{MORE}, 'GET', '/', @ask)->body, "[$bytes]", 'bytes that are no UTF-8: written');
    eventually { ZoneMesh::Http->request($with[1]{vars}{READ}, 'GET', '/', @ask)->body eq "[$bytes]" } '... and the same on the other node';
}

# Sizes: larger than a frame, than all buffers together.
for my $size (4_096, 70_000, 700_000) {
    my $value = join '', map { chr 97 + $_ % 26 } 1 .. $size;
    is($a->add('one', "size $size", $value), 201, "a value of $size bytes: written");
    eventually { ($b->keyvals('one')->{"size $size"} // '') eq $value }
        '... and the same on the other node', 10;
    $a->drop('one', "size $size");
}

# Many at once.
{
    is($a->clear('two'), 204, 'a zone is emptied');
    everywhere_is(\@nodes, sub { $_[0]->keyvals('two') }, {}, '... on both');
    my %many = map { ("key $_" => "value of $_") } 1 .. 2_000;
    is($b->post('/api/9/http/keyvals/two', ZoneMesh::Node::encode(\%many))->status, 201, 'two thousand pairs in one request');
    everywhere_is(\@nodes, sub { $_[0]->keyvals('two') }, \%many, '... are the same on both', 10);
    is($a->clear('two'), 204, 'the zone is emptied on the other node');
    everywhere_is(\@nodes, sub { $_[0]->keyvals('two') }, {}, '... and is so on both');
    is($b->add('two', 'new', 'life'), 201, 'what is written then');
    everywhere_is(\@nodes, sub { $_[0]->keyvals('two') }, { new => 'life' }, '... stays');
}

# What /stream/zone_sync shows.
for my $node (@nodes) {
    my $status = $node->zone_sync;
    is($status->{status}{nodes_online}, 1, $node->name . ': one other node is online');
    is_deeply([ sort keys %{ $status->{zones} } ], [qw(one two)], $node->name . ': the shared zones');
    # What emptying removed is taken away bit by bit.
    eventually_is { $node->zone_sync->{zones}{two}{records_total} } 1, $node->name . ': records_total';
    eventually_is { $node->zone_sync->{zones}{two}{records_pending} } 0, $node->name . ': nothing is pending';
    cmp_ok($status->{status}{$_}, '>', 0, $node->name . ": $_") for qw(bytes_in bytes_out msgs_in msgs_out);
}
cmp_ok($b->zone_sync->{status}{bytes_in}, '>', 700_000, 'bytes_in counts what came in');
$a->stop;
eventually_is { $b->zone_sync->{status}{nodes_online} } 0, 'a node that has gone is no longer online';
$b->add('two', 'pending', 1);
is($b->keyvals('two')->{pending}, 1, 'a node alone goes on');
is($b->get('/read?key=by_set')->body, 'x', '... with all it had');

done_testing;
