# A process that has a lock of a zone and doesn't go on, for as long as it likes (stopped, or without processor time): what
# doesn't need that lock goes on.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Memory;

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

done_testing;
