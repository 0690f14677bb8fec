# Debian's prometheus-nginx-exporter, told that this is the commercial nginx, finds all it asks for.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

my $exporter = needs_program('prometheus-nginx-exporter');

my @nodes = my ($node, $peer) = cluster(2);
my $port  = port();
my $log   = $node->prefix . '/logs/exporter';
my $pid   = fork // die "fork: $!";
if (!$pid) {
    ZoneMesh::Node::die_with_parent();
    open STDOUT, '>', $log;
    open STDERR, '>&', \*STDOUT;
    exec $exporter, '-nginx.plus', '-nginx.scrape-uri', 'http://127.0.0.1:' . $node->port . '/api',
        '-web.listen-address', "127.0.0.1:$port"
        or POSIX::_exit(127);
}
END { if ($pid) { local $?; kill 'KILL', $pid; waitpid $pid, 0 } }

# What one scrape shows: {name with labels => number}.
sub scrape {
    my $answer = ZoneMesh::Http->request($port, 'GET', '/metrics');
    return {} unless $answer->status == 200;
    return { map { /^(nginx\w+(?:\{.*\})?) (\S+)$/ ? ($1 => $2) : () } split /\n/, $answer->body };
}

ok(wait_for(sub { %{ scrape() } }, 10), 'it starts') or diag(ZoneMesh::Node::slurp($log));
is(scrape()->{nginxplus_up}, 1, 'it finds all that it asks for') or diag(ZoneMesh::Node::slurp($log));

$node->add('one', "k$_", 'v') for 1 .. 3;
eventually_is { scrape()->{'nginxplus_stream_zone_sync_zone_records_total{zone="one"}'} } 3, 'zone_sync: the records of a zone';
eventually_is { scrape()->{'nginxplus_stream_zone_sync_zone_records_pending{zone="one"}'} } 0, 'zone_sync: ... none of them pending';
is(scrape()->{nginxplus_stream_zone_sync_status_nodes_online}, 1, 'zone_sync: the nodes that are connected');
my $seen = scrape();
cmp_ok($seen->{"nginxplus_stream_zone_sync_status_$_"}, '>', 0, "zone_sync: $_") for qw(bytes_in bytes_out msgs_in msgs_out);

$peer->quit;
eventually_is { scrape()->{nginxplus_stream_zone_sync_status_nodes_online} } 0, 'zone_sync: the peer has gone';
is(scrape()->{nginxplus_up}, 1, '... and nothing is wrong with that');

my $before = scrape();
$node->get('/read?key=k1') for 1 .. 10;
my $after = scrape();
cmp_ok($after->{nginxplus_http_requests_total} - $before->{nginxplus_http_requests_total}, '>=', 10, 'requests are counted');
cmp_ok($after->{nginxplus_connections_accepted}, '>', $before->{nginxplus_connections_accepted}, 'so are connections');

unlike(ZoneMesh::Node::slurp($log), qr/error|could not|fail/i, 'it has nothing to complain about');

# Without stream, it asks for nothing of stream.
$node->configure(stream => undef, http => 'keyval_zone zone=one:1m; server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }');
$node->reload;
eventually_is { scrape()->{nginxplus_up} } 1, 'it finds all that it asks for without a stream block, too';

done_testing;
