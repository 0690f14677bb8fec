# Every way in which nginx can be run: with and without a master, in the foreground and as a daemon, with one worker and
# many, as the user nobody and as whoever starts it.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Pause;

allow_log(qr/the helper thread has shown no sign of life for 10 s; restart nginx/);

my $http = <<'CONF';
    keyval_zone zone=one:1m timeout=1h sync;
    keyval $arg_key $value zone=one;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        location /api  { api write=on; }
        location /read { return 200 "$pid $value"; }
        location /set  { set $value $arg_v; return 204; }
    }
CONF

# A peer for all of them.
my $peer = node(name => 'peer');

sub stream {
    my ($other) = @_;
    return "server { listen 127.0.0.1:%%SYNC%%; zone_sync; $ZoneMesh::Cluster::QUICK
        zone_sync_server 127.0.0.1:%%SYNC%%; zone_sync_server 127.0.0.1:@{[ $other->sync ]}; }";
}

# What every mode must do. `$node` runs.
my $runs = 0;

sub works {
    my ($node, $name) = @_;
    my $key = 'run-' . ++$runs;
    is($node->add('one', $key, 'v'), 201, "$name: the API adds a pair");
    like($node->get("/read?key=$key")->body, qr/^\d+ v$/, "$name: a variable reads it");
    eventually_is { $peer->keyvals('one')->{$key} } 'v', "$name: it reaches the peer";
    is($peer->change('one', $key, 'changed'), 204, "$name: changed there");
    eventually_is { $node->keyvals('one')->{$key} } 'changed', "$name: ... it comes back";
    is($node->get("/set?key=$key&v=set")->status, 204, "$name: a variable is set");
    eventually_is { $peer->keyvals('one')->{$key} } 'set', "$name: ... which reaches the peer";
    return $key;
}

# The one that is peered with changes; only its port has to stay.
my $port = port();
my $sync = port();
sub other { return node(port => $port, sync => $sync, @_) }
$peer->configure(http => $http, stream => stream(other()))->start;

for (
    [ 'one worker',             workers => 1 ],
    [ 'many workers',           workers => 7 ],
    [ 'as many as processors',  workers => 'auto' ],
    [ 'as whoever starts it',   workers => 2, user => '' ],
    [ 'a priority and no file limit', workers => 2, main => 'worker_priority 5; worker_rlimit_nofile 4096;' ],
    [ 'a time at most to shut down', workers => 2, main => 'worker_shutdown_timeout 2s;' ],
    [ 'a mutex for accepting',  workers => 3, events => 'accept_mutex on; multi_accept on; worker_connections 512;' ],
) {
    my ($name, %how) = @$_;
    my $node = other(name => $name, %how, http => $http, stream => stream($peer))->start;
    works($node, $name);
    my @workers = $node->workers;
    is($node->agent_worker && 1, 1, "$name: one worker runs the helper thread");
    is(scalar(grep { ZoneMesh::Node::threads($_) > 1 } @workers), 1, "$name: ... and no other does");
    if ($> == 0) {
        my ($uid) = ZoneMesh::Node::slurp("/proc/$workers[0]/status") =~ /^Uid:\s+(\d+)/m;
        is($uid, $how{user} ? 0 : scalar getpwnam('nobody'), "$name: workers are who they should be") unless exists $how{user};
        is($uid, scalar getpwnam('nobody'), "$name: without \"user\" nginx itself takes nobody") if exists $how{user};
    }
    $node->reload;
    works($node, "$name, after a reload");
    ok(defined $node->quit, "$name: ends when told to");
}

# A cache gives nginx two more processes, which have no part in all this.
{
    my $node = other(name => 'cache', workers => 2, stream => stream($peer),
        http => "proxy_cache_path %%PREFIX%%/tmp/cache keys_zone=cache:1m;\n$http")->start;
    works($node, 'with a cache');
    my $manager = sub { my $all = $node->children; return grep { $all->{$_} =~ /cache (?:manager|loader)/ } keys %$all };
    my @managers = $manager->();
    ok(scalar @managers, 'with a cache: its processes are there');
    is(scalar(grep { ZoneMesh::Node::threads($_) > 1 } @managers), 0, '... without a helper thread');
    ok(defined $node->quit, '... and it ends when told to');
}

