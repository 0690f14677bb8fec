# keyval and keyval_zone in stream, alone and together with http: variables look records up and write them in sessions,
# the API shows each zone under the block that declares it, and one zone serves both blocks.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my %port = map { $_ => port() } qw(read constant set map pass preread ip);
my $upstream = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => port(), Listen => 5, ReuseAddr => 1) or die $!;

my $stream = <<'CONF';
    # a keyval may come before its zone, and before the other block that declares it
    keyval $proxy_protocol_addr $value zone=one;
    keyval $proxy_protocol_addr $of_http zone=of_http;
    keyval_zone zone=one:1m timeout=1h;
    keyval constant $constant zone=one;
    keyval "to-$proxy_protocol_addr" $target zone=one;
    keyval $ssl_preread_server_name $by_name zone=one;
    keyval_zone zone=nets:64k type=ip;
    keyval $proxy_protocol_addr $net zone=nets;
    keyval written-$proxy_protocol_addr $by_set zone=one;
    map $value $mapped { default no; "yes" mapped; }

    server { listen 127.0.0.1:%%READ%% proxy_protocol;     return "[$value] [$of_http]"; }
    server { listen 127.0.0.1:%%CONSTANT%%;                return "[$constant]"; }
    server { listen 127.0.0.1:%%SET%% proxy_protocol;      set $by_set "$proxy_protocol_port at $by_set"; return "[$by_set]"; }
    server { listen 127.0.0.1:%%MAP%% proxy_protocol;      return "[$mapped]"; }
    server { listen 127.0.0.1:%%IP%% proxy_protocol;       return "[$net]"; }
    server { listen 127.0.0.1:%%PASS%% proxy_protocol;     proxy_pass $target; }
    server { listen 127.0.0.1:%%PREREAD%%; ssl_preread on; return "[$by_name]"; }
CONF
my $http = <<'CONF';
    keyval $arg_key $value zone=one;
    keyval_zone zone=of_http:64k;
    keyval $arg_key $of_http zone=of_http;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api  { api write=on; }
        location /read { return 200 "[$value]"; }
        location /set  { set $value $arg_v; return 204; }
    }
CONF
my %vars = map { uc, $port{$_} } keys %port;

# What a session gets that says it comes from this address (a key of our choice) before anything else.
sub session {
    my ($name, $key) = @_;
    my $socket = tcp($port{$name});
    print {$socket} "PROXY TCP4 $key 127.0.0.1 1234 80\r\n" if defined $key;
    my ($bytes, $closed) = read_all($socket);
    die "the session did not end" unless $closed;
    return $bytes;
}

my $url = '/api/9/stream/keyvals';

