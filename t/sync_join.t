# A node that starts empty says how far it is with taking the state of another, and so does the one that gives it.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Wire;

# A donor that gives as much as the test wants to see.
{
    my $node = node(
        http => 'keyval_zone zone=one:1m sync; keyval_zone zone=alone:64k;
            server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }',
        stream => 'server { listen 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_timeout 5s; }'
    )->start;
    my $state = sub { my $zone = $node->get('/api/9/zonemesh/zones/one')->json; return { map { $_ => $zone->{$_} } qw(joined joining) } };
    my $no = JSON::PP::false;
    is_deeply($state->(), { joined => $no, joining => undef }, 'a node that has met nobody has not joined');
    my $alone = $node->get('/api/9/zonemesh/zones/alone')->json;
    is_deeply([ @$alone{qw(joined joining)} ], [ undef, undef ], 'a zone that is not shared has nothing to join');

    my $socket = tcp($node->sync);
    print {$socket} hello(), zone(1, 'one');
    my ($bytes, $epoch) = ('');
    ok(scalar $node->wait_log(qr/\[info\].*session of node [0-9a-f]{16} began while.*client: 127\.0\.0\.1/), 'the log tells of a node that dials');
    ok(wait_for(sub {
        $bytes .= (read_all($socket, 0.05))[0];
        my ($asked) = grep { $_->[0] == $TYPE{SUBSCRIBE} && ord(substr $_->[1], 2, 1) == 2 } frames($bytes);
        $epoch = ord substr $asked->[1], 1, 1 if $asked;
    }), 'it asks for the full state');
    ok(scalar $node->wait_log(qr/\[info\].*zone "one" joins: it takes the full state of node [0-9a-f]{16} while.*client: 127\.0\.0\.1/), '... as the log says');
    my $numbers = varint(1) . varint($epoch);
    print {$socket} frame($TYPE{OPTIONAL} | 8, $numbers . varint(1_000));
    eventually_is { $state->() } { joined => $no, joining => { records => 0, of => 1_000 } }, 'the donor says how much there is';
    print {$socket} records(1, $epoch, map { record("key $_", 'v') } 1 .. 600);
    eventually_is { $state->() } { joined => $no, joining => { records => 512, of => 1_000 } }, 'half of it is there, and the API says so';
    is($node->add('one', 'own', 'v'), 201, '... the node serves meanwhile');
    like($node->get('/api/9/zonemesh/metrics')->body, qr/^zonemesh_zone_joined\{zone="one"\} 0$/m, '... the metrics say so, too');
    print {$socket} records(1, $epoch, map { record("key $_", 'v') } 601 .. 1_000), frame($TYPE{POSITION}, $numbers . chr(1) . varint(0));
    eventually_is { $state->() } { joined => JSON::PP::true, joining => undef }, 'all is there';
    like(($node->wait_log(qr/has joined/))[0], qr/\[notice\].*zone "one" has joined: the full state of node [0-9a-f]{16} is here \(1000 records in \d+ ms\)/, '... as the log says, with the count');
    is(scalar keys %{ $node->keyvals('one') }, 1_001, '... and the API');
    close $socket;
    $node->stop;
}

# For real.
{
    my @nodes = cluster(3, not_started => 1);
    my $newcomer = $nodes[2];
    my @others = @nodes[ 0, 1 ];
    $_->start for @others;
    connected(1, @others);
    eventually { $_->get('/api/9/zonemesh/zones/one')->json->{joined} } $_->name . ' has joined' for @others;
    $others[0]->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ map { ("key $_" => 'v') } 1 .. 1_500 }));
    everywhere_is(\@others, sub { scalar keys %{ $_[0]->keyvals('one') } }, 1_500, 'two nodes have the same', 10);
    $newcomer->start;
    everywhere_is(\@nodes, sub { scalar keys %{ $_[0]->keyvals('one') } }, 1_500, 'a third one joins them', 10);
    ok(scalar $newcomer->wait_log(qr/\[notice\].*zone "one" has joined: the full state of node [0-9a-f]{16} is here \(1500 records in/), '... it says so');
    my $given = qr/\[notice\].*zone_sync peer 127\.0\.0\.1:@{[ $newcomer->sync ]}: zone "one": 1500 records of the full state were sent to it/;
    eventually { 1 == grep { scalar $_->grep_log($given) } @others } '... and so does the one that gave it';
    # By then it has all of both, and has asked nobody for more.
    eventually { $newcomer->get('/api/9/zonemesh/zones/one')->json->{comparisons}{ended} >= 2 } '... until it compares what it has with both', 15;
    is(scalar(grep { scalar $_->grep_log($given) } @others), 1, '... no other one has given it as well');
    for my $node (@others) {
        ok(scalar $node->wait_log(qr/\[notice\].*zone_sync peer 127\.0\.0\.1:@{[ $newcomer->sync ]}: connected to node [0-9a-f]{16}/), $node->name . ' has logged the connection');
    }
    $newcomer->stop;
    for my $node (@others) {
        ok(scalar $node->wait_log(qr/\[notice\].*zone_sync peer 127\.0\.0\.1:@{[ $newcomer->sync ]}: lost: /), '... and its end, with the reason');
    }
    $_->stop for @others;
}

