# The administration guide's cluster of three with mutual TLS, as it stands there: one list of peers from DNS, a certificate
# for the server's side and another for the client's, from two authorities.

use FindBin;
use lib "$FindBin::Bin/lib";
use File::Copy qw(copy);
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Dns;
use ZoneMesh::Given;

plan(skip_all => 'dnsmasq is not installed') unless ZoneMesh::Dns::program();

my $port = port();
my $dns  = ZoneMesh::Dns->new('example.com')->start;
$dns->set('nginx-cluster.example.com' => map { "127.0.0.1$_" } 1 .. 3);
my ($server_ca, $client_ca) = (authority('CA of servers'), authority('CA of clients'));
my ($stranger) = authority('CA of others');

my $lines = <<'CONF';
    resolver 10.0.0.53 valid=20s;
    server {
        listen 10.0.0.1:9000 ssl;
        ssl_certificate        /etc/ssl/nginx-1.example.com.server_cert.pem;
        ssl_certificate_key    /etc/ssl/nginx-1.example.com.key.pem;
        zone_sync;
        zone_sync_server    nginx-cluster.example.com:9000 resolve;
        zone_sync_ssl                     on;
        zone_sync_ssl_verify              on;
        zone_sync_ssl_trusted_certificate /etc/ssl/server_ca.pem;
        zone_sync_ssl_certificate     localhost.crt;
        zone_sync_ssl_certificate_key localhost.key;
        ssl_verify_client       on;
        ssl_trusted_certificate /etc/ssl/client_ca.pem;
    }
CONF

my @nodes = map {
    my $n    = $_;
    my $node = node(name => "nginx-$n", workers => 2);
    my $folder = $node->prefix;
    my ($certificate, $key) = $server_ca->issue("nginx-$n.example.com", dns => [ "nginx-$n.example.com", 'nginx-cluster.example.com' ]);
    copy($certificate, "$folder/nginx-$n.example.com.server_cert.pem") or die $!;
    copy($key, "$folder/nginx-$n.example.com.key.pem") or die $!;
    ($certificate, $key) = $client_ca->issue("client$n");
    # Beside the configuration: relative paths begin there.
    copy($certificate, "$folder/localhost.crt") or die $!;
    copy($key, "$folder/localhost.key") or die $!;
    copy($server_ca->file, "$folder/server_ca.pem") or die $!;
    copy($client_ca->file, "$folder/client_ca.pem") or die $!;
    $node->configure(
        stream => given(
            $lines,
            '10.0.0.53'     => '127.0.0.1:' . $dns->port,
            '10.0.0.1:9000' => "127.0.0.1$n:$port",
            ':9000 resolve' => ":$port resolve",
            '/etc/ssl/'     => "$folder/",
            'nginx-1.'      => "nginx-$n.",
        ),
        http => 'keyval_zone zone=one:1m timeout=1h sync; keyval $arg_key $value zone=one;
            server {
                listen 127.0.0.1:%%PORT%%;
                location /api  { api write=on; }
                location /read { return 200 "$value"; }
            }'
    )->start;
} 1 .. 3;

connected(2, @nodes);
pass('the three find each other by one name, and none of them itself');
is($nodes[0]->add('one', 'k', 'v'), 201, 'written on the first');
everywhere(\@nodes, 'k', 'v', '... it is on all');
is($nodes[1]->change('one', 'k', 'changed'), 204, 'changed on the second');
everywhere(\@nodes, 'k', 'changed', '... on all');
is($nodes[2]->drop('one', 'k'), 204, 'deleted on the third');
everywhere(\@nodes, 'k', undef, '... on all');

# Both sides are proven: a certificate of the servers' authority doesn't make a client.
my $said = `timeout 3 openssl s_client -quiet -connect 127.0.0.11:$port -cert '@{[ $nodes[0]->prefix ]}/nginx-1.example.com.server_cert.pem' -key '@{[ $nodes[0]->prefix ]}/nginx-1.example.com.key.pem' 2>/dev/null </dev/null`;
is($said, '', 'who shows a certificate of the other authority is told nothing');
my ($other, $other_key) = $stranger->issue('nginx-2.example.com', dns => ['nginx-cluster.example.com']);
$nodes[1]->quit;
copy($other, $nodes[1]->prefix . '/nginx-2.example.com.server_cert.pem') or die $!;
copy($other_key, $nodes[1]->prefix . '/nginx-2.example.com.key.pem') or die $!;
$nodes[1]->start;
ok(scalar $nodes[0]->wait_log(qr/\[(?:warn|error)\].*127\.0\.0\.12:$port.*(?:issuer|authority|certificate)/i), 'a server that another authority vouches for is not talked to')
    or diag($nodes[0]->tail(10));
$nodes[0]->add('one', 'secret', 'v');
everywhere([ @nodes[ 0, 2 ] ], 'secret', 'v', '... while the others go on');

done_testing;
