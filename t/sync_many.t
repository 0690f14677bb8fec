# As many peers as a node takes: a name with 255 addresses, of which two have a node, and the API that shows all of them.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Dns;

my $dns       = ZoneMesh::Dns->new->start;
my $port      = port();
my @addresses = map { "127.0.1.$_" } 1 .. 255;
# More than fit into a datagram: nginx's resolver asks again over TCP.
$dns->set('many.test' => @addresses);

my @nodes = map {
    node(
        name   => "node-$_", workers => 1, host => '127.0.0.1',
        stream => "resolver 127.0.0.1:@{[ $dns->port ]} valid=60s; resolver_timeout 5s;
            server { listen $_:$port; zone_sync; zone_sync_server many.test:$port resolve; $ZoneMesh::Cluster::QUICK }",
        http => 'keyval_zone zone=one:32k sync; keyval $arg_key $value zone=one;
            server {
                listen 127.0.0.1:%%PORT%%;
                location /api  { api write=on; }
                location /read { return 200 "$value"; }
            }'
    )->start
} @addresses[ 0, 254 ];
connected(1, @nodes);
pass('two nodes find each other among 255 addresses');

my ($first, $last) = @nodes;
sub states { my %count; $count{ $_->{state} }++ for @{ $_[0]->get('/api/9/zonemesh/peers')->json }; return \%count }

for my $node (@nodes) {
    eventually_is { states($node) } { itself => 1, connected => 1, unreachable => 253 }, $node->name . ' shows all of them', 20;
}
$first->add('one', 'key', 'value');
eventually_is { $last->get('/read?key=key')->body } 'value', 'what one writes is on the other';
my $metrics = $last->get('/api/9/zonemesh/metrics')->body;
is(scalar(() = $metrics =~ /^zonemesh_sync_peer_connected\{/mg), 255, 'and the metrics have a line for each');
my ($known, $room) = map { $first->get('/api/9/zonemesh/zones/one')->json->{origins}{$_} } qw(known room);
is($known, 2, 'two have written');
cmp_ok($known + $room, '>=', 65, '... and a zone of 32k has room for as many as docs/operations.md says');
is($metrics =~ /^zonemesh_zone_origins\{zone="one"\} (\d+)$/m && $1, 2, '... which the metrics say as well');

# Fewer, all at once.
$dns->set('many.test' => @addresses[ 0, 254 ]);
$first->reload;
eventually_is { states($first) } { itself => 1, connected => 1 }, 'those that left the name are gone', 60;

done_testing;
