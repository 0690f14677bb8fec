# Nodes on machines of their own whose links are pulled: no side sees a connection end. Everybody is written to all the while.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Net;

my $net = ZoneMesh::Net->new(4) or Test::More::plan(skip_all => ZoneMesh::Net->why_not);
my @nodes = $net->cluster(tls => authority());

$_->add('one', $_->name, 'first') for @nodes;
$nodes[0]->add('one', $_, 'before') for 'deleted alone', 'deleted by the others', 'changed on both sides', 'deleted and changed';
$net->all_agree('at first');

# One machine alone.
$net->link(1 => 'down');
ok($net->write_until(sub { $net->sees(1, 0) && $net->sees(2, 2) && $net->sees(3, 2) && $net->sees(4, 2) }), 'a machine whose plug is pulled is missed by all, and misses all');
is($nodes[0]->drop('one', 'deleted alone'), 204, 'the lone one deletes a key');
$nodes[0]->change('one', 'changed on both sides', 'the lone one');
$nodes[0]->change('one', 'deleted and changed', 'changed first');
# Later by the clock, not only by the test's order: stamps of two nodes are told apart by milliseconds.
my $so_far = $net->written;
ok($net->write_until(sub { $net->written > $so_far + 40 }), 'time goes by');
is($nodes[1]->drop('one', 'deleted by the others'), 204, 'the others delete another');
$nodes[2]->change('one', 'changed on both sides', 'the others, later');
$nodes[3]->drop('one', 'deleted and changed');
ok($net->write_until(sub { $nodes[1]->keyvals('one')->{'changed on both sides'} eq 'the others, later' }), 'the others go on among themselves');
is($nodes[0]->keyvals('one')->{'changed on both sides'}, 'the lone one', '... and the lone one has its own');
$net->rejoin_under_writes('rejoined');
my $zone = $net->all_agree('rejoined');
is($zone->{'changed on both sides'}, 'the others, later', '... the later of two writes won');
ok(!exists $zone->{$_}, "... \"$_\" is gone") for 'deleted alone', 'deleted by the others', 'deleted and changed';

# The cluster in halves; the switch can't do that with plugs alone, so each machine loses one half of the others.
for my $from (1, 2) {
    for my $to (3, 4) {
        $net->drop($from => $to);
        $net->drop($to => $from);
    }
}
ok($net->write_until(sub { !grep { !$net->sees($_, 1) } 1 .. 4 }), 'two halves: each machine sees one other');
$nodes[0]->change('one', 'changed on both sides', 'left');
$nodes[3]->change('one', 'changed on both sides', 'right');
everywhere([ @nodes[ 0, 1 ] ], 'changed on both sides', 'left',  'one half agrees');
everywhere([ @nodes[ 2, 3 ] ], 'changed on both sides', 'right', '... and the other, on something else');
is($nodes[1]->clear('one'), 204, 'one half empties the zone');
$net->written(0);
sleep 0.01;    # stamps are times
$nodes[2]->add('one', 'after the emptying', 'kept');
$net->rejoin_under_writes('whole again');
$zone = $net->all_agree('whole again');
is_deeply([ grep { !/^by / } keys %$zone ], ['after the emptying'], '... what was there before the zone was emptied is gone, what came after it is there');

# A machine that is away while another one dies for good: what the dead one told only others must reach it.
$net->link(4 => 'down');
ok($net->write_until(sub { $net->sees(4, 0) && $net->sees(1, 2) }), 'a machine is cut off');
$nodes[1]->add('one', 'last words', 'heard by two');
everywhere([ @nodes[ 0, 2 ] ], 'last words', 'heard by two', 'another one writes');
my $of_the_dead = grep { /^by machine2:/ } keys %{ $nodes[0]->keyvals('one') };
$nodes[1]->crash;
$net->link(4 => 'up');
everywhere([ $nodes[3] ], 'last words', 'heard by two', '... dies, and the one that was away hears of it from the rest', 20);
eventually_is { scalar grep { /^by machine2:/ } keys %{ $nodes[3]->keyvals('one') } } $of_the_dead, '... and of all else that the dead one wrote', 20;

done_testing;
