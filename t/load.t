# The module loads with and without nginx's stream module, before and after it.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $http = <<'CONF';
    keyval_zone zone=one:64k timeout=1h;
    keyval $arg_key $value zone=one;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api  { api write=on; }
        location /read { return 200 "$value"; }
    }
CONF
my $stream = 'server { listen 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_server 127.0.0.1:%%SYNC%%; }';

for (
    [ 'without the stream module', ['zonemesh'] ],
    [ 'after the stream module',   [ 'stream', 'zonemesh' ] ],
    [ 'before the stream module',  [ 'zonemesh', 'stream' ] ],
) {
    my ($name, $modules) = @$_;
    my $node = node(modules => $modules, http => $http)->start;
    is($node->add('one', 'k', $name), 201, "$name: the API works");
    is($node->get('/read?key=k')->body, $name, "$name: variables work");
    my $roots = $node->get('/api/9/')->json;
    ok(!grep({ $_ eq 'stream' } @$roots), "$name: no stream block, no stream in the API");
    ok(defined $node->quit, "$name: ends when told to");
}

config_works({ http => $http, stream => $stream }, 'zone_sync after the stream module');

# Loaded too early it can't add to the stream module: it must say so, or do it.
my ($ok, $said) = config_check(modules => [ 'zonemesh', 'stream' ], http => $http, stream => $stream);
ok($ok || $said =~ /\[emerg\].*(?:zone_sync|zonemesh).*stream_module/, 'zone_sync before the stream module: works, or says to load that first')
    or diag($said);

config_fails(
    { modules => ['zonemesh'], http => $http, stream => $stream }, qr/stream/,
    'a stream block without the stream module is refused'
);

# Without anything of ours in the configuration.
my $idle = node(http => 'server { listen 127.0.0.1:%%PORT%%; return 200 hello; }')->start;
is($idle->get('/')->body, 'hello', 'a configuration that uses nothing of it');
$idle->reload;
is($idle->get('/')->body, 'hello', '... reloads');

my $none = node(modules => [ 'stream', 'zonemesh' ], conf => undef)->start;
ok(scalar $none->workers, 'no http block at all');

# Loaded by a reload only.
my $late = node(modules => [], http => 'server { listen 127.0.0.1:%%PORT%%; return 200 hello; }')->start;
$late->reload(modules => [ 'stream', 'zonemesh' ], http => $http);
is($late->add('one', 'k', 'v'), 201, 'loaded by a reload: works');
$late->reload(modules => [], http => 'server { listen 127.0.0.1:%%PORT%%; return 200 hello; }');
is($late->get('/')->body, 'hello', 'unloaded by a reload: gone without a trace');

done_testing;
