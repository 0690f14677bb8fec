# status_zone in stream: connections, sessions by class, bytes, and that figures outlive reloads and killed workers.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => port(), Listen => 64, ReuseAddr => 1) or die $!;
my %port = map { uc $_ => port() } qw(hello deny pass down proxied peer udp tls);
my $ca = authority('the CA');
my ($certificate, $key) = $ca->issue('node', ip => ['127.0.0.1']);
my $stream = <<'CONF';
    server { listen 127.0.0.1:%%HELLO%%; status_zone hello; return hello; }
    server { listen 127.0.0.1:%%PEER%%;  status_zone hello; return there; }
    server { listen 127.0.0.1:%%DENY%%;  status_zone deny;  deny all; return never; }
    server { listen 127.0.0.1:%%PASS%% reuseport; status_zone pass; proxy_pass 127.0.0.1:%%SILENT%%; }
    server { listen 127.0.0.1:%%DOWN%%;  status_zone down;  proxy_pass 127.0.0.1:1; }
    server { listen 127.0.0.1:%%PROXIED%% proxy_protocol; status_zone proxied; return "$proxy_protocol_addr"; }
    server { listen 127.0.0.1:%%TLS%% ssl; status_zone tls; ssl_certificate %%CERTIFICATE%%; ssl_certificate_key %%KEY%%; return hello; }
    server { listen 127.0.0.1:%%UDP%% udp; status_zone udp; return pong; }
CONF
my $http = 'server { listen 127.0.0.1:%%PORT%%; status_zone hello; location /api { api write=on; } }';

