# Nodes whose configurations differ: each says so, by zone and peer, in its log and in the API, and shares what is alike.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Wire;

# What a node shows of zones that it doesn't share with its peer, as "zone: by: reason".
sub refused {
    my ($node) = @_;
    my @peers = grep { $_->{state} eq 'connected' } @{ $node->get('/api/9/zonemesh/peers')->json };
    return [ sort map { "$_->{zone}: $_->{by}: $_->{reason}" } map { @{ $_->{refused} } } @peers ];
}

my $missing = 'there is no zone of this name with sync';

my ($first, $second) = my @nodes = cluster(2, not_started => 1);
# However many zones are shared: those that aren't come after and among them.
my $alike = join ' ', $first->{http}, map { sprintf 'keyval_zone zone=b%02d:64k sync;', $_ } 1 .. 80;
$first->configure(http => "$alike keyval_zone zone=lacking:64k sync; keyval_zone zone=typed:64k type=ip sync; keyval_zone zone=apart:64k sync;")->start;
$second->configure(http => "$alike keyval_zone zone=typed:64k type=prefix sync; keyval_zone zone=apart:64k;")->start;
connected(1, @nodes);
is($first->add('one', 'k', 'v'), 201, 'what is alike');
everywhere(\@nodes, 'k', 'v', '... is shared');

eventually_is { refused($first) } [
    sort "apart: peer: $missing", "lacking: peer: $missing", 'typed: peer: the zone of this name is of type=prefix, not ip',
    'typed: this node: the zone of this name is of type=ip, not prefix'
], 'the first shows what it does not share, and why';
eventually_is { refused($second) } [
    sort "apart: this node: $missing", "lacking: this node: $missing", 'typed: peer: the zone of this name is of type=ip, not prefix',
    'typed: this node: the zone of this name is of type=prefix, not ip'
], 'the second as well';
my $metrics = $first->get('/api/9/zonemesh/metrics')->body;
like($metrics, qr/^zonemesh_sync_zone_refused\{peer="127\.0\.0\.1:@{[ $second->sync ]}",zone="lacking",by="peer"\} 1$/m, '... also as a metric');
for my $zone (qw(lacking typed apart)) {
    for my $node (@nodes) {
        my @lines = $node->grep_log(qr/\[warn\].*zone "$zone"/);
        ok(scalar @lines, "the log of " . $node->name . " names $zone");
        cmp_ok(scalar @lines, '<=', 2, '... not again and again');
    }
}
is($_->get('/api/9/stream/zone_sync')->json->{status}{nodes_online}, 1, $_->name . ' is connected all the same') for @nodes;

# `sync` is switched on for a zone that had none, by a reload, under its name: what both hold is shared.
$first->add('apart', $_, "first's") for qw(of_first of_both deleted);
sleep 0.01;    # stamps are times
$second->add('apart', $_, "second's") for qw(of_second of_both);
$second->reload(http => "$alike keyval_zone zone=typed:64k type=prefix sync; keyval_zone zone=apart:64k sync;");
everywhere_is(
    \@nodes, sub { $_[0]->keyvals('apart') },
    { of_first => "first's", of_second => "second's", of_both => "second's", deleted => "first's" },
    'sync is switched on by a reload: what both hold is on both, the later write wins', 10
);
is($second->drop('apart', 'deleted'), 204, 'a delete');
everywhere_is(\@nodes, sub { $_[0]->keyvals('apart')->{deleted} }, undef, '... is one everywhere');
eventually_is { [ grep { /^apart/ } @{ refused($_) } ] } [], $_->name . ' has nothing to say of it any more' for @nodes;

# What was mended elsewhere is gone here too.
$second->reload(http => "$alike keyval_zone zone=apart:64k sync; keyval_zone zone=lacking:64k sync;");
eventually_is { refused($first) } ["typed: peer: $missing"], 'a reload of the second is seen on the first';
eventually_is { refused($second) } ["typed: this node: $missing"], '... and on the second';
$first->reload(http => "$alike keyval_zone zone=apart:64k sync; keyval_zone zone=lacking:64k sync;");
eventually_is { refused($_) } [], $_->name . ': nothing differs any more' for @nodes;
unlike($first->get('/api/9/zonemesh/metrics')->body, qr/zone_refused/, '... nor is there a metric of it');

# A zone of a kind that this version doesn't have.
{
    my $socket = tcp($first->sync);
    print {$socket} hello(), zone(1, 'one', kind => 99);
    ok(scalar $first->wait_log(qr/\[warn\].*zone "one" of the peer is not synchronized: on this node the zone of this name is of another kind.*client: 127\.0\.0\.1/),
        'a zone of another kind: the log says so');
    my ($said) = read_all($socket, 0.5);
    my ($refusal) = grep { $_->[0] == $TYPE{REFUSE} } frames($said);
    like($refusal->[1], qr/is of another kind$/, '... and so does the answer, for the log of the other node');
    is($first->keyvals('one')->{k}, 'v', '... the zone is as it was');
}

done_testing;
