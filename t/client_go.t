# The commercial API's own client library, as Debian packages it, does with key-values and figures what it does there.

use FindBin;
use lib "$FindBin::Bin/lib";
use File::Temp ();
use ZoneMesh;
use ZoneMesh::Cluster qw(connected);

my $go      = needs_program('go');
my $library = '/usr/share/gocode';
plan(skip_all => 'no golang-github-nginxinc-nginx-plus-go-client-dev: the package of Debian\'s is not installed')
    unless -d "$library/src/github.com/nginxinc/nginx-plus-go-client";

# Built from what is on this machine; nothing is fetched.
my $folder = File::Temp->newdir('zonemesh-client-XXXXXX', TMPDIR => 1);
my $top    = "$FindBin::Bin/..";
{
    local %ENV = (
        %ENV, GOPATH => $library, GO111MODULE => 'off', GOFLAGS => '-mod=mod', GOPROXY => 'off',
        GOCACHE => Cwd::abs_path($top) . '/target/go-cache', CGO_ENABLED => 0
    );
    my $said = `'$go' build -o '$folder/call' '$top/t/clients/call.go' 2>&1`;
    is($?, 0, 'the library builds') or die $said;
}

my $http = 'server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }';
my $sync = 'server { listen 127.0.0.1:%%SYNC%%; zone_sync; ' . $ZoneMesh::Cluster::QUICK;
my @nodes = my ($node, $peer) = (node(name => 'node'), node(name => 'peer'));
for ([ $node, $peer ], [ $peer, $node ]) {
    my ($own, $other) = @$_;
    $own->configure(
        workers => 2,
        http    => "keyval_zone zone=one:1m timeout=1h sync; keyval_zone zone=two:64k;\n$http",
        stream  => "keyval_zone zone=three:1m timeout=1h sync;\n$sync zone_sync_server 127.0.0.1:@{[ $other->sync ]}; }"
    )->start;
}
connected(1, @nodes);

# (what a method of the library gave, what it said was wrong)
sub call {
    my ($version, @call) = @_;
    utf8::encode($_) for @call;
    my $pid = open my $out, '-|', "$folder/call", 'http://127.0.0.1:' . $node->port . '/api', $version, @call;
    die "fork: $!" unless defined $pid;
    my $said = do { local $/; <$out> } // '';
    close $out;
    return @{ json($said) };
}

# A test: the call gives this, and nothing was wrong.
sub gives {
    my ($expected, $name, @call) = @_;
    my ($given, $wrong) = call(8, @call);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is($wrong, '', $name);
    is_deeply($given, $expected, '... and gives what it should') if defined $expected;
    return;
}

# Key-values.
for my $version (4 .. 8) {
    my ($given, $wrong) = call($version, 'GetAllKeyValPairs');
    is($wrong, '', "version $version of the API is spoken");
    is_deeply($given, { one => {}, two => {} }, '... and zones without pairs are shown');
}
gives(undef, 'add', 'AddKeyValPair', 'one', 'k', 'v');
gives({ k => 'v' }, 'get', 'GetKeyValPairs', 'one');
gives(undef, 'add another', 'AddKeyValPair', 'one', 'key with / and "quotes"', "value\nof lines \x{e4}");
is($node->keyvals('one')->{'key with / and "quotes"'}, "value\nof lines \x{e4}", '... which is kept as it is');
gives(undef, 'modify', 'ModifyKeyValPair', 'one', 'k', 'changed');
gives({ one => { k => 'changed', 'key with / and "quotes"' => "value\nof lines \x{e4}" }, two => {} }, 'get all', 'GetAllKeyValPairs');
eventually_is { $peer->keyvals('one')->{k} } 'changed', 'the cluster has it, too';
gives(undef, 'delete one', 'DeleteKeyValuePair', 'one', 'k');
ok(!exists $node->keyvals('one')->{k}, '... which is gone');
eventually_is { $peer->keyvals('one')->{k} } undef, '... from the cluster, too';
gives(undef, 'delete all', 'DeleteKeyValPairs', 'one');
gives({}, '... and all are gone', 'GetKeyValPairs', 'one');

