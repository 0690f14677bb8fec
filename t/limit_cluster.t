# limit_req ... sync on several nodes: what the cluster admits of more than it may, what the API shows, and nodes that are cut
# off, restarted and killed.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

my $http = <<'CONF';
    limit_req_zone $arg_key zone=fast:1m  rate=50r/s sync;
    limit_req_zone $arg_key zone=slow:1m  rate=1r/m  sync;
    limit_req_zone always   zone=own:1m   rate=1r/m;
    server {
        listen 127.0.0.1:%%SITE%%;
        location /fast { limit_req zone=fast burst=10 nodelay; alias %%PREFIX%%/page; }
        location /slow { limit_req zone=slow burst=5 nodelay; alias %%PREFIX%%/page; }
        location /wait { limit_req zone=fast burst=10; limit_req_dry_run on; alias %%PREFIX%%/page; }
        location /3    { limit_req zone=slow burst=2; limit_req zone=own; limit_req_dry_run on; alias %%PREFIX%%/page; }
        location /6    { limit_req zone=slow burst=5; limit_req zone=own; limit_req_dry_run on; alias %%PREFIX%%/page; }
        location /9    { limit_req zone=slow burst=8; limit_req zone=own; limit_req_dry_run on; alias %%PREFIX%%/page; }
        location /dry  { limit_req zone=slow; limit_req_dry_run on; alias %%PREFIX%%/page; }
    }
CONF
my @nodes = cluster(3, http => $http, ports => ['SITE'], not_started => 1, cut_off => 3);
$_->write_file('page', "a page\n") for @nodes;
$_->start for @nodes;
connected(2, @nodes);

sub ask { my ($node, $target) = @_; return ZoneMesh::Http->request($node->{vars}{SITE}, 'GET', $target)->status }
# Whether a node knows of so many requests of a key: asking doesn't count, as the other limit, of nginx's own, refuses it if
# this one doesn't.
sub knows {
    my ($node, $key, $count) = @_;
    ask($node, "/$count?key=");    # from now on nginx's own refuses
    my $before = shown($node, 'slow')->{rejected_dry_run};
    ask($node, "/$count?key=$key");
    return shown($node, 'slow')->{rejected_dry_run} > $before;
}
# All know of so many, and then none admits one more.
sub full_everywhere {
    my ($key, $count, $name) = @_;
    eventually { knows($_, $key, $count) } $_->name . ": knows of $count, $name" for @nodes;
    is(ask($_, "/slow?key=$key"), 503, $_->name . ': and admits no more') for @nodes;
    return;
}
sub shown { my ($node, $zone) = @_; return $node->get("/api/9/http/limit_reqs/$zone")->json }

# What is admitted on one node counts on all.
is_deeply([ map { ask($nodes[0], '/slow?key=a') } 1 .. 6 ], [ (200) x 6 ], 'a request and the burst');
ok(!knows($nodes[0], 'a', 9), 'asking what is known ...');
full_everywhere('a', 6, 'although nothing was asked on the others before');
ok(!knows($nodes[0], 'a', 9), '... counts nothing, nor does what is refused');
is(ask($nodes[1], '/slow?key=b'), 200, 'another key is another limit');

# Spread: three on each of two nodes, and then no more on either.
{
    my @got;
    for my $n (1 .. 3) {
        push @got, map { ask($_, '/slow?key=c') } @nodes[ 0, 1 ];
    }
    is_deeply(\@got, [ (200) x 6 ], 'a burst that is spread over two nodes is admitted');
    full_everywhere('c', 6, 'three from each of two nodes');
}

# Offered more than the rate for two seconds, on all nodes in turn: what is admitted is what drains, the burst, and what
# nobody can know in time.
{
    my ($began, $admitted, $offered) = (time, 0, 0);
    while ((my $elapsed = time - $began) < 2) {
        $admitted++ if ask($nodes[ $offered++ % 3 ], '/fast?key=d') == 200;
    }
    my $elapsed = time - $began;
    my $allowed = 50 * $elapsed;
    cmp_ok($offered, '>', 1.5 * $allowed, 'more was offered than may be');
    cmp_ok($admitted, '<=', $allowed + 10 + 1 + @nodes, "not more was admitted than the cluster may (of $offered)");
    cmp_ok($admitted, '>=', int $allowed, '... and not less');
}

