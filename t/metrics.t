#!/usr/bin/perl
# Figures for Prometheus.
use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

# The first has a zone that the second lacks.
my @nodes = cluster(2, tls => authority('the CA'), not_started => 1);
$nodes[0]->configure(http => $nodes[0]{http} . 'keyval_zone zone=apart:64k sync;');
$_->start for @nodes;
connected(1, @nodes);
is($nodes[0]->add('one', "key $_", 'v'), 201, 'a pair') for 1 .. 3;
is($nodes[0]->drop('one', 'key 1'), 204, 'a delete');
everywhere(\@nodes, 'key 2', 'v', 'both have them');
my $answer = $nodes[0]->get('/api/9/zonemesh/metrics');
is($answer->status, 200, 'metrics');
is($answer->header('content-type'), 'text/plain; version=0.0.4', 'as text');

# The names of all that any node has shown.
my %seen;

sub value {
    my ($node, $name) = @_;
    my $body = $node->get('/api/9/zonemesh/metrics')->body;
    $seen{$_} = 1 for $body =~ /^# TYPE (\S+)/mg;
    return $body =~ /^\Q$name\E (\S+)$/m ? $1 : undef;
}

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
eventually { value($nodes[0], "zonemesh_sync_zone_refused{$peer,zone=\"apart\",by=\"peer\"}") == 1 } '... and a zone that the peer lacks';
eventually { value($nodes[0], "zonemesh_sync_peer_certificate_expiry_timestamp_seconds{$peer}") > time } '... and when its certificate ends';
my $since = value($nodes[0], "zonemesh_sync_peer_since_timestamp_seconds{$peer}");
$nodes[1]->stop;
eventually { value($nodes[0], "zonemesh_sync_peer_connected{$peer}") == 0 } '... and when a peer is gone';
ok(value($nodes[0], "zonemesh_sync_peer_since_timestamp_seconds{$peer}") > $since, '... since when');

# Limits that nodes share.
{
    my $node = node(http => <<'CONF');
    limit_req_zone $binary_remote_addr zone=shared:64k rate=1r/m sync;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api  { api; }
        location /slow { api; limit_req zone=shared; limit_req_status 429; }
    }
CONF
    $node->start;
    is($node->get('/slow/9/nginx')->status, $_, 'a request under a limit') for 200, 429;
    my $count = sub { return value($node, "zonemesh_limit_req_requests_total{zone=\"shared\",outcome=\"$_[0]\"}") };
    is($count->($_), 1, "... and one was $_") for qw(passed rejected);
}

# State files.
{
    my $node = node(name => 'keeper', workers => 1, http => <<'CONF');
    keyval_zone zone=kept:1m state=state/kept.json;
    keyval_zone zone=loose:1m;
    server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }
CONF
    my $folder = $node->worker_folder('state');
    $node->start;
    my $state = sub { return value($node, "zonemesh_state_$_[0]" . '{zone="kept"}') };
    is($state->('written_timestamp_seconds'), 0, 'a state file that was never written');
    my $before = time;
    $node->add('kept', 'a', 'v');
    eventually { $state->('writes_total') == 1 && $state->('pending') == 0 } '... is written';
    cmp_ok(abs($state->('written_timestamp_seconds') - $before), '<', 10, '... at a time that is shown');
    is($state->('size_bytes'), -s "$folder/kept.json", '... with its size');
    is($state->('errors_total'), 0, '... without errors');
    is($state->($_), 0, "... and small as it is, $_ is 0") for qw(appends_total changes_files changes_bytes appended_timestamp_seconds);
    is(value($node, 'zonemesh_state_pending{zone="loose"}'), undef, 'a zone without a state file has none of these');
    SKIP: {
        skip 'only root can take the folder away from the workers', 1 unless $> == 0;
        allow_log(qr/can't be written and stays as it is/);
        chown 0, 0, $folder;
        $node->add('kept', 'b', 'v');
        eventually { $state->('errors_total') >= 1 && $state->('pending') == 1 } 'a failure is counted, and the change pending', 10;
        chown((getpwnam 'nobody')[ 2, 3 ], $folder);
    }
    eventually { $state->('pending') == 0 } 'all is written again', 10;
}

# Whoever looks a metric up finds it.
{
    my $page  = ZoneMesh::Node::slurp("$FindBin::Bin/../docs/operations.md");
    my %named = map { $_ => 1 } $page =~ /\b(zonemesh_\w+)/g;
    cmp_ok(scalar keys %seen, '>', 40, scalar(keys %seen) . ' metrics');
    is_deeply([ grep { !$named{$_} } sort keys %seen ], [], '... and all of them are on the page about operations');
}

done_testing;