# The same in stream: its own zones, by its own calls.
gives({ three => {} }, 'stream: get all', 'GetAllStreamKeyValPairs');
gives(undef, 'stream: add', 'AddStreamKeyValPair', 'three', 'k', 'v');
gives({ k => 'v' }, 'stream: get', 'GetStreamKeyValPairs', 'three');
gives(undef, 'stream: modify', 'ModifyStreamKeyValPair', 'three', 'k', 'changed');
gives({ three => { k => 'changed' } }, 'stream: get all again', 'GetAllStreamKeyValPairs');
eventually_is { $peer->get('/api/9/stream/keyvals/three')->json } { k => 'changed' }, 'stream: the cluster has it, too';
gives(undef, 'stream: delete one', 'DeleteStreamKeyValuePair', 'three', 'k');
gives({}, 'stream: ... and it is gone', 'GetStreamKeyValPairs', 'three');
gives(undef, 'stream: another', 'AddStreamKeyValPair', 'three', 'j', 'v');
gives(undef, 'stream: delete all', 'DeleteStreamKeyValPairs', 'three');
gives({}, 'stream: ... and all are gone', 'GetStreamKeyValPairs', 'three');
eventually_is { $peer->get('/api/9/stream/keyvals/three')->json } {}, 'stream: ... from the cluster, too';

# Errors come as the library expects them, or it would say that it can't read them.
for (
    [ 'a key that is there',     qr/KeyvalKeyExists/,    'AddKeyValPair',      'two', 'twice', 'v' ],
    [ 'a key that is not there', qr/KeyvalKeyNotFound/,  'ModifyKeyValPair',   'two', 'none', 'v' ],
    [ 'a key that is not there', qr/KeyvalKeyNotFound/,  'DeleteKeyValuePair', 'two', 'none' ],
    [ 'no such zone',            qr/KeyvalNotFound/,     'GetKeyValPairs',     'four' ],
    [ 'a zone of stream',        qr/KeyvalNotFound/,     'GetKeyValPairs',     'three' ],
    [ 'a zone of http',          qr/KeyvalNotFound/,     'AddStreamKeyValPair', 'one', 'k', 'v' ],
    [ 'no such zone',            qr/KeyvalNotFound/,     'DeleteKeyValPairs',  'four' ],
    [ 'a value that does not fit', qr/status=507.*KeyvalNoMemory/, 'AddKeyValPair', 'two', 'large', 'x' x 60_000 ],
) {
    my ($name, $pattern, @call) = @$_;
    $node->change('two', 'twice', 'v') == 204 or $node->add('two', 'twice', 'v');
    my (undef, $wrong) = call(8, @call);
    like($wrong, $pattern, "$call[0], $name");
    unlike($wrong, qr/unmarshal|failed to read/, '... in a shape that the library reads');
}

# Figures.
{
    my ($stats, $wrong) = call(8, 'GetStats');
    is($wrong, '', 'all figures');
    is($stats->{StreamZoneSync}{Status}{nodes_online}, 1, '... with the nodes that are connected');
    is_deeply([ sort keys %{ $stats->{StreamZoneSync}{Zones} } ], [qw(one three)], '... and the zones that are shared');
    ok(scalar(grep { $_ eq 'one' } keys %{ $stats->{Slabs} }), '... and the memory of zones');
    cmp_ok($stats->{NginxInfo}{ppid}, '==', $node->pid, '... and processes');
}

# Without a stream block there is nothing about stream, and nothing is wrong with that.
{
    $node->configure(http => "keyval_zone zone=one:1m;\n$http", stream => undef);
    $node->reload;
    my ($stats, $wrong) = call(8, 'GetStats');
    is($wrong, '', 'all figures, without a stream block');
    is($stats->{StreamZoneSync}, undef, '... say nothing of a cluster');
}

done_testing;
