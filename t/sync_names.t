# zone_sync_server with `resolve`: nodes come and go as a name's addresses do, without a reload.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Dns;

use IO::Socket::IP;

# Its answers are good for an hour, had nodes not another limit (`valid=`).
my $dns = ZoneMesh::Dns->new->ttl(3_600)->start;
my $port = port();
my $ca   = authority();

# Nodes of one configuration but for their address, as an installation by script has it. Each finds itself in the list.
sub member {
    my ($address, %given) = @_;
    my $listen = $address =~ /:/ ? "[$address]:$port" : "$address:$port";
    my ($certificate, $key) = $ca->issue("node$address", dns => [qw(mesh.test six.test)]);
    my $tls = ZoneMesh::Cluster::tls_lines($ca->file, $certificate, $key);
    my $server = $given{server} // 'mesh.test';
    my $family = $given{family} // '';
    return node(
        name   => "node-$address", workers => 2,
        stream => "resolver 127.0.0.1:@{[ $dns->port ]} valid=1s $family; resolver_timeout 1s;
            server { listen $listen ssl; zone_sync; zone_sync_server $server:$port resolve; $tls $ZoneMesh::Cluster::QUICK }",
        http => 'keyval_zone zone=one:1m sync; keyval $arg_key $value zone=one;
            server {
                listen 127.0.0.1:%%PORT%%;
                location /api  { api write=on; }
                location /read { return 200 "$value"; }
            }'
    )->start;
}

