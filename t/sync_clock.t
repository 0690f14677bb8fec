# A node whose own stamps are ahead of its clock, and of those of the others: it goes on as another node, and what it had written
# reaches everybody. First from a state file that a clock an hour ahead has written; then by clocks that jump while nginx runs, also
# wrongly.

use FindBin;
use lib "$FindBin::Bin/lib";
use Time::HiRes;
use ZoneMesh;
use ZoneMesh::Clock;
use ZoneMesh::Cluster;

my @nodes = my ($first, $second, $third) =
    cluster(3, zones => 'keyval_zone zone=one:1m timeout=1d state=state/one.json sync;', not_started => 1);
$_->worker_folder('state') for @nodes;
my $ahead = sprintf '%016x', int((Time::HiRes::time() + 3_600) * 1_000) << 16;
my $of    = 'a1' x 16;
$first->write_file('state/one.json', <<"STATE");
{
"ahead":{"value":"of the future","version":"$ahead.$of"},
"too":{"value":"as well","version":"$ahead.$of"}
}
STATE

# Alone it goes on from there: nobody refuses anything.
$first->start;
is_deeply($first->keyvals('one'), { ahead => 'of the future', too => 'as well' }, 'a node begins with stamps of the future');
$first->change('one', 'too', 'written on top of it');
$first->add('one', 'new', 'v');

$_->start for $second, $third;
ok(scalar $first->wait_log(qr/this node's clock is \d+ ms behind its own last stamp, and was mended, as its peers' clocks say/, 20),
    'with peers, which agree with its clock, it says that it goes on as another node') or diag($first->tail(20));
my ($identity) = $first->log_text =~ /it goes on as node ([0-9a-f]{16})/;
ok(scalar $first->wait_log(qr/zone "one": \d+ records from the future have new stamps/), '... and how many records have new stamps');
ok(scalar $first->wait_log(qr/this node is node $identity now/), '... and when that is done');
connected(2, @nodes);
everywhere(\@nodes, 'ahead', 'of the future',        'what was from the future is everywhere', 20);
everywhere(\@nodes, 'too',   'written on top of it', '... and what was written on top of it',  20);
everywhere(\@nodes, 'new',   'v',                    '... and what the node wrote then',       20);