# Without a master: one process does it all.
{
    my $node = other(name => 'alone', single => 1, main => 'master_process off;', http => $http, stream => stream($peer))->start;
    my $key = works($node, 'without a master');
    is(ZoneMesh::Node::threads($node->pid), 2, 'without a master: the process runs the helper thread');
    is($node->get('/api/9/nginx')->json->{pid}, $node->pid, '... and the API names it');
    # nginx itself takes no connections any more after a reload without a master; what is ours goes on.
    my @before = $node->grep_log(qr/connected to node/);
    $node->signal('HUP');
    ok(scalar $node->wait_log(qr/connected to node/, 5, scalar @before), 'without a master: after a reload it connects to its peer');
    is(ZoneMesh::Node::threads($node->pid), 2, '... from one helper thread');
    is($peer->keyvals('one')->{$key}, 'set', '... which keeps what it had');
    ok(defined $node->quit, 'without a master: ends when told to');
}

# Without a master, a request that began with the last configuration reads what that had.
{
    my $gone = "keyval_zone zone=gone:1m sync; keyval \$arg_key \$gone zone=gone; server { listen 127.0.0.1:%%OLD%%;
        location / { return 200 \"has \$gone.\"; } }\n";
    my $node = other(name => 'forgetful', single => 1, main => 'master_process off;', stream => stream($peer),
        http => "$gone$http", vars => { OLD => port() })->start;
    $node->add('gone', 'key', 'v');
    my $client = tcp($node->{vars}{OLD});
    my $read = sub {
        print {$client} "GET /?key=key HTTP/1.1\r\nHost: x\r\n\r\n";
        my $answer = '';
        while ($answer !~ /\r\n\r\nhas.*\./ && sysread $client, $answer, 4096, length $answer) { }
        return $answer;
    };
    like($read->(), qr/has v\./, 'without a master: a variable reads a zone');
    my @before = $node->grep_log(qr/connected to node/);
    $node->configure(http => $http);
    $node->signal('HUP');
    ok(scalar $node->wait_log(qr/connected to node/, 5, scalar @before), '... which a reload takes away');
    like($read->(), qr/has v\./, '... and a connection of before still reads');
    ok(defined $node->quit, '... and the process ends when told to');
}

# Without a master nobody replaces a process whose helper thread hangs: it is said once. A reload waits for the thread, which may
# still write to a zone that goes.
SKIP: {
    my $node = other(name => 'hanging', single => 1, main => 'master_process off;', stream => stream($peer),
        http => "keyval_zone zone=gone:8m state=%%PREFIX%%/state/gone.json;\n$http");
    $node->worker_folder('state');
    $node->start;
    $node->add('gone', "key $_", 'v') for 1 .. 10;
    my $pause = ZoneMesh::Pause->new($node->pid, 'zonemesh') or skip(ZoneMesh::Pause->why_not, 1);
    my $hangs = qr/\[alert\].*the helper thread has shown no sign of life for 10 s; restart nginx/;
    is(scalar($node->wait_log($hangs, 20)), 1, 'a helper thread that hangs without a master: the log says so');
    is($node->add('gone', 'last', 'v'), 201, '... while requests are served');
    sleep 1.5;
    is(scalar(my @told = $node->grep_log($hangs)), 1, '... and says it once');
    $node->configure(http => $http);
    $node->signal('HUP');
    is(scalar($node->wait_log(qr/the new configuration waits for the helper thread/, 5)), 1, '... a reload waits for it');
    ok($pause->resume, '... until it goes on');
    ok(scalar $node->wait_log(qr/connected to node/, 10, scalar(my @before = $node->grep_log(qr/connected to node/))), '... and then another one is there');
    ok(defined $node->quit, '... and the process ends when told to');
}

# As a daemon.
for my $mode (['a daemon', ''], ['a daemon without a master', 'master_process off;']) {
    my ($name, $main) = @$mode;
    my $node = other(name => $name, daemon => 1, single => $main ne '', main => $main, http => $http, stream => stream($peer))->start;
    works($node, $name);
    ok(defined $node->quit, "$name: ends when told to");
}

done_testing;