# The addresses of all peers that the API knows.
sub shown { return join ' ', sort map { $_->{address} =~ s/:\d+\z//r } @{ $_[0]->get('/api/9/zonemesh/peers')->json } }

sub online { return $_[0]->zone_sync->{status}{nodes_online} }

# Nobody knows the name yet: that isn't fatal.
my $first = member('127.0.0.11');
ok($first->wait_log(qr/zone_sync_server mesh\.test:$port leads to no address/), 'a name that does not exist is said to have no address');
is($first->add('one', 'early', 1), 201, '... and the node works');

$dns->set('mesh.test' => '127.0.0.11', '127.0.0.12');
my $second = member('127.0.0.12');
connected(1, $first, $second);
pass('two nodes find each other once the name has addresses; each leaves itself out');
eventually_is { $second->get('/read?key=early')->body } '1', 'what was written before is there';

# One more joins. Nobody is reloaded.
$dns->set('mesh.test' => '127.0.0.11', '127.0.0.12', '127.0.0.13');
my $third = member('127.0.0.13');
connected(2, $first, $second, $third);
$third->add('one', 'from', 'third');
everywhere([ $first, $second ], 'from', 'third', 'a node that was added to the name is one of the cluster');

# One leaves. It runs on, so that only the name can be why the others let it go.
$dns->set('mesh.test' => '127.0.0.11', '127.0.0.13');
eventually_is { online($first) } 1, 'the connection to a node that was taken out is closed';
eventually_is { online($third) } 1, '... by every node';
$first->add('one', 'without', 'yes');
everywhere([$third], 'without', 'yes', '... and the rest goes on');
is($second->get('/read?key=without')->body, '', '... while the one that left is not told any more');
eventually_is { shown($first) } '127.0.0.11 127.0.0.13', '... nor shown';
$dns->set('mesh.test' => '127.0.0.11', '127.0.0.12', '127.0.0.13');
connected(2, $first, $second, $third);
everywhere([$second], 'without', 'yes', 'a node that comes back gets what it missed');

# A name server that doesn't answer changes nothing.
$dns->pause;
ok($first->wait_log(qr/mesh\.test:$port can't be resolved: .*; the addresses known so far stay in use/, 20),
    'a silent name server is told of');
is(online($first), 2, '... and everybody stays connected');
$second->add('one', 'silence', 'kept');
everywhere([ $first, $third ], 'silence', 'kept', '... and told');
$first->reload;
$second->add('one', 'reloaded', 'told');
everywhere([$first], 'reloaded', 'told', '... who lost a session dials again by the address that it knows');
$first->add('one', 'unresolved', 'sent');
everywhere([ $second, $third ], 'unresolved', 'sent', '... and who was reloaded itself goes on with the addresses known before');
allow_log(qr/worker process \d+ exited on signal 9/);
$first->kill_worker(wait_for(sub { $first->agent_worker }));
$first->add('one', 'still unresolved', 'sent');
everywhere([ $second, $third ], 'still unresolved', 'sent', '... as does the next worker when one is killed');
my $late = member('127.0.0.16');
my @said = $late->wait_log(qr/zone_sync_server mesh\.test:$port can't be resolved: /, 20);
ok(scalar @said, 'a node that starts while it is silent says so');
unlike($said[0] // '', qr/addresses known so far/, '... knows no addresses');
is($late->add('one', 'alone', 'sent'), 201, '... and works alone');
$dns->resume;
$dns->set('mesh.test' => map { "127.0.0.$_" } 11, 12, 13, 16);
connected(3, $first, $second, $third, $late);
pass('when it answers again, all find the one that started meanwhile, and it finds them');
everywhere([ $first, $second, $third ], 'alone', 'sent', '... and what it wrote is everywhere');
is($late->get('/read?key=silence')->body, 'kept', '... as is there what others wrote');

# The agent goes with its worker; the next one asks anew.
$first->kill_worker($first->agent_worker);
$dns->set('mesh.test' => '127.0.0.11', '127.0.0.12', '127.0.0.13');
eventually_is { shown($first) } '127.0.0.11 127.0.0.12 127.0.0.13', 'names are followed by the next worker when one is killed';
eventually_is { online($first) } 2, '... who leaves a node that was taken out';
$late->stop;
$first->add('one', 'after kill', 'yes');
everywhere([ $second, $third ], 'after kill', 'yes', '... and stays with the others');

SKIP: {
    my $v6 = IO::Socket::IP->new(LocalAddr => '::1', LocalPort => $port, Listen => 1);
    skip 'this machine has no IPv6 on loopback', 2 unless $v6;
    close $v6;
    $dns->set('six.test' => '127.0.0.14', '::1');
    my $four = member('127.0.0.14', server => 'six.test');
    my $six  = member('::1', server => 'six.test');
    connected(1, $four, $six);
    $six->add('one', 'by six', 'yes');
    everywhere([$four], 'by six', 'yes', 'addresses of IPv6 are nodes as well');
    my $only4 = member('127.0.0.15', server => 'six.test', family => 'ipv6=off');
    connected(1, $only4);
    $only4->add('one', 'by four', 'yes');
    everywhere([$four], 'by four', 'yes', '... unless the resolver leaves them out');
}

# A name that loses all its addresses takes the cluster apart: that is worth more than a notice.
$dns->set('mesh.test');
ok($first->wait_log(qr/\[warn\].*zone_sync_server mesh\.test:$port leads to no address/), 'a name that leads nowhere any more is warned of');
eventually_is { online($first) } 0, '... and its nodes are left';
ok(defined $first->quit, '... and a node that quits then ends');
ok($first->wait_log(qr/\[warn\].*zone_sync_server mesh\.test:$port led to no address when this node ended/),
    '... and says that nobody behind it was told');

config_fails(
    { stream => 'server { listen 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_server mesh.test:9000 resolve; }' },
    [ qr/"zone_sync_server mesh\.test:9000 resolve" has no one to ask; set "resolver"/, qr/nginx\.conf:\d+/ ],
    'without a resolver: refused, with place and remedy'
);
config_works(
    { stream => 'server { listen 127.0.0.1:%%SYNC%%; resolver 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_server mesh.test:9000 resolve; }' },
    'a resolver in the server is enough, and need not answer'
);
config_works(
    { stream => 'server { listen 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_server 127.0.0.1:9000 resolve; }' },
    'an address needs no resolver'
);
config_fails(
    { stream => 'server { listen 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_server mesh.test:9000 follow; }' },
    qr/unknown parameter "follow" of "zone_sync_server mesh\.test:9000"/, 'an unknown parameter is refused'
);

done_testing;
