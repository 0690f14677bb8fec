# Comparing: what no change brings is mended, is told of and counted. And well nodes count nothing, whatever ends and is evicted.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

# Nodes compare ten timeouts after they did so last.
my $timeout = 0.5;
my $quick   = 'zone_sync_timeout 500ms; zone_sync_connect_retry_interval 100ms;';

sub zone { my ($node, $zone) = @_; return $node->get('/api/9/zonemesh/zones/' . ($zone // 'one'))->json }

# Records that comparing brought to a node and took away from it, by the API; the metrics say the same.
sub repaired {
    my ($node, $zone) = @_;
    $zone //= 'one';
    my $shown   = zone($node, $zone);
    my $metrics = $node->get('/api/9/zonemesh/metrics')->body;
    for my $figure (qw(mended retired)) {
        my ($counted) = $metrics =~ /^zonemesh_zone_${figure}_total\{zone="$zone"\} (\d+)$/m;
        return "$figure: $shown->{$figure} by the API, $counted by the metrics" if $counted != $shown->{$figure};
    }
    return { map { $_ => $shown->{$_} } qw(mended retired) };
}

# Comparisons that a node has ended, and the records there that they were about, by the API; the metrics say the same.
sub compared {
    my ($node, $zone) = @_;
    my ($metrics, $later) = ($node->get('/api/9/zonemesh/metrics')->body, zone($node, $zone)->{comparisons});
    my %counted;
    for my $figure (qw(comparisons_begun comparisons_ended compared)) {
        ($counted{$figure}) = $metrics =~ /^zonemesh_zone_${figure}_total\{zone="$zone"\} (\d+)$/m;
    }
    my ($begun, $ended, $records) = @counted{qw(comparisons_begun comparisons_ended compared)};
    my $alike = $ended <= $begun && $begun <= $later->{begun} && $ended <= $later->{ended} && $records <= $later->{records};
    return $alike ? ($ended, $records) : die "$zone: $begun $ended $records by the metrics, then by the API " . join ' ', %$later;
}

# A state file from before a delete, and nobody has a tombstone of that any more: the zone was full meanwhile.
{
    my ($first, $second) = my @nodes = cluster(2, not_started => 1, sync => $quick, zones => 'keyval_zone zone=one:64k timeout=1h sync;');
    (my $http = $second->{http}) =~ s{zone=one:64k timeout=1h}{zone=one:1m timeout=1h state=state/one.json};
    my $file = $second->worker_folder('state') . '/one.json';
    $second->configure(http => $http);
    $_->start for @nodes;
    connected(1, @nodes);
    eventually { zone($first)->{joined} } 'the first node has joined';
    is($first->add('one', 'deleted', 'v'), 201, 'a key');
    is($first->add('one', 'stays',   'v'), 201, '... and another');
    everywhere(\@nodes, 'stays', 'v', '... on both nodes');
    ok(defined $second->quit, 'one is away, with both in its state file');
    is($first->drop('one', 'deleted'), 204, 'a delete meanwhile');
    my ($filled, $refused) = (0, 0);
    ($first->add('one', "filler $filled", 'v' x 100) == 201 ? ($filled++, $refused = 0) : $refused++) while $refused < 20 && $filled < 3_000;
    is(zone($first)->{tombstones}, 0, "... is forgotten, as $filled more pairs fill the zone");
    like(ZoneMesh::Node::slurp($file), qr/"deleted":/, 'the state file has the key');

    $second->start;
    connected(1, @nodes);
    eventually_is { repaired($second) } { mended => 0, retired => 1 }, 'the key that came back is taken away, and counted', 30;
    ok(scalar $second->wait_log(qr/\[notice\].*zone "one": comparing with node [0-9a-f]{16} brought 0 records .*, and took 1 away/),
        '... as the log says');
    my $zone = same_everywhere(\@nodes, 'one', 'both hold the same');
    is_deeply([ grep { !/^filler/ } sort keys %$zone ], ['stays'], '... without it');
    is_deeply(repaired($first), { mended => 0, retired => 0 }, '... and there was nothing to mend on the other side');
    $_->stop for @nodes;
}

# A zone that was too small for what another holds: when it gets more memory, comparing brings what was left out.
{
    my ($large, $small) = my @nodes = cluster(2, not_started => 1, sync => $quick);
    (my $http = $small->{http}) =~ s{zone=one:1m}{zone=one:64k};
    $small->configure(http => $http);
    $_->start for @nodes;
    connected(1, @nodes);
    eventually { zone($_)->{joined} } $_->name . ' has joined' for @nodes;
    $large->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ map { ("key $_" => 'v' x 100) } 1 .. 600 }));
    my $lacking;
    eventually { my $zone = zone($small); $lacking = $zone->{incomplete}; $lacking > 0 && $zone->{records} + $lacking == 600 } 'records find no room';
    ok(scalar $small->wait_log(qr/\[err(?:or)?\].*zone "one" is full: records of peers are left out/), '... as the log says');
    $small->reload(http => $large->{http});
    eventually_is { scalar keys %{ $small->keyvals('one') } } 600, "more memory by a reload: the $lacking pairs that were left out are there", 30;
    eventually_is { zone($small)->{incomplete} } 0, '... and nothing is missing any more', 20;
    cmp_ok(repaired($small)->{mended}, '>=', $lacking, '... it was comparing that brought them');
    is_deeply(repaired($large), { mended => 0, retired => 0 }, '... to the side that lacked it');
    ok(scalar $small->wait_log(qr/\[notice\].*zone "one": comparing with node [0-9a-f]{16} brought [1-9]\d* records/), '... as the log says');
    ok(scalar $small->wait_log(qr/\[notice\].*zone "one" is complete/), '... and that the zone is complete');
    $_->stop for @nodes;
}

