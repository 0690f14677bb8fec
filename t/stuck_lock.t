# A process that has a lock of a zone and doesn't go on, for as long as it likes (stopped, or without processor time): what
# doesn't need that lock goes on.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Memory;

allow_log(qr/is busy: /);

# It lives, and does nothing with what seems to be its.
sub holder {
    my $pid = fork // die "fork: $!";
    return $pid if $pid;
    exec 'sleep', 120 or POSIX::_exit(1);
}

sub free {
    my ($pid) = @_;
    kill 'KILL', $pid;
    waitpid $pid, 0;
    return;
}

subtest 'a reload while the table of nodes is locked' => sub {
    my $node = node(http => <<'CONF')->start;
    keyval_zone zone=one:400k;
    server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }
CONF
    is($node->add('one', 'key', 'value'), 201, 'a pair');
    my $holder = holder();
    my ($zone) = ZoneMesh::Memory->zones($node->pid);
    $zone->lock(origins => $holder);
    ok(eval { $node->reload }, 'new workers take over') or diag $@;
    ok(!$node->ended, 'nginx goes on');
    is($node->keyvals('one')->{key}, 'value', 'the pair is there');
    is($node->change('one', 'key', 'other'), 204, '... and can be changed');
    free($holder);
};

subtest 'one shard of many is locked on the node that sends' => sub {
    my ($here, $there) = cluster(2, workers => 1, zones => 'keyval_zone zone=one:16m timeout=1h sync;');
    is($here->add('one', 'first', 'v'), 201, 'a pair');
    eventually { $there->keyvals('one')->{first} } '... travels';
    is($here->get('/api/9/zonemesh/zones/one')->json->{busy}, 0, '... and no lock was in the way');
    my $holder = holder();
    my ($zone) = ZoneMesh::Memory->zones($here->pid);
    $zone->lock(first_shard => $holder);
    my %added = map { ("n$_" => $here->add('one', "n$_", 'v')) } 1 .. 200;
    my @done = grep { $added{$_} == 201 } keys %added;
    cmp_ok(scalar @done, '>', 100, 'most can be written: ' . @done);
    eventually {
        my $pairs = $there->keyvals('one');
        !grep { !$pairs->{$_} } @done
    } 'what was acknowledged is on the other node', 10;
    eventually { $here->log_text =~ /zone "one" is busy: a process that holds one of its locks does not go on/ } 'the log says what waits', 10;
    cmp_ok($here->get('/api/9/zonemesh/zones/one')->json->{busy}, '>', 0, '... and the API counts');
    free($holder);
    eventually { $here->add('one', $_, 'v') =~ /^(?:201|409)$/ or return for keys %added; 1 } 'the rest can be written then', 10;
    eventually { keys %{ $there->keyvals('one') } == 201 } '... and travels', 10;
};

subtest 'the only shard is locked on the node that receives' => sub {
    my ($here, $there) = cluster(2, workers => 1, zones => 'keyval_zone zone=one:400k timeout=1h sync;');
    is($here->add('one', 'first', 'v'), 201, 'a pair');
    eventually { $there->keyvals('one')->{first} } '... travels';
    my $holder = holder();
    my ($zone) = ZoneMesh::Memory->zones($there->pid);
    $zone->lock(first_shard => $holder);
    $here->add('one', "n$_", 'v') for 1 .. 300;
    # Each of these records once stopped the worker for a tenth of a second: half a minute in all.
    for my $n (1 .. 10) {
        my $read = eval { $there->get('/read?key=first', timeout => 3) };
        is($read && $read->body, 'v', "the worker answers: $n") or last;
    }
    free($holder);
    eventually { keys %{ $there->keyvals('one') } == 301 } 'all are there once the lock is free', 20;
};

done_testing;