# Figures.
is_deeply($nodes[0]->get('/api/9/http/limit_reqs?fields=')->json, [qw(fast slow)], 'the shared zones are listed, not those of nginx');
my $figures = shown($nodes[1], 'slow');
is_deeply([ sort keys %$figures ], [qw(delayed delayed_dry_run passed rejected rejected_dry_run)], 'figures of a zone');
cmp_ok($figures->{passed}, '>=', 4, '... count what passed');
cmp_ok($figures->{rejected}, '>=', 2, '... and was rejected');
is($nodes[1]->delete('/api/9/http/limit_reqs/slow')->status, 204, 'DELETE');
is_deeply(shown($nodes[1], 'slow'), { map { $_ => 0 } keys %$figures }, '... sets them to zero');
ask($nodes[1], '/dry?key=e') for 1 .. 3;
ask($nodes[1], '/wait?key=e') for 1 .. 3;
is_deeply(shown($nodes[1], 'slow'), { %{ shown($nodes[1], 'slow') }, passed => 1, rejected_dry_run => 2, rejected => 0 }, 'a dry run is counted as such');
cmp_ok(shown($nodes[1], 'fast')->{delayed_dry_run}, '>=', 1, '... and its delays');
is($nodes[1]->get('/api/9/http/limit_reqs/none')->status, 404, 'there is no other');
is($nodes[1]->get('/api/9/http/limit_reqs/none')->json->{error}{code}, 'LimitReqNotFound', '... as the API says it');
is($nodes[1]->delete('/api/9/http/limit_reqs/none')->json->{error}{code}, 'LimitReqNotFound', '... to DELETE as well');
like($nodes[1]->get('/api/9/zonemesh/metrics')->body, qr/^zonemesh_limit_req_requests_total\{zone="slow",outcome="rejected_dry_run"\} 2$/m, 'figures for Prometheus');
is_deeply([ grep { /fast|slow/ } keys %{ $nodes[1]->keyvals } ], [], 'zones of limits are none of key-values');
ok(exists $nodes[0]->zone_sync->{zones}{slow}, '... but of those that are synchronized');

# A node that is cut off goes on with what it knows.
ask($nodes[2], '/slow?key=f') for 1 .. 3;
eventually { knows($_, 'f', 3) } $_->name . ': hears of three requests' for @nodes;
$nodes[0]{relay}->freeze;
eventually { $nodes[2]->get('/api/9/stream/zone_sync')->json->{status}{nodes_online} == 0 } 'node 3 is cut off';
is_deeply([ map { ask($nodes[2], '/slow?key=f') } 1 .. 4 ], [ 200, 200, 200, 503 ], '... and goes on alone');
is_deeply([ map { ask($nodes[0], '/slow?key=f') } 1 .. 4 ], [ 200, 200, 200, 503 ], '... as do the others');
# All told of limits, without the time; the names of the others as they are dialled.
sub told { my ($node) = @_; return map { s/.*?(limit_req: )/$1/r } $node->grep_log(qr/limit_req: (?:all other|not connected|no other)/) }
my $shared = 'limit_req: all other nodes are connected: zones with sync are shared with each that has them';
ok(scalar $nodes[2]->wait_log(qr/limit_req: no other node is connected \(127\.0\.0\.1:\d+, 127\.0\.0\.1:\d+\): .* go on alone/), '... and says so, with names');
for my $node (@nodes[ 0, 1 ]) {
    ok(scalar $node->wait_log(qr/limit_req: not connected to 127\.0\.0\.1:\d+: /), $node->name . ' says whom it goes on without');
    is(scalar(grep { /not connected/ } told($node)), 1, '... once');
    my %state = map { $_->{state} => 1 } @{ $node->get('/api/9/zonemesh/peers')->json };
    is($state{connected}, 1, '... and the API shows the others');
    ok(scalar(grep { $state{$_} } qw(connecting unreachable)), '... and that one');
}
$nodes[0]{relay}->thaw;
connected(2, @nodes);
for my $node (@nodes) {
    eventually_is { (told($node))[-1] } $shared, $node->name . ' says that all are there again';
}
full_everywhere('f', 9, 'of which three are from before, and three from each side');

# kill -9 of a worker, a restart of a node.
ask($nodes[0], '/slow?key=g') for 1 .. 6;
eventually { knows($_, 'g', 6) } $_->name . ': hears of six' for @nodes;
allow_log(qr/exited on signal 9/);
$nodes[0]->kill_worker(($nodes[0]->workers)[0]);
is(ask($nodes[0], '/slow?key=g'), 503, 'what was admitted is known after a kill -9');
$nodes[0]->crash->start;
connected(2, @nodes);
full_everywhere('g', 6, 'one of them from the others, as all of it was killed');

# A node that is started alone says so, too, as soon as it is sure.
$_->stop for @nodes[ 1, 2 ];
my $lines = () = told($nodes[0]);
$nodes[0]->crash->start;
eventually { @{ [ told($nodes[0]) ] } > $lines } 'a node that is started alone tells of it';
like((told($nodes[0]))[-1], qr/no other node is connected .* go on alone/, '... and that it goes on alone');
is(ask($nodes[0], '/slow?key=h'), 200, '... as it does');

# What the API shows of zones of limits.
is_deeply($nodes[0]->get('/api/9/zonemesh/zones/')->json, [qw(fast one slow)], 'zones of limits are among all zones');
my $zone = $nodes[0]->get('/api/9/zonemesh/zones/slow')->json;
is($zone->{type}, 'limit', '... with their type');
cmp_ok($zone->{rate}, '==', 0.016, '... and rate');
is($zone->{records}, 1, '... and records');
like($nodes[0]->get('/api/9/zonemesh/metrics')->body, qr/^zonemesh_zone_records\{zone="slow"\} 1$/m, 'also for Prometheus');

done_testing;