# The node that gives the state falls silent, or dies, in the middle of it: another one goes on.
{
    my $size = 50_000;
    my @nodes = cluster(3, not_started => 1, zones => 'client_max_body_size 8m; keyval_zone zone=one:48m sync;');
    my $newcomer = $nodes[2];
    my @others = @nodes[ 0, 1 ];
    $_->start for @others;
    connected(1, @others);
    eventually { $_->get('/api/9/zonemesh/zones/one')->json->{joined} } $_->name . ' has joined' for @others;
    my $value = 'v' x 400;
    for my $n (1 .. 10) {
        my %pairs = map { ("key $_" => $value) } ($n - 1) * $size / 10 + 1 .. $n * $size / 10;
        my $answer = $others[0]->request('PUT', '/api/9/zonemesh/keyvals/one', body => ZoneMesh::Node::encode(\%pairs));
        is($answer->status, 200, "part $n of a large state");
    }
    everywhere_is(\@others, \&held, $size, 'two nodes have it', 30);
    # Each by what the other one says of it.
    my %known = map { my $n = $_; (identity($others[ 1 - $n ], $others[$n]) => $others[$n]) } 0, 1;

    for my $how (qw(frozen killed)) {
        my @asked = $newcomer->grep_log(qr/takes the full state/);
        $newcomer->start;
        my $giver = qr/zone "one" joins: it takes the full state of node ([0-9a-f]{16})/;
        my $line  = ($newcomer->wait_log($giver, 10, scalar @asked))[-1];
        my $donor = $known{ ($line // '') =~ $giver ? $1 : '' } or die "nobody gives the state: " . ($line // 'no line');
        # A little at a time, until some of it is there. How much there is comes a moment after the log line.
        my @workers = $donor->workers;
        my $joining;
        for (1 .. 2_000) {
            kill 'STOP', @workers;
            my $zone = $newcomer->get('/api/9/zonemesh/zones/one')->json;
            $joining = $zone->{joining};
            last if $zone->{joined} || $joining && $joining->{records} > 0;
            kill 'CONT', @workers;
            sleep 0.001;
        }
        ok($joining && $joining->{records} > 0 && $joining->{records} < $size,
            "the node that gives the state is $how when " . ($joining ? $joining->{records} : 'all') . ' records are there');
        $donor->crash if $how eq 'killed';
        eventually_is { held($newcomer) } $size, '... and all arrive', 30;
        my @now = map { /$giver/ ? $1 : () } $newcomer->grep_log($giver);
        splice @now, 0, scalar @asked;
        is(scalar @now, 2, '... as another node was asked') and isnt($now[1], $now[0], '... which is another one indeed');
        eventually { $newcomer->get('/api/9/zonemesh/zones/one')->json->{joined} } '... and the node has joined';
        kill 'CONT', @workers if $how eq 'frozen';
        connected($how eq 'frozen' ? 2 : 1, $newcomer);
        $newcomer->quit;
    }
    $_->stop for @nodes;
}

done_testing;

sub held { my ($node) = @_; return $node->get('/api/9/zonemesh/zones/one')->json->{records} }

sub identity {
    my ($asked, $node) = @_;
    my ($peer) = grep { $_->{server} eq '127.0.0.1:' . $node->sync } @{ $asked->get('/api/9/zonemesh/peers')->json };
    return $peer->{node};
}
