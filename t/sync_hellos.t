# Thousands of sessions that are begun as by nodes that nobody knows: a worker answers so many at once and then so many a second;
# the others wait, by turns of their addresses, and are closed in time. Real nodes find their way in meanwhile.

use IO::Socket::INET;

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Flood;
use ZoneMesh::Wire;

# As src/sync/admission.rs has them.
my ($BURST, $RATE) = (300, 100);
my $COUNT = 1_500;
my $most  = ZoneMesh::Flood::most_files();
plan(skip_all => "a process may have $most files open here: too few") if $most < 3 * $COUNT;
my %room = (main => "worker_rlimit_nofile $most;", events => 'worker_connections ' . 3 * $COUNT . ';', workers => 1);

# Says hello from an address that nobody lists.
sub stranger {
    my ($node) = @_;
    my $peer = IO::Socket::INET->new(LocalAddr => '127.9.9.9', PeerAddr => '127.0.0.1', PeerPort => $node->sync) or die "connect: $@";
    $peer->autoflush(1);
    print {$peer} hello();
    return $peer;
}

# Whether there was an answer to that before the connection was closed.
sub is_greeted {
    my $peer = stranger(@_);
    my ($all, $closed) = ('', 0);
    wait_for(sub {
        (my $more, $closed) = read_all($peer, 0.05);
        $all .= $more;
        frames($all) || $closed;
    }, 10);
    return scalar grep { $_->[0] == $TYPE{HELLO} } frames($all);
}

# A node without a list: all are strangers.
{
    my $timeout = 3;
    my $node = node(%room,
        http => 'keyval_zone zone=one:1m sync; keyval $arg_key $value zone=one;
            server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } location /read { return 200 "$value"; } }',
        stream => "server { listen 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_timeout ${timeout}s; }",
    )->start;
    is($node->add('one', 'k', 'v'), 201, 'a key');
    my $began = time;
    my $flood = ZoneMesh::Flood->new(port => $node->sync, kind => 'hello', count => $COUNT, rate => 1_000, stays => 60);
    ok(wait_for(sub { $flood->status->{opened} > 2 * $BURST }, 20), 'many come at once');
    # Hundreds have come before; in the order of arrival alone, its turn would come when it has been closed already.
    ok(is_greeted($node), 'who comes from another address waits for one turn of theirs');
    is($node->get('/read?key=k', timeout => 5)->body, 'v', 'HTTP is answered');
    my $status;
    ok(wait_for(sub { $status = $flood->status; $status->{opened} >= $COUNT }, 20), 'all have come');
    my $admitted = $BURST + $RATE * (time - $began);
    cmp_ok($status->{answered}, '<=', $admitted + 1, "$status->{answered} of $status->{opened} are answered, $BURST and $RATE a second at most");
    cmp_ok($status->{answered}, '>=', $BURST, '... and not fewer than may be at once');
    ok(wait_for(sub { $status = $flood->status; !$status->{open} }, 30), 'all are closed');
    cmp_ok($status->{longest}, '<', 2 * $timeout + 3, sprintf '... those who waited and those who were answered, a timeout each (%.1f s)', $status->{longest});
    cmp_ok($node->get('/api/9/zonemesh/sync')->json->{sessions_waited}, '>=', $COUNT - $admitted, '... whom the API counts');
    is($node->grep_log(qr/\[warn\].*sessions begin faster.*keep strangers off/), 1, '... and the log tells once what to do');
    $flood->end;
    ok(is_greeted($node), 'who comes later is answered at once');
}

# Nodes that know each other: who floods one of them from ever new addresses, which have a turn each, doesn't keep the other out.
{
    # So long that strangers wait for their turn and not for their end: for a dozen seconds.
    my ($a, $b) = cluster(2, not_started => 1,
        sync => 'zone_sync_timeout 30s; zone_sync_connect_retry_interval 100ms; zone_sync_connect_timeout 1s;');
    $a->configure(%room);
    $_->start for $a, $b;
    connected(1, $a, $b);
    my $flood = ZoneMesh::Flood->new(port => $a->sync, kind => 'hello', count => $COUNT, rate => 2_000, stays => 60, from_one => 1);
    ok(wait_for(sub { $flood->status->{opened} >= $COUNT }, 20), 'peers: a flood comes to one of them');
    $b->stop;
    # Its turn comes before that of everybody who comes later, in the same line.
    my $before = stranger($a);
    $b->start;
    connected(1, $a, $b);
    my ($answer, $closed) = read_all($before, 0.05);
    ok($answer eq '' && !$closed, 'peers: the other one starts anew, and is answered before a stranger who came earlier');
    is($b->add('one', 'k', 'v'), 201, 'peers: it takes a key');
    everywhere([ $a, $b ], 'k', 'v', 'peers: ... which is on both');
    is($b->grep_log(qr/no session came about/), 0, 'peers: it was answered when it first came');
    $flood->end;
}

done_testing;
