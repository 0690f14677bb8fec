# A reload keeps zones and goes on synchronizing, and no old worker stays behind.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

my @nodes = my ($first, $second, $third) = cluster(3, tls => authority('the CA'));

$first->add('one', 'before', 'v');
everywhere(\@nodes, 'before', 'v', 'a key from before');
$first->reload;
is($first->keyvals('one')->{before}, 'v', 'a reload keeps the zone');
is($first->add('one', 'after', 'v'), 201, 'written after it');
everywhere(\@nodes, 'after', 'v', '... it arrives');
is($second->drop('one', 'before'), 204, 'deleted elsewhere');
everywhere(\@nodes, 'before', undef, '... it arrives at the node that was reloaded');
eventually { !$first->old_workers } 'no old worker is left after 5 s', 5;

# Under traffic, all nodes, several times. Traffic goes on all the time, on every node.
my @traffic = map {
    my $node = $_;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        my $stop = 0;
        local $SIG{TERM} = sub { $stop = 1 };
        my $i = 0;
        until ($stop) { $i++; eval { $node->get('/set?key=' . $node->name . '-' . $i % 50 . "&v=$i") } }
        POSIX::_exit(0);
    }
    $pid;
} @nodes;
for my $round (1 .. 3) {
    for my $node (@nodes) {
        $node->reload;
        my $began = time;
        ok(wait_for(sub { !$node->old_workers }, 5), sprintf '%s: under traffic no old worker is left after 5 s (reload %d)', $node->name, $round)
            or diag('still there: ' . join ' ', $node->old_workers);
    }
}
kill 'TERM', @traffic;
waitpid $_, 0 for @traffic;
$second->add('one', 'at last', 1);
everywhere(\@nodes, 'at last', 1, 'after that a write arrives everywhere');
my $end = same_everywhere(\@nodes, 'one', 'and all nodes are the same');
cmp_ok(scalar(keys %$end), '>=', 150, '... with all that was written');

# Several reloads at once.
$third->signal('HUP') for 1 .. 3;
sleep 0.3;
$third->reload;
eventually { !$third->old_workers } 'reloads in a row: no old worker is left after 5 s', 5;
$third->add('one', 'in a row', 1);
everywhere(\@nodes, 'in a row', 1, '... and the node goes on');
is(scalar(grep { ZoneMesh::Node::threads($_) > 1 } $third->workers), 1, 'one worker has the helper thread');

# A configuration that is wrong changes nothing.
my $stream = $first->{stream};
$first->configure(stream => "$stream server { zone_sync nonsense; }");
my $emergs = () = $first->grep_log(qr/\[emerg\]/);
$first->signal('HUP');
allow_log(qr/\[emerg\].*"zone_sync"/);
$first->wait_log(qr/\[emerg\]/, 5, $emergs);
$first->configure(stream => $stream);
is($first->add('one', 'wrong', 1), 201, 'after a reload of a wrong configuration');
everywhere(\@nodes, 'wrong', 1, '... all goes on');

# A peer leaves the configuration, and comes back.
(my $alone = $stream) =~ s/zone_sync_server [^;]+;//g;
$first->reload(stream => $alone);
eventually_is { $first->zone_sync->{status}{nodes_online} } 0, 'reloaded without peers: none is online';
$first->reload(stream => $stream);
connected(2, $first);
$first->add('one', 'back', 1);
everywhere(\@nodes, 'back', 1, 'reloaded with them again: all goes on');

# The zone gets another size: it starts anew, and is filled from the others.
my $before = $second->keyvals('one');
$second->drop('one', 'in a row');
delete $before->{'in a row'};
(my $larger = $second->{http}) =~ s/zone=one:1m/zone=one:2m/ or die;
$second->reload(http => $larger);
everywhere_is(\@nodes, sub { $_[0]->keyvals('one') }, $before, 'reloaded with another size, the zone is filled from the others', 10);
is($second->add('one', 'resized', 1), 201, '... and takes writes');
everywhere(\@nodes, 'resized', 1, '... which arrive');

# zone_sync leaves the configuration.
$third->reload(stream => undef);
is($third->get('/api/9/stream/zone_sync')->status, 404, 'reloaded without a stream block: zone_sync is not in the API');
is($third->keyvals('one')->{back}, 1, '... and the zone is kept');
eventually_is { $first->zone_sync->{status}{nodes_online} } 1, '... and the others see it leave';
eventually { !$third->old_workers } '... and no old worker is left', 5;

done_testing;