for my $order ([qw(stream zonemesh)], [qw(zonemesh stream)]) {
    my $name = "@$order";
    # In the other order of modules, the blocks come in the other order, too.
    my $swapped = $order->[0] eq 'zonemesh';
    my $node = node(modules => $order, workers => 2, vars => \%vars,
        $swapped ? (main => "stream { $stream }", http => $http) : (http => $http, stream => $stream));
    $node->start;

    # Look-ups.
    is(session(read => '10.0.0.1'), '[] []', "$name: a key that is not there gives an empty value");
    is($node->post("$url/one", '{"10.0.0.1":"first"}')->status, 201, "$name: a pair is added by the API");
    is(session(read => '10.0.0.1'), '[first] []', "$name: a session finds it");
    is(session(read => '10.0.0.2'), '[] []',      "$name: ... by its own key");
    is($node->patch("$url/one", '{"10.0.0.1":"second"}')->status, 204, "$name: it is changed");
    is(session(read => '10.0.0.1'), '[second] []', "$name: the next session has the new value");
    $node->post("$url/one", '{"constant":"c"}');
    is(session('constant'), '[c]', "$name: a constant key");
    is(session(map => '10.0.0.9'), '[no]', "$name: in a map");
    $node->post("$url/one", '{"10.0.0.9":"yes"}');
    is(session(map => '10.0.0.9'), '[mapped]', "$name: ... with a record");
    $node->post("$url/nets", '{"10.1.0.0/16":"wide","10.1.2.0/24":"narrow"}');
    is(session(ip => '10.1.2.3'), '[narrow]', "$name: type=ip finds the longest network");
    is(session(ip => '10.1.3.3'), '[wide]',   "$name: ... of those that match");

    # One zone for both blocks.
    is($node->get('/read?key=10.0.0.1')->body, '[second]', "$name: http reads a zone that stream declares");
    is($node->get('/set?key=10.0.0.3&v=by-http')->status, 204, "$name: http writes it");
    is(session(read => '10.0.0.3'), '[by-http] []', "$name: ... for stream");
    is($node->post('/api/9/http/keyvals/of_http', '{"10.0.0.4":"of http"}')->status, 201, "$name: a zone that http declares");
    is(session(read => '10.0.0.4'), '[] [of http]', "$name: ... is read by stream");

    # The API keeps the blocks apart.
    is_deeply([ sort keys %{ $node->get($url)->json } ], [qw(nets one)], "$name: /stream/keyvals has the zones of stream");
    is_deeply([ sort keys %{ $node->get('/api/9/http/keyvals')->json } ], ['of_http'], "$name: /http/keyvals has those of http");
    is($node->get('/api/9/http/keyvals/one')->status, 404, "$name: a zone of stream is none of http");
    is($node->get("$url/of_http")->status,            404, "$name: ... nor the other way round");

    # Writes.
    is(session(set => '10.0.0.5'), '[1234 at ]', "$name: set writes, and the session reads it at once");
    is($node->get("$url/one?key=written-10.0.0.5")->json->{'written-10.0.0.5'}, '1234 at ', "$name: the API has it");
    is(session(set => '10.0.0.5'), '[1234 at 1234 at ]', "$name: the next session reads it, and replaces it");
    is($node->get('/read?key=written-10.0.0.5')->body, '[1234 at 1234 at ]', "$name: http reads it");

    # Where a session goes.
    $node->post("$url/one", '{"to-10.0.0.6":"127.0.0.1:' . $upstream->sockport . '"}');
    {
        my $client = tcp($port{pass});
        print {$client} "PROXY TCP4 10.0.0.6 127.0.0.1 1 2\r\n";
        my $server = $upstream->accept;
        print {$server} 'hello from the upstream';
        close $server;
        is((read_all($client))[0], 'hello from the upstream', "$name: proxy_pass to what a record says");
    }
    {
        $node->post("$url/one", '{"shop.example":"the shop"}');
        my $client = tcp($port{preread});
        print {$client} client_hello('shop.example');
        is((read_all($client))[0], '[the shop]', "$name: the server name of a TLS client as the key");
    }

    # Reloads keep it, with the zone declared in the other block as well.
    $node->reload;
    is(session(read => '10.0.0.1'), '[second] []', "$name: a reload keeps records");
    (my $moved_stream = $stream) =~ s/ *keyval_zone zone=one.*\n//;
    my $moved_http = "keyval_zone zone=one:1m timeout=1h;\n$http";
    $node->reload($swapped ? (main => "stream { $moved_stream }", http => $moved_http) : (http => $moved_http, stream => $moved_stream));
    is(session(read => '10.0.0.1'), '[second] []', "$name: a zone that moves to the other block keeps them, too");
    is($node->get('/api/9/http/keyvals/one?key=constant')->json->{constant}, 'c', "$name: the API then lists it there");
    is($node->get("$url/one")->status, 404, "$name: ... and not where it was");
    ok(defined $node->quit, "$name: ends when told to");
}

# In a cluster.

{
    my ($first, $second) = map {
        my %own = map { uc, port() } keys %port;
        node(vars => \%own, stream => $stream =~ s/zone=one:1m/$& sync/r, http => $http)
    } 1 .. 2;
    for my $pair ([ $first, $second ], [ $second, $first ]) {
        my ($node, $peer) = @$pair;
        my ($own, $other) = map { '127.0.0.1:' . $_->sync } $node, $peer;
        $node->configure(stream => "$node->{stream} server { listen $own; zone_sync; zone_sync_server $own; zone_sync_server $other; }");
        $node->start;
    }
    is($first->post("$url/one", '{"10.0.0.1":"shared"}')->status, 201, 'a pair in a synchronized zone of stream');
    %port = map { $_ => $second->{vars}{ uc $_ } } keys %port;
    eventually_is { session(read => '10.0.0.1') } '[shared] []', 'a session of the other node finds it';
    is(session(set => '10.0.0.7'), '[1234 at ]', 'what a session there sets');
    eventually_is { $first->get("$url/one?key=written-10.0.0.7")->json->{'written-10.0.0.7'} } '1234 at ', '... comes to the first';
}

# njs, where it is packaged.

