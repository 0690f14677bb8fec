#!/usr/bin/perl
# Figures for Prometheus.
use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

my @nodes = cluster(2);
is($nodes[0]->add('one', "key $_", 'v'), 201, 'a pair') for 1 .. 3;
is($nodes[0]->drop('one', 'key 1'), 204, 'a delete');
everywhere(\@nodes, 'key 2', 'v', 'both have them');
my $answer = $nodes[0]->get('/api/9/zonemesh/metrics');
is($answer->status, 200, 'metrics');
is($answer->header('content-type'), 'text/plain; version=0.0.4', 'as text');

sub value { my ($node, $name) = @_; return $node->get('/api/9/zonemesh/metrics')->body =~ /^\Q$name\E (\S+)$/m ? $1 : undef }

is(value($nodes[0], 'zonemesh_zone_records{zone="one"}'), 2, 'records of a zone');
is(value($nodes[0], 'zonemesh_zone_operations_total{zone="one",operation="set"}'), 3, 'what was set here');
is(value($nodes[0], 'zonemesh_zone_operations_total{zone="one",operation="delete"}'), 1, 'and deleted');
is(value($nodes[1], 'zonemesh_zone_operations_total{zone="one",operation="set"}'), 0, 'nothing was set there');
eventually { value($nodes[1], 'zonemesh_zone_operations_total{zone="one",operation="merge"}') >= 3 } 'but merged';
is(value($nodes[0], 'zonemesh_sync_nodes_online'), 1, 'the other node');
ok(value($nodes[1], 'zonemesh_sync_received_bytes_total') > 0, 'which has received something');
like($nodes[1]->get('/api/9/zonemesh/metrics')->body, qr/^zonemesh_sync_peer_heard_timestamp_seconds\{node="[0-9a-f]{16}"\} \d+/m,
    'and has heard of this one');
my $peer = sprintf 'peer="127.0.0.1:%d"', $nodes[1]->sync;
eventually { value($nodes[0], "zonemesh_sync_peer_connected{$peer}") == 1 } 'the connection to a peer is shown';
eventually { value($nodes[0], "zonemesh_sync_peer_sent_bytes_total{$peer}") > 100 } '... and what was sent over it';
eventually { value($nodes[0], "zonemesh_sync_peer_pending_records{$peer}") == 0 } '... and that nothing waits for it';
is(value($nodes[0], sprintf 'zonemesh_sync_peer_connected{peer="127.0.0.1:%d"}', $nodes[0]->sync), 0, 'a node is not connected to itself');
my $since = value($nodes[0], "zonemesh_sync_peer_since_timestamp_seconds{$peer}");
$nodes[1]->stop;
eventually { value($nodes[0], "zonemesh_sync_peer_connected{$peer}") == 0 } '... and when a peer is gone';
ok(value($nodes[0], "zonemesh_sync_peer_since_timestamp_seconds{$peer}") > $since, '... since when');

done_testing;
