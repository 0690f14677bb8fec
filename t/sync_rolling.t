# Five nodes are restarted one after the other while all are written to: what a node acknowledged before it stopped by QUIT is
# nowhere lost, whichever nodes were there when.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Writers;

my @nodes = cluster(5, tls => authority('the CA'));

# A client for each node: keys of its own, the same ones again and again, and some that it deletes. It remembers what was
# answered with success; what was not answered may be either way.
my $clients = ZoneMesh::Writers->new(\@nodes, sub {
    my ($node, $i) = @_;
    my $key = $node->name . '-' . $i % 40;
    my $deletes = $i % 7 == 0;
    my $status = eval { $deletes ? $node->drop('one', $key) : $node->get("/set?key=$key&v=$i")->status };
    sleep 0.05 unless defined $status;    # it is being restarted
    # 404: the key wasn't there, as on a node that is still being filled, and so nothing was deleted.
    return ($key, ($status // 0) != 204 ? undef : $deletes ? '-' : $i);
});

for my $round (1, 2) {
    for my $node (@nodes) {
        my $took = $node->quit(15);
        ok(defined $took, sprintf 'round %d: %s ends by QUIT under traffic (%.2f s)', $round, $node->name, $took // 0) or next;
        is(scalar($node->grep_log(qr/did not acknowledge/)), 0, '... with nothing left to send');
        $node->start;
        connected(4, @nodes);
        # The next one goes when this one has all: as a script for rolling restarts waits.
        ok(wait_for(sub { $node->zone_sync->{zones}{one}{records_total} > 0 }, 10), '... and is filled again');
        $node->add('one', "back $round " . $node->name, 1);
        everywhere(\@nodes, "back $round " . $node->name, '1', '... and is one of the cluster again', 10);
    }
}
my %acknowledged = $clients->stop;
cmp_ok(scalar(keys %acknowledged), '>', 100, 'writes were acknowledged all the while');
my $end = same_everywhere(\@nodes, 'one', 'in the end all nodes are the same', 20);
my @lost = grep { ($end->{$_} // '-') ne $acknowledged{$_} } sort keys %acknowledged;
is(scalar(@lost), 0, 'nothing that was acknowledged is lost, and nothing deleted is back')
    or diag(map { "$_ is '" . ($end->{$_} // 'not there') . "', not $acknowledged{$_}\n" } @lost);

done_testing;
