# Packets that get lost one way only: the worst that a firewall or a switch can do. No reset is seen by either side.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Net;

my $net = ZoneMesh::Net->new(3) or Test::More::plan(skip_all => ZoneMesh::Net->why_not);
my @nodes = $net->cluster(tls => authority());

$net->write_until(sub { $net->written > 30 });
$net->all_agree('at first');

for (
    [ 'one way',             [ 1, 2 ] ],
    [ 'the other way',       [ 2, 1 ] ],
    [ 'both ways',           [ 1, 2 ], [ 2, 1 ] ],
    [ 'in a circle',         [ 1, 2 ], [ 2, 3 ], [ 3, 1 ] ],
    [ 'all that one sends',  [ 3, 1 ], [ 3, 2 ] ],
    [ 'all that one is told', [ 1, 3 ], [ 2, 3 ] ],
) {
    my ($name, @lost) = @$_;
    my @workers = map { [ $_->workers ] } @nodes;
    $net->drop(@$_) for @lost;
    # A connection needs both directions: whoever has one of them broken loses its session.
    ok(
        $net->write_until(sub { !grep { my $n = $_; !$net->sees($n, 2 - grep { $_->[0] == $n || $_->[1] == $n } unique(@lost)) } 1 .. 3 }),
        "$name: lost sessions are noticed by all that have one"
    );
    $net->rejoin_under_writes($name);
    $net->all_agree($name);
    is_deeply([ map { [ $_->workers ] } @nodes ], \@workers, "$name: no worker was replaced");
}

# Pairs of machines, whichever way packets between them are lost.
sub unique {
    my %pairs = map { my ($from, $to) = sort { $a <=> $b } @$_; ("$from-$to" => [ $from, $to ]) } @_;
    return values %pairs;
}

done_testing;