# From now on, its writes are as good as others'.
$first->change('one', 'ahead', 'again');
everywhere(\@nodes, 'ahead', 'again', 'its changes arrive', 10);
$third->change('one', 'ahead', 'by another');
everywhere(\@nodes, 'ahead', 'by another', '... and so do those of others', 10);
$second->drop('one', 'too');
everywhere(\@nodes, 'too', undef, '... and deletes', 10);
same_everywhere(\@nodes, 'one', '... and all are the same');
ok(scalar(grep { ($_->{node} // '') eq $identity } @{ $second->get('/api/9/zonemesh/peers')->json }),
    'the others know it by its new identity') or diag($second->get('/api/9/zonemesh/peers')->body);

# A reload finds the node that it is now.
$first->reload;
connected(2, @nodes);
$first->change('one', 'new', 'after a reload');
everywhere(\@nodes, 'new', 'after a reload', 'after a reload its changes arrive', 10);
is(scalar(() = $first->log_text =~ /it goes on as node/g), 1, 'and it has become another node once');

# A node that shares counters, too: they begin with what a clock an hour ahead has set, and are added to before it meets others.
my ($wrong, $right) = cluster(
    2,
    zones       => 'keyval_zone zone=one:1m timeout=1d sync; keyval_zone zone=sums:1m type=counter state=state/sums.json sync;',
    not_started => 1,
);
$_->worker_folder('state') for $wrong, $right;
$wrong->write_file('state/sums.json', qq({\n"k":{"value":"40","version":"$ahead.$of"}\n}\n));
$wrong->start;
is(incr($wrong, 'k',   1), '41', 'a counter begins with what was set in the future');
is(incr($wrong, 'new', 1), '1',  '... and another one begins');
$right->start;
ok(scalar $wrong->wait_log(qr/was mended, as its peers' clocks say: it goes on as node/, 20),
    'with a peer, a node with counters says that it goes on as another node') or diag($wrong->tail(20));
ok(scalar $wrong->wait_log(qr/zone "sums": \d+ records from the future have new stamps/), '... and how many records have new stamps');
sums_are([ $wrong, $right ], { k => '41', new => '1' }, '... what was set and added in the future is everywhere');
incr($right, 'k', 100);
incr($wrong, 'k', 1_000);
sums_are([ $wrong, $right ], { k => '1141', new => '1' }, '... and so is what both add');
is($right->change('sums', 'new', '7'), 204, '... and what is set now');
incr($wrong, 'k', 1);
sums_are([ $wrong, $right ], { k => '1142', new => '7' }, '... ends what was added in the future');
is(scalar(() = $wrong->log_text =~ /it goes on as node/g), 1, '... and it has become another node once');
$_->stop for @nodes, $wrong, $right;

# A clock that jumps while nginx runs, among three.
SKIP: {
    my $sync = "$ZoneMesh::Cluster::QUICK zone_sync_max_drift 2s;";
    my ($first, $second, $third) = my @nodes = cluster(
        3,
        sync        => $sync,
        zones       => 'keyval_zone zone=one:1m timeout=1h sync; keyval_zone zone=sums:1m type=counter sync;',
        http        => <<'CONF',
    limit_req_zone $arg_key zone=slow:1m rate=1r/m sync;
    server {
        listen 127.0.0.1:%%SITE%%;
        location /page { limit_req zone=slow burst=5 nodelay; alias %%PREFIX%%/page; }
    }
CONF
        ports       => ['SITE'],
        not_started => 1,
    );
    $_->write_file('page', "a page\n") for @nodes;
    my $clock = ZoneMesh::Clock->new($first, 60) or skip(ZoneMesh::Clock->why_not, 1);
    $_->start for @nodes;
    connected(2, @nodes);
    incr($_, 'k', 1) for $second, $third;
    sums_are(\@nodes, { k => '2' }, 'two add to a counter');

    # A minute ahead.
    ok(scalar $_->wait_log(qr/\[warn\].*the peer's clock is (?:59|60)\d{3} ms ahead; records more than 2000 ms ahead of a node's clock are refused \(zone_sync_max_drift\)/),
        'a minute ahead: ' . $_->name . ' says that its peer is ahead') or diag($_->tail(10))
        for $second, $third;
    ok(scalar $first->wait_log(qr/\[warn\].*the peer's clock is (?:59|60)\d{3} ms behind; /), '... and the node itself that its peers are behind') or diag($first->tail(10));
    eventually { offset_is($second, $first, 60) && offset_is($first, $second, -60) && offset_is($second, $third, 0) }
        '... API and metrics show how far clocks are apart' or diag($second->get('/api/9/zonemesh/peers')->body);
    is($first->add('one', 'ahead', 'v'), 201, '... what it writes');
    for my $node ($second, $third) {
        eventually { future($node) > 0 } '... is refused and counted on ' . $node->name;
        ok(scalar $node->wait_log(qr/\[warn\].*zone "one": 1 records of node [0-9a-f]{16} are more than 2000 ms ahead of this node's clock and are refused for now/),
            '... as the log says') or diag($node->tail(10));
        is($node->keyvals('one')->{ahead}, undef, '... and is not there');
    }
    is(incr($first,  'k', 10),  '12', '... it adds to the counter');
    is(incr($second, 'k', 100), '102', '... and so does another');
    is_deeply([ map { ask($first, 'a') } 1 .. 4 ], [ (200) x 4 ], '... and it admits requests');
    sums_are([$first], { k => '112' }, '... and takes what others add');
    is(future($first), 0, '... it has refused nothing itself');
    sums_are([$third], { k => '102' }, '... which have refused what it added');
    $second->add('one', 'in time', 'v');
    everywhere(\@nodes, 'in time', 'v', '... and takes what others write');
    unlike($first->log_text, qr/behind its own last stamp/, '... and finds nothing wrong with its own stamps');

    # Mended.
    $clock->set(0);
    ok(scalar $first->wait_log(qr/\[warn\].*this node's clock is \d+ ms behind its own last stamp, and was mended, as its peers' clocks say: it goes on as node/, 20),
        'mended: it goes on as another node') or diag($first->tail(20));
    everywhere(\@nodes, 'ahead', 'v', '... and what was refused is everywhere', 20);
    sums_are(\@nodes, { k => '112' }, '... and so is what was added');
    ok(scalar $first->wait_log(qr/this node is node [0-9a-f]{16} now/), '... all of it has new stamps');
    eventually { $_->get('/api/9/zonemesh/zones/slow')->json->{records} >= 1 } '... ' . $_->name . ' knows of what was admitted' for @nodes;
    # Of a burst of five and one.
    is_deeply([ map { ask($third, 'a') } 1 .. 3 ], [ 200, 200, 503 ], '... and admits what is left');
    connected(2, @nodes);
    eventually { offset_is($second, $first, 0) && offset_is($first, $second, 0) } '... the offsets are gone';

    # Back by a minute, and wrongly so: it is the clocks of the others that are where its stamps are.
    my $refused = future($first);
    $clock->set(-60);
    ok(scalar $first->wait_log(qr/\[warn\].*this node's clock is (?:5\d|60)\d{3} ms behind its own last stamp, and the clocks of 2 peers are not: it goes on from that stamp; check the time service/, 20),
        'a minute behind: it says that the clock is wrong') or diag($first->tail(20));
    is($first->change('one', 'ahead', 'written behind'), 204, '... it goes on from its last stamp');
    everywhere(\@nodes, 'ahead', 'written behind', '... which others take as later than what they had');
    eventually { offset_is($second, $first, -60) && offset_is($first, $second, 60) } '... the offsets show it';
    $third->add('one', 'by others', 'v');
    everywhere([$second], 'by others', 'v', '... and what others write');
    eventually { future($first) > $refused } '... it refuses as from the future';
    is($first->keyvals('one')->{'by others'}, undef, '... and does not show');
    $clock->set(0);
    everywhere(\@nodes, 'by others', 'v', 'mended: it is there', 20);
    same_everywhere(\@nodes, 'one', '... and all are the same');
    is(scalar(() = $first->log_text =~ /it goes on as node/g), 1, '... it was right once, and became another node once');
    is(scalar(() = $first->log_text =~ /are not: it goes on from that stamp/g), 1, '... and was wrong once');
    unlike($_->log_text, qr/behind its own last stamp/, $_->name . ' has never doubted its own clock') for $second, $third;
}

done_testing;

# What a counter stands at, on a node, after something was added there.
sub incr {
    my ($node, $key, $by) = @_;
    $node->post('/api/9/http/keyvals/sums', qq({"$key":{"incr":$by}}));
    return $node->keyvals('sums')->{$key};
}

sub sums_are {
    my ($nodes, $sums, $name) = @_;
    my $canon = JSON::PP->new->canonical;
    return everywhere_is($nodes, sub { $canon->encode($_[0]->keyvals('sums')) }, $canon->encode($sums), $name, 20);
}

sub ask { my ($node, $key) = @_; return ZoneMesh::Http->request($node->{vars}{SITE}, 'GET', "/page?key=$key")->status }

# Records that a zone refused as they came from the future, by the API; the metrics say the same.
sub future {
    my ($node) = @_;
    my $shown = $node->get('/api/9/zonemesh/zones/one')->json->{future};
    my ($counted) = $node->get('/api/9/zonemesh/metrics')->body =~ /^zonemesh_zone_future_total\{zone="one"\} (\d+)$/m;
    die "future: $shown by the API, then $counted by the metrics" if $counted < $shown;
    return $shown;
}

# Whether a node shows that another's clock is so many seconds ahead of its own, give or take one, by the API and the metrics.
sub offset_is {
    my ($node, $other, $seconds) = @_;
    my $address = '127.0.0.1:' . $other->sync;
    my ($peer) = grep { $_->{address} eq $address } @{ $node->get('/api/9/zonemesh/peers')->json };
    my ($counted) = $node->get('/api/9/zonemesh/metrics')->body =~ /^zonemesh_sync_peer_clock_offset_seconds\{peer="\Q$address\E"\} (\S+)$/m;
    return 0 unless defined $peer->{clock_offset} && defined $counted;
    return abs($peer->{clock_offset} / 1_000 - $seconds) < 1 && abs($counted - $seconds) < 1;
}