for my $order ([qw(stream zonemesh)], [qw(zonemesh stream)]) {
    my $with = "@$order";
    my $node = node(modules => $order, workers => 2, vars => { %port, SILENT => $silent->sockport, CERTIFICATE => $certificate, KEY => $key }, http => $http, stream => $stream);
    $node->start;
    my $zone = sub { $node->get("/api/9/stream/server_zones/$_[0]")->json };
    my $talk = sub { my ($name, $say) = @_; my $socket = tcp($port{$name}); print {$socket} $say if defined $say; return (read_all($socket))[0] };

    is_deeply(
        $zone->('hello'),
        { processing => 0, connections => 0, sessions => { '2xx' => 0, '4xx' => 0, '5xx' => 0, total => 0 }, discarded => 0, received => 0, sent => 0 },
        "$with: a zone without sessions"
    );
    is_deeply($node->get('/api/9/stream/server_zones?fields=')->json, [qw(deny down hello pass proxied tls udp)], "$with: names");
    is_deeply([ keys %{ $node->get('/api/9/http/server_zones')->json } ], ['hello'], "$with: one of the same name in http is another");

    is($talk->('HELLO'), 'hello', "$with: a session");
    is($talk->('PEER'),  'there', "$with: and one of another server with the zone");
    eventually_is { $zone->('hello') }
        { processing => 0, connections => 2, sessions => { '2xx' => 2, '4xx' => 0, '5xx' => 0, total => 2 }, discarded => 0, received => 0, sent => 10 },
        "$with: are counted";
    is($talk->('DENY'), '', "$with: a client that is denied");
    eventually_is { $zone->('deny')->{sessions} } { '2xx' => 0, '4xx' => 1, '5xx' => 0, total => 1 }, "$with: counts among 4xx";
    is($talk->('DOWN'), '', "$with: an upstream that is down");
    eventually_is { $zone->('down')->{sessions} } { '2xx' => 0, '4xx' => 0, '5xx' => 1, total => 1 }, "$with: counts among 5xx";
    is($talk->('PROXIED', "no header of the proxy protocol\r\n"), '', "$with: a connection that never becomes a session");
    eventually_is { my $all = $zone->('proxied'); [ @$all{qw(connections processing)}, $all->{sessions}{'4xx'} ] } [ 1, 0, 1 ], "$with: counts among 4xx";
    is($talk->('PROXIED', "PROXY TCP4 10.0.0.1 10.0.0.2 3 4\r\n"), '10.0.0.1', "$with: one that does");
    eventually_is { my $all = $zone->('proxied'); [ $all->{connections}, $all->{sessions}{'2xx'} ] } [ 2, 1 ], "$with: counts among 2xx";
    {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port{UDP}, Proto => 'udp');
        $socket->send('ping');
        ok(IO::Select->new($socket)->can_read(5), "$with: an answer over UDP");
        eventually_is { my $all = $zone->('udp'); [ @$all{qw(connections received sent)} ] } [ 1, 4, 4 ], "$with: is counted";
    }

    # In the making.
    my $open = sub {
        my @clients = map { tcp($port{PASS}) } 1 .. $_[0];
        my @servers = map { scalar $silent->accept } 1 .. $_[0];
        return (\@clients, \@servers);
    };
    {
        my ($clients, $servers) = $open->(3);
        eventually_is { $zone->('pass')->{processing} } 3, "$with: sessions that are open";
        is($zone->('pass')->{connections}, 3, "$with: are counted as connections");
        is($zone->('pass')->{sessions}{total}, 0, "$with: ... and not yet as sessions");
        print { $clients->[0] } 'to the server';
        ok(IO::Select->new(@$servers)->can_read(5), "$with: bytes come through");
        print {$_} 'to the client' for @$servers;
        close $_ for @$servers;
        is((read_all($_))[0], 'to the client', "$with: bytes pass") for @$clients;
        close $_ for @$clients;
        eventually_is { my $all = $zone->('pass'); [ @$all{qw(processing connections received sent)}, $all->{sessions}{'2xx'} ] }
            [ 0, 3, 13, 39, 3 ], "$with: and are counted at the end";
    }
    {
        my ($clients, $servers) = $open->(2);
        eventually_is { $zone->('pass')->{processing} } 2, "$with: sessions before a reload";
        $node->reload;
        is($zone->('pass')->{processing}, 2, "$with: are still shown after it");
        is($zone->('hello')->{sessions}{total}, 2, "$with: figures go on");
        is($talk->('HELLO'), 'hello');
        eventually_is { $zone->('hello')->{sessions}{total} } 3, "$with: ... from where they were";
        close $_ for @$servers, @$clients;
        eventually_is { $zone->('pass')->{processing} } 0, "$with: old workers' sessions end";
    }
    {
        my ($clients, $servers) = $open->(4);
        eventually_is { $zone->('pass')->{processing} } 4, "$with: sessions of workers";
        allow_log(qr/exited on signal 9/);
        $node->kill_worker($_) for $node->workers;
        eventually_is { my $all = $zone->('pass'); [ @$all{qw(processing connections)} ] } [ 0, 9 ], "$with: ... that are killed are counted and gone";
    }

    is($node->delete('/api/9/stream/server_zones/hello')->status, 204, "$with: DELETE");
    is($zone->('hello')->{connections}, 0, "$with: ... resets a zone");
    is($zone->('pass')->{connections}, 9, "$with: ... and no other");
    ok($node->get('/api/9/http/server_zones/hello')->json->{requests} > 0, "$with: ... nor that of http");
    is($node->delete('/api/9/stream/server_zones/none')->json->{error}{code}, 'ServerZoneNotFound', "$with: one that is not there");
    # Whatever becomes of a connection, it ends as a session: nginx makes one before anything can fail.
    close tcp($port{$_}) for qw(PASS PROXIED TLS);
    $silent->accept;
    is($talk->('TLS', "no handshake\r\n"), '', "$with: a handshake that fails");
    eventually_is { my $all = $zone->('tls'); [ @$all{qw(connections processing)}, $all->{sessions}{total} ] } [ 2, 0, 2 ],
        "$with: is a session all the same";
    eventually_is { my $all = $zone->('proxied'); [ @$all{qw(connections processing)}, $all->{sessions}{total} ] } [ 3, 0, 3 ],
        "$with: so is a connection that is closed at once";
    is_deeply([ map { $_->{discarded} } values %{ $node->get('/api/9/stream/server_zones')->json } ], [ (0) x 7 ], "$with: none is discarded");
    ok(defined $node->quit, "$with: ends when told to");
}

config_fails({ stream => 'status_zone a;' }, qr/"status_zone" directive is not allowed here/, 'outside of servers');
config_fails({ stream => 'server { listen 1; return x; status_zone a; status_zone b; }' }, qr/"status_zone" is duplicate/, 'twice');
config_works({ stream => 'server { listen 127.0.0.1:%%SYNC%%; return x; status_zone off; }' }, 'off');

done_testing;
