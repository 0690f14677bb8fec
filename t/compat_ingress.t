# What a Kubernetes ingress controller generates: peers from a headless service that lists the node itself, zone names made
# of others, constant quoted keys, several addresses to listen on.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Dns;
use ZoneMesh::Given;

plan(skip_all => 'dnsmasq is not installed') unless ZoneMesh::Dns::program();

my $port = port();
my $dns  = ZoneMesh::Dns->new('cluster.local')->start;
$dns->set('nginx-ingress-hl.default.svc.cluster.local' => '127.0.0.21', '127.0.0.22');

my $stream = <<'CONF';
    server {
        listen 12345;
        listen [::]:12345;
        resolver kube-dns.kube-system.svc.cluster.local valid=5s;
        zone_sync;
        zone_sync_server nginx-ingress-hl.default.svc.cluster.local:12345 resolve;
    }
CONF
my $http = <<'CONF';
    keyval_zone zone=vs_default_cafe_keyval_zone_split_clients_1:100k state=/etc/nginx/state_files/vs_default_cafe_keyval_zone_split_clients_1.json;
    keyval "vs_default_cafe_keyval_key_split_clients_1" $vs_default_cafe_keyval_split_clients_1 zone=vs_default_cafe_keyval_zone_split_clients_1;
    limit_req_zone ${binary_remote_addr} zone=default/zone1_sync:10m rate=200r/s sync;
    limit_req_zone $url zone=pol_rl_test_test_test_sync:10m rate=10r/s sync;
CONF

# Two pods of it. What they share besides: a zone with a slash in its name.
my @nodes = map {
    my $n      = $_;
    my $node   = node(name => "pod$n", workers => 2);
    my $folder = $node->prefix . '/state_files';
    mkdir $folder or die $!;
    chmod 0777, $folder;
    my $six = -e '/proc/net/if_inet6' ? '[::1]:' . port() : "127.0.0.3$n:" . port();
    $node->configure(
        # Two of them on one machine can't both listen on every address.
        stream => given(
            $stream,
            'listen 12345'      => "listen 127.0.0.2$n:$port",
            'listen [::]:12345' => "listen $six",
            ':12345 resolve'    => ":$port resolve",
            'kube-dns.kube-system.svc.cluster.local' => '127.0.0.1:' . $dns->port,
        ),
        http => given($http, '/etc/nginx/state_files' => $folder) . '
            keyval_zone zone=default/shared:1m sync;
            keyval ${arg_key} $shared zone=default/shared;
            map $uri $url { default $uri; }
            split_clients $request_id $split { "50%" a; * b; }
            server {
                listen 127.0.0.1:%%PORT%%;
                location /api/   { api write=on; allow 127.0.0.1; deny all; access_log off; }
                location /split  { return 200 "[$vs_default_cafe_keyval_split_clients_1]"; }
                location /shared { return 200 "[$shared]"; }
                location /limited { limit_req zone=default/zone1_sync burst=2 nodelay; limit_req zone=pol_rl_test_test_test_sync burst=5 nodelay; alias %%PREFIX%%/nginx.conf; }
            }'
    )->start;
} 1 .. 2;

# `location /api/`: what nodes are asked has a slash after "api" anyway.
connected(1, @nodes);
pass('the pods find each other, by a list that has each of them itself');
my ($first, $second) = @nodes;

my $zone = 'vs_default_cafe_keyval_zone_split_clients_1';
is($first->get('/split')->body, '[]', 'the split has no value yet');
is($first->add($zone, 'vs_default_cafe_keyval_key_split_clients_1', '90'), 201, 'its value is set through the API');
is($first->get('/split')->body, '[90]', '... and requests see it, under a constant key');
is($second->get('/split')->body, '[]', '... on the pod that it was set on: the zone is not shared');

is($first->add('default/shared', 'k', 'v'), 201, 'a zone with a slash in its name, encoded in the path');
is($first->post('/api/9/http/keyvals/default/shared', '{"j":"w"}')->status, 201, '... and as it is');
for my $node (@nodes) {
    eventually_is { $node->get('/shared?key=k')->body } '[v]', $node->name . ': has the one';
    eventually_is { $node->get('/shared?key=j')->body } '[w]', $node->name . ': and the other';
}

# What one pod admits counts on the other, under both of the limits.
my $limited = sub { my ($pod, $n) = @_; return [ map { $pod->get('/limited')->status } 1 .. $n ] };
is_deeply($limited->($first, 2), [ 200, 200 ], 'requests on one pod');
eventually { $second->get('/api/9/slabs/pol_rl_test_test_test_sync')->json->{pages}{used} } 'the other hears of them';
cmp_ok(scalar(grep { $_ == 200 } @{ $limited->($second, 40) }), '<', 40, '... and limits with it');
is_deeply([ sort @{ $first->get('/api/9/http/limit_reqs?fields=')->json } ], [ 'default/zone1_sync', 'pol_rl_test_test_test_sync' ], 'both zones have figures');
cmp_ok($first->get('/api/9/http/limit_reqs/default%2Fzone1_sync')->json->{passed}, '>=', 2, '... under their names');

# Pods are not shut down gently, and come back as they were.
eventually_is { ZoneMesh::Node::slurp($first->prefix . "/state_files/$zone.json") =~ /90/ ? 1 : 0 } 1, 'the value is in the file';
$first->crash->start;
is($first->get('/split')->body, '[90]', '... and is there again after a crash of the whole pod');
connected(1, @nodes);

$first->reload;
is($first->get('/split')->body, '[90]', 'after a reload, of which there are many there, all is as it was');
connected(1, @nodes);
is($second->drop('default/shared', 'k'), 204, 'and goes on:');
eventually_is { $first->get('/shared?key=k')->body } '[]', '... what is deleted on one is deleted on the other';

done_testing;
