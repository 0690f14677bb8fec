package ZoneMesh::Cluster;

# Nodes that share zones, each with an API at /api and `/read?key=` for its zone `one`.
#
#     my @nodes = cluster(3, tls => $ca);
#
# Options:
#   zones      text: the keyval_zone lines (default: `one`, with a timeout, sync)
#   tls        a ZoneMesh::Certs: mutual TLS, with a certificate for each node
#   unix       true: nodes reach each other over unix: sockets
#   sync       more lines for the server block with zone_sync (default: short times, so that tests are quick)
#   cut_off    number of a node (from 1) that the others reach, and that reaches the others, through $nodes[0]{relay} only
#   workers    worker_processes of each (default 2)
#   commands   one more address at which the HTTP server of each listens
#   http       more text for the http block
#   ports      names of further marks, each filled with a free port ($node->{vars}{NAME})
#   not_started  true: they are made, not started

use strict;
use warnings;

use Exporter 'import';
use Test::More ();

use ZoneMesh ();
use ZoneMesh::Relay;

our @EXPORT = qw(cluster connected everywhere same_everywhere everywhere_is);

# What a test wants rather than the defaults: it doesn't wait for seconds.
our $QUICK = 'zone_sync_timeout 1s; zone_sync_connect_retry_interval 100ms; zone_sync_connect_timeout 1s;';

sub cluster {
    my ($count, %given) = @_;
    my @nodes = map { ZoneMesh::node(name => "node$_", workers => $given{workers} // 2) } 1 .. $count;
    my (%through, $relay);
    if (my $alone = $given{cut_off}) {
        my %ports;
        for my $from (1 .. $count) {
            for my $to (grep { $_ != $from } 1 .. $count) {
                next unless $from == $alone || $to == $alone;
                my $port = ZoneMesh::port();
                $through{"$from-$to"} = $port;
                $ports{$port} = $nodes[ $to - 1 ]->sync;
            }
        }
        $relay = ZoneMesh::Relay->new(%ports)->start;
    }
    for my $n (1 .. $count) {
        my $node = $nodes[ $n - 1 ];
        $node->{relay} = $relay;
        $node->{vars}  = { map { $_ => ZoneMesh::port() } @{ $given{ports} // [] } };
        my $sync = $given{sync} // $QUICK;
        if (my $ca = $node->{authority} = $given{tls}) {    # its files live as long as the nodes
            my ($certificate, $key) = $ca->issue("node$n", ip => ['127.0.0.1'], dns => ["node$n"]);
            $sync .= tls_lines($ca->file, $certificate, $key);
        }
        my $servers = join "\n", map { 'zone_sync_server ' . address($nodes[ $_ - 1 ], $through{"$n-$_"}, $given{unix}) . ';' }
            1 .. $count;
        my $listen = ($given{unix} ? 'unix:%%PREFIX%%/sync.sock' : '127.0.0.1:%%SYNC%%') . ($given{tls} ? ' ssl' : '');
        my $zones  = $given{zones} // 'keyval_zone zone=one:1m timeout=1h sync;';
        $node->configure(
            stream => "server { listen $listen;\nzone_sync;\n$servers\n$sync }",
            http   => $zones . ($given{http} // '') . '
                keyval $arg_key $value zone=one;
                server {
                    listen 127.0.0.1:%%PORT%%; ' . ($given{commands} ? "listen $given{commands};" : '') . '
                    location /api  { api write=on; }
                    location /read { return 200 "$value"; }
                    location /set  { set $value $arg_v; return 204; }
                }'
        );
    }
    return @nodes if $given{not_started};
    $_->start for @nodes;
    connected($count - 1, @nodes);
    return @nodes;
}

sub address {
    my ($node, $port, $unix) = @_;
    return 'unix:' . $node->prefix . '/sync.sock' if $unix;
    return '127.0.0.1:' . ($port // $node->sync);
}

# Mutual TLS, both ways, as directives.
sub tls_lines {
    my ($ca, $certificate, $key) = @_;
    return "
        ssl_certificate $certificate; ssl_certificate_key $key;
        ssl_client_certificate $ca; ssl_verify_client on;
        zone_sync_ssl on; zone_sync_ssl_verify on; zone_sync_ssl_trusted_certificate $ca;
        zone_sync_ssl_certificate $certificate; zone_sync_ssl_certificate_key $key;";
}

# Waits until each of these nodes is connected to so many others; dies if that doesn't come true.
sub connected {
    my ($peers, @nodes) = @_;
    for my $node (@nodes) {
        ZoneMesh::wait_for(sub { $node->zone_sync->{status}{nodes_online} == $peers }, 10)
            or die $node->name . " did not find its $peers peers within 10 s: "
            . eval { $node->get('/api/9/stream/zone_sync')->body } . "\n" . $node->tail(20);
    }
    return;
}

# A test: a key of zone `one` gets this value on all these nodes (undef: it is nowhere), in time.
sub everywhere {
    my ($nodes, $key, $value, $name, $seconds) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return everywhere_is($nodes, sub { $_[0]->keyvals('one')->{$key} }, $value, $name, $seconds);
}

# A test: what the code gives for each node becomes equal to `expected`, in time.
sub everywhere_is {
    my ($nodes, $code, $expected, $name, $seconds) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return ZoneMesh::eventually_is(
        sub { return { map { $_->name => scalar $code->($_) } @$nodes } },
        { map { $_->name => $expected } @$nodes },
        $name, $seconds // 5
    );
}

# A test: a zone becomes the same on all these nodes, in time; gives what it holds there (on the first).
sub same_everywhere {
    my ($nodes, $zone, $name, $seconds) = @_;
    my $canon = sub { JSON::PP->new->canonical->encode($_[0]->keyvals($zone)) };
    my @seen;
    my $ok = ZoneMesh::wait_for(
        sub { @seen = map { $canon->($_) } @$nodes; !grep { $_ ne $seen[0] } @seen }, $seconds // 5
    );
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    Test::More::ok($ok, $name)
        or Test::More::diag(join "\n", map { $nodes->[$_]->name . ': ' . substr $seen[$_] // '?', 0, 500 } 0 .. $#$nodes);
    return $nodes->[0]->keyvals($zone);
}

1;
