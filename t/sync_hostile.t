# Whatever arrives on the sync port ends its own connection with one log line; zones, memory and HTTP clients don't suffer.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Wire;

my $api = 'keyval_zone zone=one:1m timeout=1h sync;
    keyval $arg_key $value zone=one;
    server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } location /read { return 200 "$value"; } }';
my $sync = 'server { listen 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_timeout 1s; }';

my $node = node(http => $api, stream => $sync)->start;
my $port = $node->sync;
is($node->add('one', 'k', 'v'), 201, 'a key');

# Lines of the log above info that are about a connection on this port.
sub complaints { return $node->grep_log(qr/\[(?:notice|warn|error|crit|alert|emerg)\].*(?:client|peer)/) }

sub handshake {
    my $socket = tcp($port);
    print {$socket} hello(), @_;
    return $socket;
}

# A session that has been told of the zone and has asked for its records: (socket, zone number, epoch).
sub subscribed {
    my $socket = handshake(zone(1, 'one'));
    my ($bytes, $epoch) = ('');
    my $deadline = time + 3;
    until (defined $epoch || time > $deadline) {
        my ($more) = read_all($socket, 0.05);
        $bytes .= $more;
        for (frames($bytes)) {
            my ($type, $body) = @$_;
            $epoch = ord substr $body, 1, 1 if $type == $TYPE{SUBSCRIBE} && ord(substr $body, 2, 1) > 0;
        }
    }
    return ($socket, 1, $epoch);
}

