# Counters: what is added on any node is in the sum once, whatever happens to nodes and connections.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Watch;

my $hits = '/api/9/http/keyvals/hits';

sub incr {
    my ($node, $key, $by, %more) = @_;
    return $node->post($hits, ZoneMesh::Node::encode({ $key => { incr => $by, %more } }));
}
sub sum { return $_[0]->keyvals('hits')->{ $_[1] } }

# One node: the API, variables, keyval_incr.
{
    my $node = node(
        workers => 2,
        http    => '
            keyval_zone zone=hits:1m type=counter timeout=1h;
            keyval $arg_key $hits zone=hits;
            keyval_incr "all" zone=hits;
            server {
                listen 127.0.0.1:%%PORT%%;
                keyval_incr "$arg_by of server" zone=hits if=$arg_by;
                location /api  { api write=on; keyval_incr "" zone=hits; }
                location /read { keyval_incr "" zone=hits; return 200 "$hits"; }
                location /set  { keyval_incr "" zone=hits; set $hits $arg_v; return 204; }
                location /server { return 204; }
                location /here {
                    keyval_incr $uri zone=hits;
                    keyval_incr "two less" zone=hits by=-2;
                    keyval_incr length zone=hits by=$arg_n if=$arg_n;
                    if ($arg_inside) { keyval_incr inside zone=hits; return 204; }
                    return 204;
                }
                location /away { rewrite ^ /here/elsewhere last; }
            }
            server { listen 127.0.0.1:%%OTHER%%; return 204; }',
        vars => { OTHER => my $other = port() },
    )->start;
    my $first = incr($node, 'k', 5);
    is($first->status . $first->body, '201{"k":"5"}', 'an increment begins a counter');
    my $next = $node->patch($hits, '{"k":{"incr":-7}}');
    is($next->status . $next->body, '200{"k":"-2"}', '... and the next one tells the sum');
    is($node->get('/read?key=k')->body, '-2', '... which variables read');
    $node->get('/set?key=k&v=40');
    is(incr($node, 'k', 2)->body, '{"k":"42"}', 'a variable sets it');
    $node->get('/set?key=k&v=many');
    ok(scalar $node->wait_log(qr/can't write to keyval zone "hits": a counter takes a whole number/), 'what is no number is refused, and said');
    is(sum($node, 'k'), '42', '... and changes nothing');

    $node->get('/here/a') for 1 .. 5;
    $node->get('/here/b?n=100') for 1 .. 2;
    $node->get('/here/c?inside=1');
    $node->get('/away');
    $node->get('/server?by=x') for 1 .. 3;
    $node->get('/server?by=0');
    $node->get('/server?by=');
    ZoneMesh::Http->request($other, 'GET', '/') for 1 .. 4;
    my $counted = {
        k => '42', all => '4', 'x of server' => '3', '/here/a' => '5', '/here/b' => '2', '/here/elsewhere' => '1',
        'two less' => '-16', length => '200', inside => '1',
    };
    eventually_is { $node->keyvals('hits') } $counted, 'each request is counted once, where it ends, by the level that has something to count';
    # A worker complains of a zone once a second.
    my $said = wait_for(sub { $node->get('/here/d?n=much'); $node->grep_log(qr/can't count in keyval zone "hits": "by=" came to "much"/) }, 5, 0.2);
    ok($said, 'by= that comes to no number is said');
    allow_log(qr/keyval zone "hits"/);

    # kill -9 of a worker, and a reload, with the same memory and with a new one.
    $node->kill_worker($_) for ($node->workers)[0];
    allow_log(qr/exited on signal 9/);
    is(incr($node, 'k', 1)->body, '{"k":"43"}', 'after kill -9 of a worker it goes on');
    $node->reload;
    is(incr($node, 'k', 1)->body, '{"k":"44"}', 'after a reload too');
    my $text = ZoneMesh::Node::slurp($node->prefix . '/nginx.conf');
    $node->configure(conf => $text =~ s/hits:1m/hits:2m/r)->reload;
    is(incr($node, 'k', 1)->body, '{"k":"45"}', '... and after one that gives the zone another size');
    is($node->get('/api/9/zonemesh/zones/hits')->json->{type}, 'counter', 'the zone says its type');
}

# Three nodes, one of which can be cut off.
my @nodes = my ($first, $second, $third) = cluster(
    3,
    cut_off     => 3,
    not_started => 1,
    zones => 'keyval_zone zone=one:1m timeout=1h sync; keyval_zone zone=hits:1m type=counter timeout=1h state=state/hits.json sync;
              keyval_incr requests zone=hits if=$arg_count;',
);
$_->worker_folder('state') for @nodes;
$_->start for @nodes;
connected(2, @nodes);

my %expected;
sub add_everywhere {
    my ($key, $times, @on) = @_;
    for my $n (1 .. $times) {
        for my $node (@on) {
            incr($node, $key, $n)->status =~ /^20[01]$/ or die $node->tail(5);
            $expected{$key} += $n;
        }
    }
    return;
}
sub all_have {
    my ($key, $name, @on) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return everywhere_is(@on ? \@on : \@nodes, sub { sum($_[0], $key) }, "$expected{$key}", $name, 20);
}

add_everywhere('k', 50, @nodes);
all_have('k', 'added on three nodes at once: the sum is right on all');

# All workers of all nodes, at the same time.
{
    my @children = map {
        my $node = $_;
        map {
            my $pid = fork // die "fork: $!";
            if (!$pid) {
                for (1 .. 100) { eval { incr($node, 'race', 1); $node->get('/read?count=1') } }
                POSIX::_exit(0);
            }
            $pid;
        } 1 .. 2;
    } @nodes;
    waitpid $_, 0 for @children;
    $expected{race} = 600;
    all_have('race', 'six clients on three nodes add to one counter');
    $expected{requests} = 600;
    all_have('requests', 'and requests that all workers count meanwhile add up');
}

# Cut off: both sides go on, and all is there once they meet.
$first->{relay}->stop;
eventually { $third->zone_sync->{status}{nodes_online} == 0 && $first->zone_sync->{status}{nodes_online} == 1 } 'the third node is cut off';
add_everywhere('k', 20, @nodes);
add_everywhere('apart', 10, @nodes);
incr($_, 'begun apart', 1, init => 1000) for $first, $third;
is(sum($third, 'apart'), 55, 'cut off, it has its own');
$first->{relay}->start;
connected(2, @nodes);
$expected{'begun apart'} = 1002;
all_have($_, "together again: \"$_\" has all") for 'k', 'apart', 'begun apart';

# A restart with the state file, and one without.
eventually { !$third->get('/api/9/zonemesh/zones/hits')->json->{state}{pending} } 'the file of the third node is written';
$third->crash;
add_everywhere('k', 5, $first, $second);
$third->start;
connected(2, @nodes);
add_everywhere('k', 5, @nodes);
all_have('k', 'killed and back from its file: nothing is lost or doubled');
$second->quit;
unlink $second->prefix . '/state/hits.json' or die "unlink: $!";
add_everywhere('k', 5, $first, $third);
$second->start;
connected(2, @nodes);
add_everywhere('k', 5, @nodes);
all_have('k', 'ended and back without a file: neither');
$first->quit;
$first->start;
connected(2, @nodes);
add_everywhere('k', 1, @nodes);
all_have('k', 'ended and back with its file: neither');

# A set value and a delete win whole, also over what they had not heard of.
$first->{relay}->stop;
eventually { $third->zone_sync->{status}{nodes_online} == 0 } 'the third node is cut off again';
add_everywhere('k', 3, $third);
is($first->change('hits', 'k', '7'), 204, 'the others set the counter');
is($second->drop('hits', 'apart'), 204, '... and delete another');
everywhere_is([ $first, $second ], sub { sum($_[0], 'k') }, '7', '... for themselves');
$first->{relay}->start;
connected(2, @nodes);
%expected = (k => 7);
all_have('k', 'what was set wins over what was added to what was there before');
everywhere_is(\@nodes, sub { sum($_[0], 'apart') }, undef, 'and a delete is one everywhere');
add_everywhere('k', 4, @nodes);
add_everywhere('apart', 1, @nodes);
all_have($_, "\"$_\" begins anew") for 'k', 'apart';

# An end.
is(incr($first, 'brief', 1, expire => 1500)->status, 201, 'a counter that lives 1.5 s');
everywhere_is(\@nodes, sub { sum($_[0], 'brief') }, '1', '... is everywhere');
is(incr($second, 'brief', 1, expire => 60000)->body, '{"brief":"2"}', '... another node adds, which does not change its end');
everywhere_is(\@nodes, sub { sum($_[0], 'brief') }, undef, '... it has ended everywhere', 5);
add_everywhere('brief', 1, @nodes);
all_have('brief', '... and begins anew');
is($second->clear('hits'), 204, 'the zone is emptied');
everywhere_is(\@nodes, sub { scalar keys %{ $_[0]->keyvals('hits') } }, 0, '... everywhere');
%expected = ();
add_everywhere('k', 2, @nodes);
all_have('k', '... and counting goes on');
same_everywhere(\@nodes, 'hits', 'all nodes hold the same in the end');

# What requests count is told some milliseconds later, by a worker that ends or is killed meanwhile as well.
my $watch = ZoneMesh::Watch->new($first, 'hits', prefix => 'requests');
$first->get('/read?count=1');
is($watch->wait_for(1)->[0], 'set requests', 'a watcher sees what a request counts');
$watch->close;
$expected{requests} = 1;
all_have('requests', '... and so do the other nodes');
for my $round (1 .. 3) {
    $first->get('/read?count=1');
    $expected{requests}++;
    ok(defined $first->quit, "round $round: the node ends at once");
    all_have('requests', "round $round: what it counted last is on the others", $second, $third);
    $first->start;
    connected(2, @nodes);
    for my $worker ($first->workers) {
        $first->get('/read?count=1');
        eventually { sum($first, 'requests') == $expected{requests} + 1 } "round $round: one more" or last;
        $expected{requests}++;
        $first->kill_worker($worker);
        all_have('requests', "round $round: kill -9 of a worker loses none");
    }
}

done_testing;
