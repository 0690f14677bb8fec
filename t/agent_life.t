# The helper thread over its life: one at a time, whatever happens. Under a storm of reloads; with a worker that is stopped and
# goes on later; and with a thread that hangs, whose worker ends itself and is replaced.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Pause;

allow_log(qr/the helper thread has shown no sign of life|exited with code 1|the helper thread doesn't end/);

sub agents { my ($node) = @_; return grep { ZoneMesh::Pause::threads($_, 'zonemesh') } $node->workers, $node->old_workers }

# A node with a state file and its peer.
sub nodes {
    my ($first, $second) = cluster(2, not_started => 1);
    my $folder = $first->worker_folder('state');
    (my $http = $first->{http}) =~ s{zone=one:1m}{zone=one:1m state=$folder/one.json} or die 'no zone';
    $http .= ' server { listen 127.0.0.1:%%SLOW%%; location / { api write=on; client_body_timeout 60s; } }';
    $first->configure(http => $http, vars => { SLOW => port() })->start;
    $second->start;
    connected(1, $first, $second);
    return ($first, $second, "$folder/one.json");
}

# What is in the state file.
sub filed {
    my ($file) = @_;
    my $pairs = json(ZoneMesh::Node::slurp($file));
    delete $pairs->{''};
    return { map { $_ => $pairs->{$_}{value} } grep { !$pairs->{$_}{deleted} } keys %$pairs };
}

# A storm of reloads under writes.
{
    my ($first, $second, $file) = my @nodes = nodes();
    pop @nodes;
    my %written;
    my $runs = qr/the helper thread runs in this worker/;
    for my $round (1 .. 25) {
        my $before = $first->grep_log($runs);
        $first->signal('HUP');
        for my $n (1 .. 8) {
            my $key = "storm $round $n";
            $written{$key} = 'v' if $first->add('one', $key, 'v') == 201;
        }
        # Every second reload comes while the one before is under way.
        $first->wait_log($runs, 5, $before) if $round % 2;
    }
    # Whoever begins to act looks whether the one before has ended, however short a time they would have had together.
    is(scalar($first->grep_log(qr/another helper thread of this node still acts/)), 0, 'a storm of reloads: there are never two helper threads that act');
    cmp_ok(scalar($first->grep_log($runs)), '>=', 13, '... of the many that there were');
    is(scalar keys %written, 200, '... every write is taken');
    eventually { !$first->old_workers && agents($first) == 1 } '... one is there in the end', 10;
    everywhere_is(\@nodes, sub { my $all = $_[0]->keyvals('one'); scalar grep { /^storm/ } keys %$all }, 200, '... and every write on both nodes', 10);
    eventually_is { scalar grep { /^storm/ } keys %{ filed($file) } } 200, '... and in the state file', 10;
    connected(1, @nodes);
    $_->stop for @nodes;
}

# The worker of the helper thread is stopped as a whole, and goes on after a reload.
{
    my ($first, $second, $file) = nodes();
    my $agent = $first->agent_worker;
    my $peer = (grep { $_->{state} eq 'connected' } @{ $second->get('/api/9/zonemesh/peers')->json })[0]{node};
    kill 'STOP', $agent or die "STOP: $!";
    $first->signal('HUP');
    eventually { scalar(grep { $_ != $agent } $first->workers) >= 2 } 'stopped: new workers are there';
    # nginx takes connections in the stopped worker, too, so that a request may wait for ever there.
    my $add = sub { my ($key) = @_; eval { $first->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ $key => 'v' }), timeout => 1)->status == 201 } };
    ok(wait_for(sub { $add->('while stopped') || ($first->keyvals('one')->{'while stopped'} // '') eq 'v' }, 10), 'stopped: new workers take writes');
    is_deeply([ agents($first) ], [$agent], 'stopped: as long as it lives nobody takes its place');
    kill 'CONT', $agent or die "CONT: $!";
    eventually { my @agents = agents($first); @agents == 1 && $agents[0] != $agent } 'gone on: another has the helper thread', 10;
    eventually_is { $second->keyvals('one')->{'while stopped'} } 'v', 'gone on: what was written meanwhile is sent', 10;
    eventually_is { filed($file)->{'while stopped'} } 'v', '... and in the state file';
    $first->add('one', 'after', 'v');
    eventually_is { filed($file)->{after} } 'v', '... which the new one keeps';
    everywhere([ $first, $second ], 'after', 'v', '... and the cluster goes on');
    $_->stop for $first, $second;
}

# The thread alone hangs, which a system does that is short of memory or waits for a disk.
SKIP: {
    my ($first, $second, $file) = nodes();
    my $agent = $first->agent_worker;
    my $pause = ZoneMesh::Pause->new($agent, 'zonemesh') or skip(ZoneMesh::Pause->why_not, 1);
    $first->add('one', 'hanging', 'v');
    is($first->get('/read?key=hanging')->body, 'v', 'hanging: requests are served');
    my $replaced = sub { $pause->reap; my @agents = agents($first); @agents == 1 && $agents[0] != $agent };
    eventually { $replaced->() } 'hanging: its worker is replaced, and another has the helper thread', 20;
    is(scalar($first->grep_log(qr/\[alert\] $agent#.*the helper thread has shown no sign of life for 10 s; this worker exits and is replaced/)), 1, '... as the log says');
    eventually_is { $second->keyvals('one')->{hanging} } 'v', '... what was written meanwhile is sent', 10;
    eventually_is { filed($file)->{hanging} } 'v', '... and in the state file';
    connected(1, $first, $second);

    # The same after a reload, in a worker that still serves a slow client: it holds the lease, and must not for ever.
    $agent = $first->agent_worker;
    my @slow = map { tcp($first->{vars}{SLOW}) } 1 .. 12;
    print {$_} "POST /9/http/keyvals/one HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{" for @slow;
    # So that each worker has some of them.
    sleep 0.3;
    $pause = ZoneMesh::Pause->new($agent, 'zonemesh') or skip(ZoneMesh::Pause->why_not, 1);
    $first->signal('HUP');
    eventually { scalar(grep { $_ == $agent } $first->old_workers) || !-e "/proc/$agent/exe" } 'hanging over a reload: its worker shuts down', 5;
    $first->add('one', 'over a reload', 'v');
    eventually { $replaced->() } '... does not keep others from the work', 20;
    eventually_is { $second->keyvals('one')->{'over a reload'} } 'v', '... which is done', 10;
    eventually_is { filed($file)->{'over a reload'} } 'v', '... also in the state file';
    close $_ for @slow;

    # A thread that wakes before its worker gives it up has the lease still, and goes on. (One that has lost it meanwhile does
    # nothing any more: src/agent/tests/lease.rs. Here nobody gets the lease while its holder lives.)
    $agent = $first->agent_worker;
    $pause = ZoneMesh::Pause->new($agent, 'zonemesh') or skip(ZoneMesh::Pause->why_not, 1);
    $first->add('one', 'before it wakes', 'v');
    sleep 3;
    ok($pause->resume, 'a thread that was paused for 3 s goes on');
    eventually_is { $second->keyvals('one')->{'before it wakes'} } 'v', '... and sends what waits';
    is($first->agent_worker, $agent, '... in the same worker');
    is_deeply([ agents($first) ], [$agent], '... as the only one');
    $_->stop for $first, $second;
}

done_testing;
