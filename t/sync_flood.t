# Thousands of connections to the port of zone_sync: HTTP is answered, memory is bounded, who says nothing is closed in time.
# (scripts/bench attack has ten thousand of each kind, and measures.)

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Flood;
use ZoneMesh::Wire;

my ($COUNT, $TIMEOUT) = (2_000, 1);
my $most = ZoneMesh::Flood::most_files();
plan(skip_all => "a process may have $most files open here: too few") if $most < 3 * $COUNT;

my $http = 'keyval_zone zone=one:1m timeout=1h sync;
    keyval $arg_key $value zone=one;
    server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } location /read { return 200 "$value"; } }';
my $ca = authority('the CA');
my ($certificate, $key) = $ca->issue('node');

# A node with one worker, that has a key and takes connections of peers, over TLS if `tls`.
sub target {
    my (%given) = @_;
    my $tls = $given{tls} ? "ssl_certificate $certificate; ssl_certificate_key $key; ssl_client_certificate @{[ $ca->file ]}; ssl_verify_client on;" : '';
    my $ssl = $given{tls} ? 'ssl' : '';
    my $node = node(
        main => "worker_rlimit_nofile $most;", events => 'worker_connections ' . ($given{slots} // 2 * $COUNT) . ';', http => $http,
        stream => "log_format time '\$session_time'; access_log logs/sessions time;
            server { listen 127.0.0.1:%%SYNC%% $ssl; zone_sync; zone_sync_timeout ${TIMEOUT}s; $tls }",
    )->start;
    is($node->add('one', 'k', 'v'), 201, 'a key');
    return $node;
}

sub memory { my ($node) = @_; my $sum = 0; $sum += $node->memory($_) for $node->workers; return $sum }
sub answers { my ($node) = @_; return (eval { $node->get('/read?key=k', timeout => 5)->body } // $@) eq 'v' }

# All at once, of one kind: what holds of each.
sub attacked {
    my ($name, $kind, %given) = @_;
    my $node  = target(%given);
    my $count = $given{count} // $COUNT;
    my $pid   = ($node->workers)[0];
    my ($before, $peak, $fine, $asked) = (memory($node), 0, 0, 0);
    my $flood = ZoneMesh::Flood->new(port => $node->sync, kind => $kind, count => $count);
    my $status;
    wait_for(sub {
        $status = $flood->status;
        my $now = memory($node);
        $peak = $now if $now > $peak;
        $asked++;
        $fine++ if answers($node);
        $status->{opened} >= $count && !$status->{open};
    }, 30);
    is($status->{closed}, $count, "$name: all are closed");
    # By nginx's clock: the attacker may be slow to see it.
    my @seconds = sort { $a <=> $b } split /\n/, ZoneMesh::Node::slurp($node->prefix . '/logs/sessions');
    is(scalar @seconds, $count, "$name: ... of which nginx tells");
    cmp_ok($seconds[-1] // 99, '<', $TIMEOUT + 0.5, sprintf "$name: ... after zone_sync_timeout ($TIMEOUT s; the longest took %.2f s)", $seconds[-1] // 99);
    is($fine, $asked, "$name: HTTP was answered each time, of $asked");
    cmp_ok(($peak - $before) / $count, '<', 64, sprintf "$name: memory grew by less than 64 KiB a connection (%.1f)", ($peak - $before) / $count);
    is(($node->workers)[0], $pid, "$name: the same worker serves");
    my $lines = $node->grep_log(qr/session of /);
    cmp_ok($lines, '<', 1_100, "$name: the log is told what happens, not $count times ($lines lines)");
    return $node;
}

attacked('silent ones', 'silent');
attacked('half a frame', 'half');
attacked('a byte now and then', 'drip', count => 500);
attacked('TLS, silent ones', 'silent', tls => 1);
attacked('TLS, in the middle of a handshake', 'handshake', tls => 1, count => $COUNT / 2);

# Nodes that nobody knows, one after the other: each is greeted, and what is kept of them is bounded.
{
    my $node  = target();
    my $flood = ZoneMesh::Flood->new(port => $node->sync, kind => 'hello', count => 200, rate => 1_000, again => 1);
    ok(wait_for(sub { $flood->status->{opened} > 500 }, 10), 'hellos: they are taken');
    my ($before, $fine) = (memory($node), 0);
    ok(wait_for(sub { $fine++ if answers($node); $flood->status->{opened} > 2_500 }, 20), 'hellos: two thousand more');
    cmp_ok($fine, '>', 10, "hellos: HTTP was answered $fine times meanwhile");
    cmp_ok(memory($node) - $before, '<', 2_048, 'hellos: two thousand nodes use no more memory than five hundred');
    $flood->end;
    is_deeply($node->keyvals('one'), { k => 'v' }, 'hellos: the zone is as it was');
}

# More silent ones than there are connections: they make way for each other and for HTTP, a peer that was greeted stays.
{
    my $node = target(slots => 1_024);
    allow_log(qr/worker_connections are not enough/);
    my $peer = tcp($node->sync);
    print {$peer} hello(), zone(1, 'one');
    my ($greeting) = read_all($peer, 0.5);
    ok(scalar(frames($greeting)), 'few connections: a peer is greeted');
    my $flood = ZoneMesh::Flood->new(port => $node->sync, kind => 'silent', count => 3_000, rate => 3_000, again => 1);
    my ($fine, $asked) = (0, 0);
    wait_for(sub {
        $asked++;
        $fine++ if answers($node);
        # It lives as long as it gives signs of life.
        print {$peer} frame($TYPE{PING}, pack 'Q<', 1);
        $flood->status->{opened} > 6_000;
    }, 30);
    my $status = $flood->status;
    cmp_ok($status->{closed}, '>', 2_000, "few connections: of $status->{opened} silent ones, $status->{closed} made way");
    is($fine, $asked, "few connections: HTTP was answered each time, of $asked");
    my ($said, $closed) = read_all($peer, 0.5);
    ok(!$closed, 'few connections: the peer is still connected');
    $flood->end;
}

done_testing;
