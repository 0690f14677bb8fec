# How a node ends: QUIT sends what was accepted first, TERM is quick.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

# QUIT right after the last write, several times: nothing that was answered with success is missing.
for my $round (1 .. 3) {
    my @nodes = my ($first, $second) = cluster(2, tls => authority('the CA'));
    my %many = map { ("key $_" => 'x' x 200) } 1 .. 2_000;
    is($first->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode(\%many))->status, 201, "round $round: two thousand pairs");
    is($first->add('one', 'last', 'v'), 201, "round $round: and one");
    my $took = $first->quit(10);
    ok(defined $took, "round $round: the node ends by QUIT") or next;
    cmp_ok($took, '<', 6, sprintf 'round %d: in time (%.2f s)', $round, $took);
    my $there = $second->keyvals('one');
    is($there->{last}, 'v', "round $round: the last write is on the other node");
    is(scalar keys %$there, 2_001, "round $round: and all the others");
    $second->stop;
}

# With a slow peer.
{
    my @nodes = my ($first, $second) = cluster(2, not_started => 1);
    require ZoneMesh::Relay;
    my $port = port();
    my $relay = ZoneMesh::Relay->new(delay => 0.3, $port => $second->sync)->start;
    (my $stream = $first->{stream}) =~ s/127\.0\.0\.1:@{[ $second->sync ]}/127.0.0.1:$port/;
    $first->configure(stream => $stream);
    $_->start for @nodes;
    connected(1, @nodes);
    # until the zone is joined, so that what follows is a change like any other
    $first->add('one', 'first', 1);
    everywhere(\@nodes, 'first', 1, 'a peer behind a delay of 0.3 s');
    $first->add('one', 'last', 'v');
    ok(defined $first->quit(10), 'QUIT right after a write');
    is($second->keyvals('one')->{last}, 'v', '... the node waited for the peer to have it');
    $second->stop;
    $relay->stop;
}

# A peer that takes nothing any more must not hold a node for ever.
{
    my @nodes = my ($first, $second, $third) = cluster(3, cut_off => 3);
    my $through = ($first->{stream} =~ /zone_sync_server 127\.0\.0\.1:(\d+)/g)[2];
    $nodes[2]{relay}->freeze;
    $first->add('one', 'last', 'v');
    my $took = $first->quit(15);
    ok(defined $took, 'QUIT with a peer that does not answer: the node ends') and
        cmp_ok($took, '<', 6, sprintf '... after the 5 s that it waits at most (%.2f s)', $took);
    everywhere([$second], 'last', 'v', '... and the peer that does has everything');
    my @told = $first->grep_log(qr/\[warn\].*zone_sync peer .*(?:did not acknowledge all changes|not connected when this node ended)/);
    is(scalar @told, 1, '... and the log says that one may lack something');
    like($told[0] // '', qr/zone_sync peer 127\.0\.0\.1:$through: /, '... which is the other one');
    $nodes[2]{relay}->stop;
    $_->stop for $second, $third;
}

# A peer that has no room has everything said to it, and not everything.
{
    my ($first, $small, $third) = my @nodes = cluster(3, not_started => 1);
    (my $http = $small->{http}) =~ s{zone=one:1m}{zone=one:32k} or die 'no zone to make smaller';
    $small->configure(http => $http);
    $_->start for @nodes;
    connected(2, @nodes);
    is($first->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ map { ("key $_" => 'v' x 100) } 1 .. 600 }))->status,
        201, 'more than a peer has room for');
    eventually { $small->get('/api/9/zonemesh/zones/one')->json->{incomplete} > 0 } '... which shows that something is missing';
    ok(defined $first->quit(10), '... and holds no node up that ends by QUIT');
    my @told = $first->grep_log(qr/\[warn\].*zone_sync peer \S+: had no room for some of what this node wrote \(zone "one"\)/);
    is(scalar @told, 1, '... and which says whom it leaves without something');
    like($told[0] // '', qr/127\.0\.0\.1:@{[ $small->sync ]}: /, '... by its address');
    is(scalar keys %{ $third->keyvals('one') }, 600, '... and nobody else');
    $_->stop for $small, $third;
}

# TERM is quick, in whatever state.
{
    my @nodes = my ($first, $second) = cluster(2);
    my $took = $first->term(5);
    cmp_ok($took // 99, '<', 1.4, 'TERM is quick (nginx kills what is left after 1.55 s)');
    $second->add('one', 'k', 'v');
    $took = $second->term(5);
    cmp_ok($took // 99, '<', 1.4, 'TERM is quick while peers are not there');
    is(scalar($_->grep_log(qr/signal 9|SIGKILL/)), 0, $_->name . ': nobody had to be killed') for @nodes;
}

# QUIT without a cluster.
{
    my $node = node(http => 'keyval_zone zone=one:64k sync; server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }')->start;
    $node->add('one', 'k', 'v');
    my $took = $node->quit(5);
    cmp_ok($took // 99, '<', 2, 'a node without zone_sync ends at once by QUIT');
}

done_testing;
