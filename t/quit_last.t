# QUIT at an awkward moment: right after a reload, while another worker's request takes longer than the helper thread waits, and
# while that writes state files. What was answered with success is on the other node and in the state file, whoever ends last.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Pause;

# A worker of the last configuration may be through before its thread is.
allow_log(qr/the helper thread doesn't end/);

# A node with a state file, its peer, and the file.
sub nodes {
    my ($first, $second) = cluster(2, not_started => 1);
    my $folder = $first->worker_folder('state');
    (my $http = $first->{http}) =~ s{zone=one:1m}{zone=one:1m state=$folder/one.json} or die 'no zone';
    $http .= ' server { listen 127.0.0.1:%%SLOW%%; keepalive_timeout 60s; client_body_timeout 60s;
        location / { api write=on; } location = /pid { return 200 $pid; } }';
    $first->configure(http => $http, vars => { SLOW => port() })->start;
    $second->start;
    connected(1, $first, $second);
    return ($first, $second, "$folder/one.json");
}

sub filed { my ($file, $key) = @_; return (json(ZoneMesh::Node::slurp($file))->{$key} // {})->{value} }

# A request whose body isn't there yet, in a worker that has no helper thread: gives the connection.
sub slow_request {
    my ($node) = @_;
    my $agent = $node->agent_worker;
    my @kept;
    for (1 .. 200) {
        my $client = tcp($node->{vars}{SLOW});
        print {$client} "GET /pid HTTP/1.1\r\nHost: x\r\n\r\n";
        my $answer = '';
        sysread($client, $answer, 4096, length $answer) or die 'no answer' until $answer =~ /\r\n\r\n(\d+)/;
        if ($1 != $agent) {
            print {$client} "POST /9/http/keyvals/one HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{";
            sleep 0.1;    # until it is read: a connection between two requests would be closed
            return $client;
        }
        push @kept, $client;
    }
    die 'all connections are in one worker';
}

# Sends the rest: gives the answer. Its worker is free to end at once.
sub end_request {
    my ($client) = @_;
    print {$client} '"slow":"done"}';
    sysread $client, my $answer, 4096;
    close $client;
    return $answer // '';
}

# The request is done, and then the node: nothing is lost.
sub ends_with_all {
    my ($slow, $first, $second, $file) = @_;
    like(end_request($slow), qr/ 201 /, '... and the request is done');
    ok(wait_for(sub { $first->ended }, 15), '... and the node ends');
    is($second->keyvals('one')->{slow}, 'done', '... what it wrote is on the other node');
    is(filed($file, 'slow'), 'done', '... and in the state file');
    return $second->stop;
}

# Stops the thread that writes state files in this worker.
sub pause_writer {
    my ($agent) = @_;
    my ($writer) = grep { /tokio/ } map { ZoneMesh::Node::slurp($_) =~ /(.*)\n/ ? $1 : () } glob "/proc/$agent/task/*/comm";
    return ZoneMesh::Pause->new($agent, $writer // 'none');
}

sub gone { my ($pid) = @_; return ZoneMesh::Node::slurp("/proc/$pid/cmdline") eq '' }

# Right after a reload, as long as the old helper thread waits for the disk. QUIT waits for it; TERM has no time to, and says so.
for my $signal ('QUIT', 'TERM') {
    my ($first, $second, $file) = nodes();
    my $what = "$signal after a reload";
    $first->add('one', 'first', 'v');
    eventually_is { filed($file, 'first') } 'v', "$what: a first state file";
    my $agent = $first->agent_worker;
  SKIP: {
        my $pause = pause_writer($agent) or skip(ZoneMesh::Pause->why_not, 1);
        sleep 0.5;
        $first->add('one', 'before', 'v');
        eventually_is { $second->keyvals('one')->{before} } 'v', "$what: a write is under way to the file";
        sleep 0.2;
        $first->signal('HUP');
        my $reloaded = wait_for(sub { my @new = grep { $_ != $agent } $first->workers; @new >= 2 }, 5);
        ok($reloaded && $first->add('one', 'after', 'v') == 201, "$what: and one comes to the new workers");
        $first->signal($signal);
        sleep 0.3;
        $pause->resume;
        ok(wait_for(sub { $pause->reap; $first->ended }, 15), "$what: the node ends");
        my @lost = $first->grep_log(qr/\[error\].*zone "one": the last changes were neither sent to other nodes nor written to its state file/);
        is(scalar @lost, $signal eq 'TERM' ? 1 : 0, "$what: ... and says whether something is lost");
        next if $signal eq 'TERM';
        is(filed($file, $_), 'v', "$what: what was written $_ that is in the file") for 'before', 'after';
        is($second->keyvals('one')->{$_}, 'v', "$what: what was written $_ that is on the other node") for 'before', 'after';
    }
    $second->stop;
}

# A request that takes longer than the worker of the helper thread waits.
{
    my ($first, $second, $file) = nodes();
    $first->add('one', 'first', 'v');
    my $agent = $first->agent_worker;
    my $slow = slow_request($first);
    $first->signal('QUIT');
    ok(wait_for(sub { gone($agent) }, 15), 'a slow request: the worker of the helper thread is gone');
    ends_with_all($slow, $first, $second, $file);
}

# One in a worker of the configuration before, which outlives all workers of the one in force.
{
    my ($first, $second, $file) = nodes();
    $first->add('one', 'first', 'v');
    my $old = $first->agent_worker;
    my $slow = slow_request($first);
    $first->signal('HUP');
    my $agent = wait_for(sub { my $now = $first->agent_worker; $now && $now != $old && $now }, 10);
    ok($agent, 'a slow request of before a reload: others have taken over');
    $first->signal('QUIT');
    ok(wait_for(sub { gone($agent) }, 15), '... and are gone');
    ends_with_all($slow, $first, $second, $file);
}

# One in a worker of a configuration whose zone has another name, or another state file, in the one in force: it takes neither file
# for its own, and says what is lost.
for my $case ([ 'a renamed zone', 'two', 'one.json' ], [ 'a moved state file', 'one', 'two.json' ]) {
    my ($what, $zone, $name) = @$case;
    my ($first, $second, $file) = nodes();
    $first->add('one', 'first', 'v');
    eventually_is { filed($file, 'first') } 'v', "$what: a first state file";
    my $old = $first->agent_worker;
    my $slow = slow_request($first);
    my $http = $first->{http} =~ s/zone=one/zone=$zone/gr =~ s/one\.json/$name/r;
    (my $now = $file) =~ s/one\.json/$name/;
    $first->configure(http => $http);
    $first->signal('HUP');
    my $agent = wait_for(sub { my $now = $first->agent_worker; $now && $now != $old && $now }, 10);
    ok($agent && wait_for(sub { $first->add($zone, 'after', 'v') == 201 }, 5), "$what: others have taken over");
    is($first->add($zone, 'more', 'v'), 201, "$what: ... and write");
    eventually_is { filed($now, 'more') } 'v', "$what: ... to the state file";
    $first->signal('QUIT');
    ok(wait_for(sub { gone($agent) }, 15), "$what: they are gone");
    like(end_request($slow), qr/ 201 /, "$what: ... and the request is done");
    ok(wait_for(sub { $first->ended }, 15), "$what: ... and the node ends");
    is(filed($now, $_), 'v', "$what: ... and its file has what was written $_") for 'after', 'more';
    is(scalar(() = $first->grep_log(qr/\[error\].*zone "one": the last changes were/)), 1, "$what: ... and what is lost is said");
    $second->stop;
}

# One that ends while that one writes its state file, when all was sent.
SKIP: {
    my ($first, $second, $file) = nodes();
    $first->add('one', 'first', 'v');
    eventually_is { filed($file, 'first') } 'v', 'during the last write: a first state file';
    my $agent = $first->agent_worker;
    my $slow = slow_request($first);
    $first->signal('QUIT');
    sleep 4;
    my $pause = pause_writer($agent) or skip(ZoneMesh::Pause->why_not, 1);
    $second->add('one', 'other', 'v');
    sleep 2.5;
    like(end_request($slow), qr/ 201 /, 'during the last write: a request is done');
    sleep 0.3;
    $pause->resume;
    ok(wait_for(sub { $pause->reap; $first->ended }, 15), '... and the node ends');
    is($second->keyvals('one')->{slow}, 'done', '... what it wrote is on the other node');
    is(filed($file, 'slow'), 'done', '... and in the state file');
    $second->stop;
}

done_testing;
