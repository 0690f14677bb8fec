# The configurations in nginx-conf/ load and do what their comments say, with nothing changed but addresses.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;
use ZoneMesh::Cluster qw(connected);

my $examples = "$FindBin::Bin/../nginx-conf";

# A node with this example as its nginx.conf, and what the example expects beside it. Its includes are copied, too.
sub example {
    my ($file, %change) = @_;
    my $node = node(name => $file, conf => '', workers => $change{workers} // 1);
    my $prefix = $node->prefix;
    mkdir "$prefix/$_" for qw(modules certs);
    symlink ZoneMesh::Node::module_file('stream'),   "$prefix/modules/ngx_stream_module.so";
    symlink ZoneMesh::Node::module_file('zonemesh'), "$prefix/modules/ngx_zonemesh_module.so";
    my $folder = "$examples/$file" =~ s{/[^/]+$}{}r;
    for my $path ("$examples/$file", grep { !/node\d/ } glob "$folder/*.conf") {
        my $text = ZoneMesh::Node::slurp($path);
        $text =~ s/\Q$_\E/$change{replace}{$_}/g for keys %{ $change{replace} };
        my ($name) = $path =~ m{([^/]+)$};
        $path eq "$examples/$file" ? $node->configure(conf => $text) : $node->write_file($name, $text);
    }
    return $node;
}

{
    my $port = port();
    my $node = example('single.conf', replace => { ':8080' => ":$port" });
    $node->configure(port => $port)->start;
    is($node->get('/')->body, "welcome\n", 'single.conf: an address that nobody blocked');
    is($node->add('clients', '127.0.0.1', 'blocked'), 201, 'single.conf: blocked by the API');
    is($node->get('/')->status, 403, 'single.conf: it is');
    is($node->drop('clients', '127.0.0.1'), 204, 'single.conf: and no longer');
    is($node->get('/')->status, 200, 'single.conf: it is not');
}

{
    my $port = port();
    my $node = example('counters.conf', replace => { ':8080' => ":$port" });
    $node->configure(port => $port)->start;
    is($node->get('/')->body, "visits before this one: \n", 'counters.conf: the first visit');
    is($node->get('/none')->status, 200, 'counters.conf: another');
    eventually_is { $node->get('/api/9/http/keyvals/counts')->json->{'127.0.0.1'} } '2', 'counters.conf: both are counted';
    is($node->get('/')->body, "visits before this one: 2\n", 'counters.conf: ... and shown');
    is($node->post('/api/9/http/keyvals/counts', '{"by hand":{"incr":5}}')->body, '{"by hand":"5"}', 'counters.conf: by hand');
    my $counts = $node->keyvals('counts');
    is($counts->{'status 200'}, '3', 'counters.conf: by status');
    cmp_ok($counts->{'bytes in'}, '>', 60, 'counters.conf: bytes');
    ok(!exists $counts->{errors}, 'counters.conf: no errors, and what the API answers is not counted');
}

{
    my ($http, $sync) = (port(), port());
    my $ca = authority('the CA');
    my @nodes = map {
        my $n    = $_;
        my $node = example("cluster/node$n.conf", workers => 2, replace => {
            ':8080' => ":$http", ':9000' => ":$sync"
        });
        my ($certificate, $key) = $ca->issue("node$n", ip => ["127.0.0.1$n"]);
        my $prefix = $node->prefix;
        system('cp', $certificate, "$prefix/certs/node.pem") == 0 && system('cp', $key, "$prefix/certs/node.key") == 0
            && system('cp', $ca->file, "$prefix/certs/ca.pem") == 0 or die 'cp';
        $node->configure(host => "127.0.0.1$n", port => $http)->start;
    } 1 .. 3;
    connected(2, @nodes);
    is($nodes[0]->add('sessions', 's1', 'alice'), 201, 'cluster: a session on node 1');
    for my $node (@nodes) {
        eventually_is { $node->get('/whoami?session=s1')->body } "alice\n", 'cluster: it is known to ' . $node->name;
    }
    is($nodes[2]->drop('sessions', 's1'), 204, 'cluster: it ends on node 3');
    for my $node (@nodes) {
        eventually_is { $node->get('/whoami?session=s1')->status } 403, 'cluster: and is unknown to ' . $node->name;
    }
}

# Three nodes with one file, each with its own address in its `listen` lines, and the ports of this test.
sub three {
    my ($file, %more) = @_;
    my ($http, $door, $sync) = (port(), port(), port());
    my @nodes = map {
        my $n    = $_;
        my $node = example($file, workers => 2, replace => {
            'listen 127.0.0.11:' => "listen 127.0.0.1$n:", ':8080' => ":$http", ':8081' => ":$door", ':9000' => ":$sync", %more
        });
        $node->configure(name => "$file $n", host => "127.0.0.1$n", port => $http)->start;
    } 1 .. 3;
    return ($door, @nodes);
}

# A request through the door of a node.
sub through {
    my ($node, $door, $method, $target, @more) = @_;
    return ZoneMesh::Http->request($door, $method, $target, host => $node->{host}, @more);
}

{
    my ($door, @nodes) = three('primary-replica.conf');
    my ($primary, $replica, $other) = @nodes;
    my $store = '/api/9/http/keyvals/store';
    my $is    = sub {
        my ($pairs, $name) = @_;
        for my $node (@nodes) {
            eventually_is { $node->keyvals('store') } $pairs, "primary-replica: $name, on " . $node->name;
        }
    };
    is($primary->add('store', 'a', '1'), 201, 'primary-replica: a pair on the primary');
    $is->({ a => '1' }, 'is mirrored');
    my $away = $replica->post($store, '{"b":"2"}');
    is($away->status, 307, 'primary-replica: a write on a replica goes elsewhere');
    my ($place, $port) = ($primary->{host}, $primary->port);
    is($away->header('Location'), "http://$place:$port$store", 'primary-replica: to the primary');
    $is->({ a => '1' }, 'and changes nothing');
    is($replica->patch("$store/", '{"a":null}')->status, 307, 'primary-replica: PATCH too');
    is($other->clear('store'), 307, 'primary-replica: and DELETE');
    is($primary->change('store', 'a', '2'), 204, 'primary-replica: a change');
    $is->({ a => '2' }, 'is mirrored');
    is(through($replica, $door, 'POST', $store, body => '{"c":"3"}', headers => { 'X-Mirrored' => 'yes' })->status, 201,
        'primary-replica: a write through any door, with a mark of the client');
    $is->({ a => '2', c => '3' }, 'reaches all');
    is(through($other, $door, 'GET', $store)->json->{c}, '3', 'primary-replica: reading through a door');
    my %seen = map { (through($primary, $door, 'GET', '/api/9/nginx')->json->{address} => 1) } 1 .. 40;
    is(keys %seen, 3, 'primary-replica: reads are balanced');
    my $before = $replica->get('/api/9/http/requests')->json->{total};
    $primary->get($store) for 1 .. 10;
    is($replica->get('/api/9/http/requests')->json->{total}, $before + 1, 'primary-replica: and not mirrored');
    is($primary->clear('store'), 204, 'primary-replica: emptied');
    $is->({}, 'all');
}

{
    my ($door, @nodes) = three('replicated-kv.conf');
    connected(2, @nodes);
    for my $n (0 .. 2) {
        is($nodes[$n]->request('PUT', "/kv/k$n", body => "value $n")->status, 201, "replicated-kv: a value on node $n");
        for my $node (@nodes) {
            eventually_is { $node->get("/kv/k$n")->body } "value $n", 'replicated-kv: is on ' . $node->name;
        }
    }
    is(through($nodes[0], $door, 'DELETE', '/kv/k1')->status, 204, 'replicated-kv: deleted through a door');
    for my $node (@nodes) {
        eventually_is { $node->get('/kv/k1')->status } 404, 'replicated-kv: is gone from ' . $node->name;
    }
    is($nodes[1]->add('store', 'b', '1'), 201, 'replicated-kv: by the API');
    eventually_is { $nodes[2]->get('/kv/b')->body } '1', 'replicated-kv: a body elsewhere';
}

{
    my %backends = backends(qw(a b c));
    my %ports    = (a => ':9101', b => ':9102', c => ':9103');
    my ($door, @nodes) = three('sticky-learn.conf', map { $ports{$_} => ':' . $backends{$_}->port } keys %ports);
    connected(2, @nodes);
    my %session = map { (login($nodes[ $_ % 3 ], "s$_", '/') => "s$_") } 1 .. 12;
    is(join('', sort keys %session), 'abc', 'sticky-learn: sessions on all servers');
    # The servers that come with it, in place of these for a moment.
    {
        my %given = map { $_ => port() } keys %ports;
        my $servers = example('sticky-servers.conf', replace => {
            map { my $port = substr $ports{$_}, 1; (":$port;" => ":$given{$_};", " $port $_;" => " $given{$_} $_;") } keys %ports
        });
        $servers->configure(port => $given{a})->start;
        for my $name (sort keys %given) {
            my $answer = ZoneMesh::Http->request($given{$name}, 'GET', '/login');
            like($answer->header('Set-Cookie'), qr/^session=[0-9a-f]{32}$/, "sticky-servers: $name begins a session");
            is(ZoneMesh::Http->request($given{$name}, 'GET', '/')->body, "$name\n", 'sticky-servers: ... and says its name');
        }
    }
    for my $server (sort keys %session) {
        for my $node (@nodes) {
            eventually_is { with($node, $session{$server}, '/') } $server, "sticky-learn: leads to $server from " . $node->name;
        }
    }
    $backends{b}->stop;
    my $other = with($nodes[0], $session{b}, '/');
    like($other, qr/^[ac]$/, 'sticky-learn: a server ends');
    $nodes[2]->quit;
    $nodes[2]->start;
    for my $node (@nodes) {
        eventually_is { with($node, $session{b}, '/') } $other, 'sticky-learn: the same takes its place for ' . $node->name;
    }
}

for my $file (qw(sticky-cookie.conf sticky-route.conf)) {
    my ($port, @servers) = map { port() } 1 .. 3;
    my $node = example($file, replace => { ':8080' => ":$port", ':9101' => ":$servers[0]", ':9102' => ":$servers[1]" });
    $node->configure(port => $port, workers => 2)->start;
    if ($file =~ /cookie/) {
        my $answer = $node->get('/');
        my ($cookie) = $answer->header('Set-Cookie') =~ /^(srv_id=\w{32}); expires=.*; max-age=3600; httponly; samesite=lax; path=\/$/;
        ok($cookie, 'sticky-cookie: the cookie');
        is($node->get('/', headers => { Cookie => $cookie })->body, $answer->body, 'sticky-cookie: leads to the same server') for 1 .. 6;
    }
    else {
        is($node->get('/',           headers => { Cookie => 'route=one' })->body, "one\n", 'sticky-route: by a cookie') for 1 .. 3;
        is($node->get('/?route=two')->body,                                       "two\n", 'sticky-route: by an argument') for 1 .. 3;
        is($node->get('/')->body,                                                 "one\n", 'sticky-route: nobody else comes to who drains') for 1 .. 3;
    }
}

{
    my (undef, @nodes) = three('limits.conf');
    connected(2, @nodes);
    my @first = map { $_->get('/') } @nodes;
    is_deeply([ map { $_->status } @first ], [ 200, 200, 200 ], 'limits: a client that asks each node once');
    is($first[0]->header('X-Limit'), 'PASSED', 'limits: passes');
    my @got = map { $nodes[ $_ % 3 ]->get('/')->status } 1 .. 40;
    cmp_ok(scalar(grep { $_ == 429 } @got), '>', 10, 'limits: one that asks them all in turn as fast as it can does not');
    my $refused = 0;
    $refused += $_->get('/api/9/http/limit_reqs/clients')->json->{rejected} for @nodes;
    is($refused, scalar(grep { $_ == 429 } @got), 'limits: which the API tells');
}

done_testing;