SKIP: {
    my $js = ($ENV{TEST_NGINX_MODULES} || '/usr/lib/nginx/modules') . '/ngx_stream_js_module.so';
    skip 'the stream module of njs is not installed', 5 unless -e $js;
    my $js_port = port();
    my $node = node(modules => [ 'stream', $js, 'zonemesh' ], http => $http =~ s/.*of_http.*\n//gr, vars => { JS => $js_port }, stream => <<'CONF');
        js_import main from main.js;
        js_set $before main.before;
        keyval_zone zone=one:1m;
        keyval script-$protocol $record zone=one;
        server {
            listen 127.0.0.1:%%JS%%;
            js_access main.access;
            return "[$before] [$record]";
        }
CONF
    $node->write_file('main.js', <<'JS');
        function access(s) { s.variables.record = 'by a script'; s.allow(); }
        function before(s) { return s.variables.record; }
        export default { access, before };
JS
    $node->start;
    $port{js} = $js_port;
    is(session('js'), '[by a script] [by a script]', 'a script of stream writes a variable, and reads it');
    is_deeply($node->get("$url/one")->json, { 'script-TCP' => 'by a script' }, 'the API has it');
    is($node->patch("$url/one", '{"script-TCP":null}')->status, 204, 'it is deleted');
    is(session('js'), '[by a script] [by a script]', 'a script writes it anew');
    is($node->get('/read?key=script-TCP')->body, '[by a script]', 'http reads it');
}

# Mistakes.

my $zone = 'keyval_zone zone=one:1m;';
my $both = { http => $zone, stream => $zone };
config_fails($both, [ qr/duplicate keyval_zone "one"/, qr/already in "http", in \S+nginx\.conf:\d+/, qr/nginx\.conf:\d+$/ ],
    'a zone declared in both blocks, with both places');
config_fails({ stream => "$zone $zone" }, qr/duplicate keyval_zone "one".*another name/, 'a zone declared twice in stream');
config_fails({ http => $zone, stream => 'keyval $remote_addr $v zone=two;' },
    [ qr/unknown zone "two"/, qr/\$v/, qr/keyval_zone/, qr/"http" or in "stream"/, qr/nginx\.conf:\d+/ ], 'an unknown zone');
config_fails({ http => 'keyval $uri $v zone=two;', stream => $zone },
    [ qr/unknown zone "two"/, qr/\$v/, qr/"http" or in "stream"/ ], 'an unknown zone in http');
config_fails({ stream => "$zone keyval \$remote_addr \$protocol zone=one;" }, qr/protocol/, 'a variable that nginx has');
config_fails({ stream => "$zone keyval \$remote_addr v zone=one;" }, [ qr/"keyval"/, qr/variable/ ], 'no variable');
config_fails({ stream => "$zone keyval \"\${remote_addr\" \$v zone=one;" }, qr/remote_addr/, 'an unclosed brace');
config_fails({ stream => "$zone keyval \$no_such_variable \$v zone=one; server { listen 1; return \$v; }" }, qr/no_such_variable/, 'a key of an unknown variable');
config_fails({ stream => "server { $zone }" }, qr/"keyval_zone" directive is not allowed here/, 'a zone in a server');
config_fails({ stream => "$zone server { keyval \$remote_addr \$v zone=one; }" }, qr/"keyval" directive is not allowed here/, 'a keyval in a server');
config_works({ stream => 'keyval $remote_addr $v zone=one;', http => $zone }, 'stream alone uses a zone of http');
config_works({ http => "keyval \$uri \$v zone=one;", main => "stream { $zone }" }, 'http uses a zone of stream');
like(config_works({ stream => "$zone server { listen 127.0.0.1:%%SYNC%%; set \$v 1; return \$v; } keyval \$remote_addr \$v zone=one;" }, 'a set before its keyval'),
    qr/\[warn\].*"\$v" was set before this "keyval"/, '... is warned about');

# A TLS client's first record: just enough to name a server.
sub client_hello {
    my ($name) = @_;
    my $sni        = pack 'Cn/a', 0, $name;
    my $extensions = pack 'n n/a', 0, pack 'n/a', $sni;
    my $body       = pack 'n a32 C n/a C/a n/a', 0x0303, 'r' x 32, 0, pack('n', 0x1301), pack('C', 0), $extensions;
    my $handshake  = pack('C', 1) . substr(pack('N', length $body), 1) . $body;
    return pack 'C n n/a', 22, 0x0301, $handshake;
}

done_testing;