# Nothing is wrong: nothing is mended, though each node evicts what it likes, and pairs end while nodes compare: with each
# of the others, more than once.
{
    my @zones = qw(one short cache);
    my @nodes = cluster(3, sync => $quick, zones => 'keyval_zone zone=one:1m timeout=1h sync;
        keyval_zone zone=short:1m timeout=1s sync; keyval_zone zone=cache:64k timeout=1h evict sync;');
    my ($until, $n) = (time + 25 * $timeout, 0);
    while (time < $until) {
        my $node = $nodes[ $n % @nodes ];
        for my $zone (@zones) {
            my %pairs = map { ("key $_" => "value $n") } $zone eq 'one' ? map { int rand 500 } 1 .. 5 : map { $n * 5 + $_ } 1 .. 5;
            put($node, $zone, \%pairs);
        }
        $node->drop('one', 'key ' . int rand 500) if $n % 7 == 0;
        $n++;
        sleep 0.01;
    }
    for my $node (@nodes) {
        my ($ended, $evicted) = (zone($node, 'short')->{expired}, zone($node, 'cache')->{evictions});
        ok($ended > 0 && $evicted > 0, $node->name . ": $ended pairs have ended, $evicted were evicted");
        for my $zone (@zones) {
            my ($ended, $records) = compared($node, $zone);
            cmp_ok($ended, '>=', 2 * (@nodes - 1), "... $zone was compared meanwhile");
            # What is about to end, and what is older than what was evicted, is left out.
            cmp_ok($records, '>', 100, "... with records in it") if $zone eq 'one';
            is_deeply(repaired($node, $zone), { mended => 0, retired => 0 }, '... which had nothing to do');
        }
        is_deeply([ $node->grep_log(qr/comparing with/) ], [], '... nor to say');
    }
}

done_testing;

# Creates, replaces and (undef) deletes pairs.
sub put {
    my ($node, $zone, $pairs) = @_;
    my $answer = $node->request('PUT', "/api/9/zonemesh/keyvals/$zone", body => ZoneMesh::Node::encode($pairs));
    fail("$zone of " . $node->name . ' refuses a write: ' . $answer->status . ' ' . $answer->body) if $answer->status != 200;
    return;
}
