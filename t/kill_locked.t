# Workers killed with -9 in the middle of a change, with a lock in hand: the next one who wants the lock repairs, nothing
# acknowledged is lost, and no memory is either.
#
# Kills at random hardly ever meet a change. So a worker is stopped, the locks of the zone are looked at from outside, and it
# is killed if one of them is its own; else it goes on.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Memory;
use ZoneMesh::Writers;

allow_log(qr/exited on signal 9/);

my ($workers, $wanted, $at_least) = (3, 20, 5);
my $node = node(workers => $workers, events => 'worker_connections 512; accept_mutex off;', http => <<'CONF')->start;
    keyval_zone zone=one:1m timeout=1h;
    client_body_buffer_size 256k;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api  { api write=on; }
    }
CONF
sub figures { return $node->get('/api/9/zonemesh/zones/one')->json }

# Empties the zone, and looks whether all of its memory is accounted for: no block is in use, and each page that isn't free
# is one of free blocks.
sub nothing_leaked {
    my ($name) = @_;
    is($node->clear('one'), 204, "$name: the zone is emptied");
    eventually_is { figures()->{records} } 0, '... wholly';
    my $slabs = $node->get('/api/9/slabs/one')->json;
    my $page  = figures()->{bytes}{free} / $slabs->{pages}{free};
    my ($used, $empty) = (0, 0);
    for my $size (keys %{ $slabs->{slots} }) {
        my $slot = $slabs->{slots}{$size};
        $used  += $slot->{used};
        $empty += $slot->{free} / int($page / $size);
    }
    is($used, 0, '... no block is in use');
    is($slabs->{pages}{used}, $empty, '... and no page is lost');
    return;
}
nothing_leaked('at first');

# A value in few characters: its number and length, if the rest is as it was written.
sub brief { my ($value) = @_; return $value =~ /^(\d+):v*$/ ? "$1," . length $value : $value }

# Each writer changes its own keys, with large values: their blocks are taken one by one under the lock.
my $writers = ZoneMesh::Writers->new([ 1 .. 4 ], sub {
    my ($writer, $i) = @_;
    my $key   = "w$writer-" . $i % 3;
    my $value = "$i:" . 'v' x (($i * 7_919) % 50_000);
    my $status = eval { $node->add('one', $key, $value) } // 0;
    $status = eval { $i % 11 ? $node->change('one', $key, $value) : $node->drop('one', $key) } // 0 if $status == 409;
    return ($key, $status == 201 || $status == 204 ? ($status == 204 && $i % 11 == 0 ? '-' : brief($value)) : undef);
});

my ($zone) = ZoneMesh::Memory->zones($node->pid);
# As long as it takes to meet enough of them: on a busy machine workers seldom run, and so seldom have a lock.
my ($stops, $killed, $until, $at_last) = (0, 0, time + 40, time + 180);
while ($killed < $wanted && time < ($killed < $at_least ? $at_last : $until)) {
    my @now = $node->workers;
    my $victim = $now[ rand @now ] or next;
    my $word = ZoneMesh::Memory::lock_word($victim) or next;
    for (1 .. 50) {
        kill 'STOP', $victim;
        $stops++;
        wait_for(sub { ZoneMesh::Node::slurp("/proc/$victim/stat") =~ /\) [TZ]/ }, 1, 0.0002);
        if ($zone->holds_word($word)) {
            kill 'KILL', $victim;
            $killed++;
            last;
        }
        kill 'CONT', $victim;
        sleep 0.0005 + rand 0.002;
    }
}
my %acknowledged = $writers->stop;
cmp_ok($killed, '>=', $at_least, "$killed workers died with a lock in hand, of $stops looked at");
eventually { scalar(my @now = $node->workers) == $workers } 'all workers are there again';

my $end  = $node->keyvals('one');
my @lost = grep { brief($end->{$_} // '-') ne $acknowledged{$_} } sort keys %acknowledged;
is(scalar(@lost), 0, 'nothing that was acknowledged is lost: ' . keys %acknowledged)
    or diag(map { "$_ is " . brief($end->{$_} // '-') . ", not $acknowledged{$_}\n" } @lost);
is(figures()->{records}, scalar(keys %$end), 'the counters are right');
nothing_leaked('in the end');
is($node->add('one', 'after', 'v' x 50_000), 201, 'the zone takes writes');

done_testing;
