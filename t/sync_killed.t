# A worker killed with -9 is replaced, nothing hangs, and nothing that was acknowledged is lost: neither a plain worker nor
# the one that runs the helper thread.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Writers;

allow_log(qr/exited on signal 9/);

my @nodes = my ($first, $second, $third) = cluster(3, tls => authority('the CA'));

eventually { $first->agent_worker } 'one worker runs the helper thread';
is(scalar(grep { ZoneMesh::Node::threads($_) > 1 } $_->workers), 1, $_->name . ': one, not more') for @nodes;
$first->add('one', 'before', 'v');
everywhere(\@nodes, 'before', 'v', 'a key from before');

for my $which ('the helper', 'another') {
    my $agent  = $first->agent_worker;
    my ($victim) = $which eq 'the helper' ? $agent : grep { $_ != $agent } $first->workers;
    $first->kill_worker($victim);
    is($first->keyvals('one')->{before}, 'v', "$which worker killed: the zone is there");
    is($first->add('one', "after $which", 'v'), 201, "$which worker killed: the zone takes writes");
    everywhere(\@nodes, "after $which", 'v', "$which worker killed: what is written arrives", 8);
    $second->add('one', "back $which", 'v');
    everywhere(\@nodes, "back $which", 'v', "$which worker killed: ... the other way, too", 8);
    eventually { scalar(grep { ZoneMesh::Node::threads($_) > 1 } $first->workers) == 1 } "$which worker killed: one has the helper thread";
    eventually_is { $first->zone_sync->{status}{nodes_online} } 2, "$which worker killed: it is connected to both others", 8;
}

# Again and again, under traffic: every write that was answered with success must be everywhere in the end.
my $traffic = ZoneMesh::Writers->new(\@nodes, sub {
    my ($node, $i) = @_;
    my $key = $node->name . '-' . $i % 20;
    # a write whose answer was lost may or may not have happened: it is no longer known what the key holds
    my $ok = eval { $node->get("/set?key=$key&v=$i")->status == 204 };
    return ($key, $ok ? $i : undef);
});
for my $round (1 .. 6) {
    my $node   = $nodes[ $round % 3 ];
    my $victim = $round % 2 ? $node->agent_worker // ($node->workers)[0] : ($node->workers)[-1];
    $node->kill_worker($victim);
    sleep 0.2;
}
my %acknowledged = $traffic->stop;
cmp_ok(scalar(keys %acknowledged), '>', 20, 'writes were acknowledged while workers were killed');
$first->add('one', 'at last', 1);
everywhere(\@nodes, 'at last', 1, 'after that a write arrives everywhere', 10);
my $end = same_everywhere(\@nodes, 'one', 'all nodes are the same', 10);
my @lost = grep { ($end->{$_} // '') ne $acknowledged{$_} } sort keys %acknowledged;
is(scalar(@lost), 0, 'nothing that was acknowledged is lost')
    or diag(map { "$_ is '" . ($end->{$_} // 'not there') . "', not $acknowledged{$_}\n" } @lost);

for my $node (@nodes) {
    my $took = $node->quit(10);
    ok(defined $took, $node->name . ': ends by QUIT after all that');
}

done_testing;