# Sends, and tests that the connection ends with one line in the log, and that the zone is as it was.
sub ends_with_a_line {
    my ($name, $socket, $bytes, $seconds) = @_;
    my $before = complaints();
    print {$socket} $bytes;
    closes_within($socket, $seconds // 3, "$name: the connection is closed");
    my @lines = complaints();
    wait_for(sub { @lines = complaints(); @lines > $before }, 2);
    is(@lines - $before, 1, "$name: with one line in the log") or diag(join "\n", @lines[ $before .. $#lines ]);
    is_deeply($node->keyvals('one'), { k => 'v' }, "$name: the zone is as it was");
    return;
}

# The sender of valid frames works at all: otherwise the tests below would prove nothing.
{
    my ($socket, $zone, $epoch) = subscribed();
    ok(defined $epoch, 'a well-behaved peer is asked for its records') or diag($node->tail(10));
    print {$socket} records($zone, $epoch // 1, record('from a peer', 'x'));
    eventually_is { $node->keyvals('one')->{'from a peer'} } 'x', 'what it sends is applied';
    # "That was all": from now on the node has joined, and asks every peer at once.
    print {$socket} frame($TYPE{POSITION}, varint($zone) . varint($epoch // 1) . chr(1) . varint(0));
    ok(scalar $node->wait_log(qr/"one" has joined/), 'what it says is the end of it, too') or diag($node->tail(10));
    close $socket;
    is($node->drop('one', 'from a peer'), 204, 'deleted again');
}
my $memory = memory();

srand 4711;    # the same bytes each time

# Before the hello.
ends_with_a_line('random bytes', tcp($port), join '', map { chr int rand 256 } 1 .. 5_000);
ends_with_a_line('text', tcp($port), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
ends_with_a_line('zeros', tcp($port), "\0" x 1_000);
ends_with_a_line('a huge length', tcp($port), pack 'V', 0xffff_ffff);
ends_with_a_line('a length above the bound', tcp($port), pack 'V', 1_000_000);
ends_with_a_line('a frame of no length', tcp($port), pack 'V', 0);
ends_with_a_line('another magic', tcp($port), hello(magic => 'wormhole'));
ends_with_a_line('a hello cut short', tcp($port), frame($TYPE{HELLO}, 'zonemesh'));
ends_with_a_line('an identity of zeros', tcp($port), hello(identity => "\0" x 16));
ends_with_a_line('records before the hello', tcp($port), records(1, 1, record('k', 'evil')));
ends_with_a_line('a zone before the hello', tcp($port), zone(1, 'one'));
ends_with_a_line('an unknown message before the hello', tcp($port), frame(99, 'x'));
ends_with_a_line('a peer of a future version', tcp($port), hello(lowest => 40, highest => 41, more => 'x' x 50));
ends_with_a_line('a peer of a past version', tcp($port), hello(lowest => 0, highest => 0));

# A future peer that also speaks the present version is welcome, with fields that aren't known yet.
{
    my $socket = tcp($port);
    print {$socket} hello(lowest => 1, highest => 9, more => 'fields of a later version'), frame(0x80 | 55, 'a message of a later version');
    my ($bytes, $closed) = read_all($socket, 0.5);
    ok(!$closed && grep({ $_->[0] == $TYPE{HELLO} } frames($bytes)), 'a peer of a later version that speaks the present one is greeted');
}

# After it.
ends_with_a_line('an unknown message', handshake(), frame(99, 'x'));
ends_with_a_line('a second hello', handshake(), hello());
ends_with_a_line('a message cut short', handshake(), frame($TYPE{ZONE}, ''));
ends_with_a_line('a zone whose name reaches over its frame', handshake(), frame($TYPE{ZONE}, "\1\1\0\1" . varint(1_000_000) . 'one'));
ends_with_a_line('a number of more than 64 bits', handshake(), frame($TYPE{ZONE}, "\xff" x 11));
ends_with_a_line('a zone with a number too high', handshake(), zone(1 << 40, 'one'));
ends_with_a_line('records of a zone that was not announced', handshake(), records(1, 1, record('k', 'evil')));
ends_with_a_line('records that were not asked for', handshake(zone(1, 'one')), records(1, 1 << 30, record('k', 'evil')));
ends_with_a_line('emptying a zone that was not announced', handshake(), frame($TYPE{CLEAR}, varint(7) . pack 'Q<', now_stamp()));
ends_with_a_line('what only the other side may say', handshake(zone(1, 'one')), frame($TYPE{SUBSCRIBE}, "\1\1\2\0" . ("\0" x 8) . "\0"));
ends_with_a_line('random bytes after a hello', handshake(), join '', map { chr int rand 256 } 1 .. 20_000);
for (
    [ 'a record cut short',        sub { my ($z, $e) = @_; records($z, $e, substr record('k', 'evil'), 0, -3) } ],
    [ 'a record without a stamp',  sub { my ($z, $e) = @_; records($z, $e, record('k', 'evil', stamp => 0)) } ],
    [ 'a record without a key',    sub { my ($z, $e) = @_; records($z, $e, record('', 'evil')) } ],
    [ 'a record of an undefined origin', sub { my ($z, $e) = @_; records($z, $e, chr(1) . chr(0) . pack('Q<', now_stamp()) . varint(5) . prefixed('k') . prefixed('evil')) } ],
    [ 'a key longer than its frame', sub { my ($z, $e) = @_; records($z, $e, chr(1) . chr(4) . pack('Q<', now_stamp()) . varint(1 << 50) . 'k') } ],
    [ 'a chunk of a record too large', sub { my ($z, $e) = @_; chunk($z, $e, 1, 1 << 40, 'x' x 100) } ],
    [ 'a chunk without a first',   sub { my ($z, $e) = @_; chunk($z, $e, 2, 100, 'x' x 100) } ],
    [ 'chunks longer than announced', sub { my ($z, $e) = @_; chunk($z, $e, 1, 100, 'x' x 90) . chunk($z, $e, 2, 100, 'x' x 90) } ],
    [ 'chunks shorter than announced', sub { my ($z, $e) = @_; chunk($z, $e, 3, 100, 'x' x 50) } ],
    [ 'chunks that are no record', sub { my ($z, $e) = @_; chunk($z, $e, 3, 100, "\xff" x 100) } ],
) {
    my ($name, $make) = @$_;
    my ($socket, $zone, $epoch) = subscribed();
    ends_with_a_line($name, $socket, $make->($zone, $epoch // 1));
}

# Records from far in the future are refused, though the session goes on.
{
    my ($socket, $zone, $epoch) = subscribed();
    print {$socket} records($zone, $epoch, record('k', 'from the future', stamp => now_stamp(3_600_000))), records($zone, $epoch, record('mark', 'x'));
    eventually_is { $node->keyvals('one')->{mark} } 'x', 'after a record from an hour ahead, the session goes on';
    is($node->keyvals('one')->{k}, 'v', '... and the record was not taken');
    ok(scalar $node->wait_log(qr/future|ahead/), '... and the log says so') or diag($node->tail(10));
    $node->drop('one', 'mark');
}

# A whole frame that arrives byte by byte is a frame.
{
    my ($socket, $zone, $epoch) = subscribed();
    for (split //, records($zone, $epoch, record('slow', 'x'))) { print {$socket} $_; sleep 0.002 }
    eventually_is { $node->keyvals('one')->{slow} } 'x', 'a frame that arrives byte by byte is applied';
    $node->drop('one', 'slow');
}

# Frames cut in the middle, and then silence or the end.
{
    my $socket = handshake();
    print {$socket} substr zone(1, 'one'), 0, 6;
    shutdown $socket, 1;
    closes_within($socket, 3, 'a frame cut by the end: the connection is closed');
    $socket = handshake();
    print {$socket} substr zone(1, 'one'), 0, 6;
    closes_within($socket, 4, 'a frame cut by silence: the connection is closed');
}

# Mutations of a valid session, many: nothing crashes.
{
    my $pid = ($node->workers)[0];
    my $valid = join '', hello(), zone(1, 'two'), frame($TYPE{PING}, pack 'Q<', 1), frame($TYPE{HAVE}, varint(1) . varint(1) . ('a' x 25)),
        frame($TYPE{POSITION}, varint(1) . varint(1) . "\1" . varint(1) . ('b' x 25)), frame($TYPE{ORIGIN}, varint(3) . 'c' x 16);
    for my $round (1 .. 400) {
        my $bytes = $valid;
        substr $bytes, int rand length $bytes, 1, chr int rand 256 for 1 .. 1 + int rand 6;
        $bytes = substr $bytes, 0, int rand length $bytes if $round % 5 == 0;
        my $socket = tcp($port);
        print {$socket} $bytes;
        close $socket;
    }
    is($node->add('one', 'after', 'x'), 201, '400 mutations of a valid session');
    is(($node->workers)[0], $pid, '... and the same worker serves');
    is_deeply($node->keyvals('one'), { k => 'v', after => 'x' }, '... and the zone is as it was');
    $node->drop('one', 'after');
}

# Memory: many connections that each announce much and send the beginning of it.
{
    my @sockets = map { my ($socket, $zone, $epoch) = subscribed(); [ $socket, $zone, $epoch ] } 1 .. 30;
    for (@sockets) {
        my ($socket, $zone, $epoch) = @$_;
        print {$socket} chunk($zone, $epoch, 1, 1_000_000, 'x' x 1_000), pack('V', 60_000) . chr($TYPE{RECORDS}) . 'x' x 1_000;
    }
    sleep 0.3;
    cmp_ok(memory() - $memory, '<', 8_192, 'thirty peers that announce a megabyte each cost less than 8 MiB');
    close $_->[0] for @sockets;
}
{
    # One that never stops sending valid messages which have no effect.
    my $socket = handshake();
    my $before = memory();
    my $noise = frame(0x80 | 9, 'x' x 1_000) x 60;
    my $end = time + 1;
    while (time < $end) { print {$socket} $noise; sysread $socket, my $in, 65_536 if IO::Select->new($socket)->can_read(0) }
    cmp_ok(memory() - $before, '<', 4_096, 'a flood of messages to be skipped uses no memory');
    is($node->get('/read?key=k')->body, 'v', '... and HTTP answers meanwhile');
}
{
    # One that sends pings and reads nothing.
    my $socket = handshake();
    my $before = memory();
    my $pings = frame($TYPE{PING}, pack 'Q<', 1) x 1_000;
    $socket->blocking(0);
    my $end = time + 1.5;
    while (time < $end) { (syswrite $socket, $pings) // sleep 0.01 }
    cmp_ok(memory() - $before, '<', 4_096, 'a flood of pings whose answers nobody reads uses no memory');
    is($node->get('/read?key=k')->body, 'v', '... and HTTP answers meanwhile');
    is_deeply($node->keyvals('one'), { k => 'v' }, 'the zone is as it was');
}

sub memory { my $sum = 0; $sum += $node->memory($_) for $node->workers; return $sum }

# Silent connections.
{
    my $silent = node(events => 'worker_connections 40;', http => $api, stream => $sync)->start;
    $silent->add('one', 'k', 'v');
    my $socket = tcp($silent->sync);
    my $took = closes_within($socket, 3, 'a connection that says nothing is closed');
    cmp_ok($took, '<', 2, sprintf '... within zone_sync_timeout (1 s; it took %.2f s)', $took);
    $socket = tcp($silent->sync);
    my $began = time;
    my $slow = hello();
    my $closed;
    for (split //, $slow) {
        print {$socket} $_ or last;
        (undef, $closed) = read_all($socket, 0.1);
        last if $closed;
    }
    ok($closed && time - $began < 2, 'so is one that says its hello slower than that');

}

# More of them than the worker has connections for. nginx takes away whoever has been silent for longest: a client that comes
# among hundreds is the oldest before it has said anything, so they have all come before the first client does.
{
    allow_log(qr/worker_connections are not enough/);
    my $silent = node(events => 'worker_connections 40;', http => $api, stream => $sync =~ s/timeout 1s/timeout 60s/r)->start;
    $silent->add('one', 'k', 'v');
    my @silent = map { tcp($silent->sync) } 1 .. 120;
    ok(wait_for(sub { backlog($silent->sync) == 0 }, 10), 'more silent connections than there can be: nginx takes all of them');
    my @answers = map { eval { $silent->get('/read?key=k', timeout => 2)->body } // $@ } 1 .. 20;
    is_deeply(\@answers, [ ('v') x 20 ], 'with ' . @silent . ' silent connections and 40 worker_connections, HTTP clients are answered');
    close $_ for @silent;
    is($silent->add('one', 'after', 'x'), 201, '... and after that');
}

# How many connections to a port wait to be taken.
sub backlog {
    my ($port) = @_;
    my $listens = sprintf ':%04X [0-9A-F:]+ 0A [0-9A-F]+:([0-9A-F]+) ', $port;
    open my $table, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
    my ($waiting) = map { /$listens/ ? hex $1 : () } <$table>;
    return $waiting // die "nobody listens on $port\n";
}

# Over TLS, too: connections that begin no handshake.
{
    my $ca = authority('the CA');
    my ($certificate, $key) = $ca->issue('node');
    my $tls = node(events => 'worker_connections 40;', http => $api, stream => "server { listen 127.0.0.1:%%SYNC%% ssl; zone_sync; zone_sync_timeout 1s;
        ssl_certificate $certificate; ssl_certificate_key $key; ssl_client_certificate @{[ $ca->file ]}; ssl_verify_client on; }")->start;
    $tls->add('one', 'k', 'v');
    my $took = closes_within(tcp($tls->sync), 4, 'TLS: a connection that says nothing is closed');
    cmp_ok($took, '<', 2, sprintf 'TLS: ... within zone_sync_timeout (%.2f s)', $took);
    my @silent = map { tcp($tls->sync) } 1 .. 120;
    ok(wait_for(sub { backlog($tls->sync) == 0 }, 10), 'TLS: nginx takes 120 of them');
    my @answers = map { eval { $tls->get('/read?key=k', timeout => 2)->body } // $@ } 1 .. 20;
    is_deeply(\@answers, [ ('v') x 20 ], 'TLS: ... and with 40 worker_connections, HTTP clients are answered');
}

# The other way round: a peer that this node dials, and that misbehaves.
{
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => port(), Proto => 'tcp', Listen => 20, ReuseAddr => 1);
    my $dialer = node(http => $api, stream => "server { listen 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_timeout 1s;
        zone_sync_connect_retry_interval 100ms; zone_sync_server 127.0.0.1:@{[ $listener->sockport ]}; }")->start;
    $dialer->add('one', 'k', 'v');
    my $accept = sub { IO::Select->new($listener)->can_read(5) ? $listener->accept : undef };
    for (
        [ 'random bytes',     join '', map { chr int rand 256 } 1 .. 2_000 ],
        [ 'a huge length',    pack 'V', 0xffff_ffff ],
        [ 'another magic',    hello(magic => 'wormhole') ],
        [ 'a future version', hello(lowest => 40, highest => 41) ],
        [ 'an unknown message', hello() . frame(99, 'x') ],
        [ 'a subscription to a zone that does not exist', hello() . frame($TYPE{SUBSCRIBE}, varint(900) . "\1\2\0" . ("\0" x 8) . "\0") ],
        [ 'records, which only the dialer may send', hello() . records(1, 1, record('k', 'evil')) ],
    ) {
        my ($name, $bytes) = @$_;
        my $socket = $accept->();
        ok($socket, "dialled, $name: the peer is dialled (again)") or next;
        print {$socket} $bytes;
        closes_within($socket, 3, "dialled, $name: the connection is closed");
    }
    my $socket = $accept->();
    ok($socket, 'dialled, silence: the peer is dialled again');
    my $took = closes_within($socket, 5, 'dialled, silence: the connection is closed');
    cmp_ok($took, '<', 2.5, '... within zone_sync_timeout');
    is_deeply($dialer->keyvals('one'), { k => 'v' }, 'dialled: the zone is as it was');
    is($dialer->zone_sync->{status}{nodes_online}, 0, 'dialled: none of these was online');
    ok(scalar $dialer->grep_log(qr/\[(?:warn|error)\].*127\.0\.0\.1:@{[ $listener->sockport ]}/), 'dialled: the log names the peer');
    ok(scalar $dialer->agent_worker, 'dialled: the helper thread is there');
}

done_testing;
