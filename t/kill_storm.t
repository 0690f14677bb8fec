# Workers killed with -9 in a storm of writes: nothing acknowledged is lost, nothing hangs. A worker that is stopped costs the
# others nothing for long.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

allow_log(qr/exited on signal 9/);

my $workers = 3;
my $node = node(workers => $workers, events => 'worker_connections 512; accept_mutex off;', http => <<'CONF')->start;
    keyval_zone zone=one:1m timeout=1h sync;
    keyval $arg_key $value zone=one;
    client_body_buffer_size 64k;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api  { api write=on; }
        location /read { return 200 "$value"; }
        location /set  { set $value $arg_v; return 204; }
    }
CONF

# Writers: each its own keys, with values of many sizes, deletes and listings between. Each remembers what was acknowledged,
# and the longest time that an answer took.
sub storm {
    my ($writers) = @_;
    pipe my $out, my $in or die "pipe: $!";
    my @pids = map {
        my $writer = $_;
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            close $out;
            srand $writer;
            my ($stop, $i, $longest, %last) = (0, 0, 0);
            local $SIG{TERM} = sub { $stop = 1 };
            until ($stop) {
                $i++;
                my $key   = "w$writer-" . int rand 30;
                my $value = "$i:" . 'v' x int rand($i % 10 ? 200 : 4_000);
                my $began = time;
                my $status = eval {
                    my $known = $last{$key};
                    if ($i % 12 == 0) { $node->keyvals('one'); return }
                    if (!defined $known) { return $node->get("/set?key=$key&v=x")->status == 204 ? 'x' : undef if $i % 2; return }
                    if ($i % 5 == 0) { return $known eq '-' ? undef : $node->drop('one', $key) == 204 ? '-' : undef }
                    my $done = $known eq '-' ? $node->add('one', $key, $value) == 201 : $node->change('one', $key, $value) == 204;
                    return $done ? $value : undef;
                };
                my $took = time - $began;
                $longest = $took if $took > $longest;
                next if $i % 12 == 0;
                $last{$key} = $status;    # undef: it isn't known whether it happened
            }
            syswrite $in, join '', "longest $longest\n", map { defined $last{$_} ? "$_ $last{$_}\n" : () } keys %last;
            POSIX::_exit(0);
        }
        $pid;
    } 1 .. $writers;
    close $in;
    return sub {
        kill 'TERM', @pids;
        my $said = do { local $/; readline($out) // '' };
        waitpid $_, 0 for @pids;
        my ($longest) = sort { $b <=> $a } $said =~ /^longest (\S+)$/mg;
        my %last = $said =~ /^(w\S+) (\S+)$/mg;
        return ($longest, \%last);
    };
}

sub nothing_lost {
    my ($acknowledged, $name) = @_;
    my $end  = $node->keyvals('one');
    my @lost = grep { ($end->{$_} // '-') ne $acknowledged->{$_} } sort keys %$acknowledged;
    is(scalar(@lost), 0, "$name: nothing that was acknowledged is lost")
        or diag(map { "$_ is " . substr($end->{$_} // '-', 0, 20) . ', not ' . substr($acknowledged->{$_}, 0, 20) . "\n" } @lost);
    return;
}

my $stop = storm(4);
my $kills = 0;
my $until = time + 15;
while (time < $until) {
    my @now = $node->workers;
    kill 'KILL', $now[ rand @now ] if @now;
    $kills++;
    sleep 0.02 + rand 0.1;
}
my ($longest, $acknowledged) = $stop->();
eventually { scalar(my @now = $node->workers) == $workers } 'all workers are there again';
cmp_ok($kills, '>', 80, "$kills workers were killed");
cmp_ok(scalar(keys %$acknowledged), '>', 50, 'writes were acknowledged all the time');
nothing_lost($acknowledged, 'killed');
cmp_ok($longest, '<', 5, sprintf 'no answer took longer than %.1f s', $longest);
is($node->add('one', 'after', 'v'), 201, 'the zone takes writes');
is($node->drop('one', 'after'), 204, '... and deletes');
is(scalar(grep { $node->add('one', "fill $_", 'v' x 50) != 201 } 1 .. 200), 0, '... and has not leaked its memory');
is($node->clear('one'), 204, '... and can be emptied');
is_deeply($node->keyvals('one'), {}, '... wholly');
eventually_is { $node->get('/api/9/zonemesh/zones/one')->json->{records} } 0, '... its counters are right';

# A worker that is stopped, at any place: it may hold a lock. Requests that it had accepted wait; those of others don't.
$stop = storm(4);
my @answers;
for my $round (1 .. 12) {
    my ($victim) = ($node->workers)[ $round % $workers ];
    kill 'STOP', $victim;
    for (1 .. 6) {
        my $began = time;
        # who connects may come to the stopped worker: that one isn't asked
        my $status = eval { $node->get("/read?key=w1-$_", timeout => 0.4)->status };
        push @answers, time - $began if defined $status;
    }
    kill 'CONT', $victim;
    sleep 0.05;
}
($longest, $acknowledged) = $stop->();
cmp_ok(scalar(@answers), '>', 20, 'beside a stopped worker others answer');
cmp_ok((sort { $b <=> $a } @answers)[0], '<', 0.35, '... and at once');
nothing_lost($acknowledged, 'stopped');
cmp_ok($longest, '<', 10, sprintf 'writers go on: none waited for longer than %.1f s', $longest);

done_testing;
