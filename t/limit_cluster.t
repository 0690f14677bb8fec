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
    my $before = shown($node, 'slow')->{rejected_dry_run};
    ask($node, "/$count?key=$key");
    return shown($node, 'slow')->{rejected_dry_run} > $before;
}
sub shown { my ($node, $zone) = @_; return $node->get("/api/9/http/limit_reqs/$zone")->json }

# What is admitted on one node counts on all.
is(ask($nodes[0], '/slow?key=a'), 200, 'the first request') for 1;
is(ask($nodes[0], '/slow?key=a'), 200, "request $_ of the burst") for 2 .. 6;
is(ask($nodes[0], '/slow?key=a'), 503, '... and no more');
for my $node (@nodes[ 1, 2 ]) {
    eventually { ask($node, '/slow?key=a') == 503 } $node->name . ': nor there, although nothing was asked there before';
}
is(ask($nodes[1], '/slow?key=b'), 200, 'another key is another limit');

# Spread: three on each of two nodes, and then no more on either.
{
    my @got;
    for my $n (1 .. 3) {
        push @got, map { ask($_, '/slow?key=c') } @nodes[ 0, 1 ];
    }
    is_deeply(\@got, [ (200) x 6 ], 'a burst that is spread over two nodes is admitted');
    eventually { ask($nodes[$_], '/slow?key=c') == 503 } "... and no more on node " . ($_ + 1) for 0 .. 2;
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
    cmp_ok($admitted, '<=', 1.05 * $allowed + 10 + 3, "not more was admitted than the cluster may (of $offered)");
    cmp_ok($admitted, '>=', 0.95 * $allowed, '... and not less');
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
ask($_, '/3?key=') for @nodes;
ask($nodes[2], '/slow?key=f') for 1 .. 3;
eventually { knows($nodes[$_], 'f', 3) } 'node ' . ($_ + 1) . ' hears of three requests' for 0 .. 2;
$nodes[0]{relay}->freeze;
eventually { $nodes[2]->get('/api/9/stream/zone_sync')->json->{status}{nodes_online} == 0 } 'node 3 is cut off';
is_deeply([ map { ask($nodes[2], '/slow?key=f') } 1 .. 4 ], [ 200, 200, 200, 503 ], '... and goes on alone');
is_deeply([ map { ask($nodes[0], '/slow?key=f') } 1 .. 4 ], [ 200, 200, 200, 503 ], '... as do the others');
ok(scalar $nodes[2]->wait_log(qr/limit_req.*alone/), '... and says so');
$nodes[0]{relay}->thaw;
connected(2, @nodes);
is(ask($_, '/slow?key=f'), 503, $_->name . ': together again, nobody admits more') for @nodes;

# kill -9 of a worker, a restart of a node.
ask($nodes[0], '/slow?key=g') for 1 .. 6;
eventually { knows($nodes[$_], 'g', 6) } 'node ' . ($_ + 1) . ' hears of six' for 0 .. 2;
allow_log(qr/exited on signal 9/);
$nodes[0]->kill_worker(($nodes[0]->workers)[0]);
is(ask($nodes[0], '/slow?key=g'), 503, 'what was admitted is known after a kill -9');
$nodes[0]->crash->start;
connected(2, @nodes);
eventually { ask($nodes[0], '/slow?key=g') == 503 } '... and from the others, when all of a node was killed';
is(ask($_, '/slow?key=g'), 503, $_->name . ': nor do the others admit more') for @nodes[ 1, 2 ];

done_testing;
