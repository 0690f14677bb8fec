# What sessions cost on the wire: messages follow the time, not the number of requests.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;
use ZoneMesh::Cluster;

my %backends = backends(qw(a b));
my $servers  = join ' ', map { 'server ' . address_of($backends{$_}) . ';' } qw(a b);
my $learn    = 'sticky learn create=$upstream_cookie_session lookup=$cookie_session';
# Heartbeats are seldom, so that what is counted is what sessions cause.
my @nodes = cluster(3, ports => ['FRONT'], sync => 'zone_sync_timeout 60s; zone_sync_connect_retry_interval 100ms;', http => "
    proxy_http_version 1.1; proxy_set_header Connection \"\";
    upstream long  { zone long 64k; $servers keepalive 4; $learn zone=long-sessions:64k timeout=1h sync; }
    upstream short { zone short 64k; $servers keepalive 4; $learn zone=short-sessions:64k timeout=4s sync; }
    server {
        listen 127.0.0.1:%%FRONT%%;
        location /long/  { proxy_pass http://long/; }
        location /short/ { proxy_pass http://short/; }
    }");
my @fronts = map { bless { port => $_->{vars}{FRONT} }, 'Front' } @nodes;
sub Front::get { my ($front, @rest) = @_; return ZoneMesh::Http->request($front->{port}, 'GET', @rest) }

# Messages that nodes sent to each other, of all kinds.
sub messages { my $sum = 0; $sum += $_->zone_sync->{status}{msgs_out} for @nodes; return $sum }

# What is caused by the requests of one session to all nodes, over so many seconds: (requests, messages).
sub used {
    my ($path, $session, $server, $seconds) = @_;
    my ($before, $requests, $until, %seen) = (messages(), 0, time + $seconds);
    while (time < $until) {
        $seen{ with($fronts[ $requests++ % 3 ], $session, $path) }++;
    }
    is_deeply([ keys %seen ], [$server], "$path: $requests requests of one session, to all nodes, come to one server");
    return ($requests, messages() - $before);
}

my %server;
for my $path (qw(/long/ /short/)) {
    $server{$path} = login($fronts[0], 'one', $path);
    for my $front (@fronts) {
        ok(wait_for(sub { my %seen = map { (with($front, 'one', $path)) => 1 } 1 .. 4; keys %seen == 1 && $seen{ $server{$path} } }), "$path: the session is on a node");
    }
}
# What begins a cluster is said.
my $last = -1;
ok(wait_for(sub { my $now = messages(); my $same = $now == $last; $last = $now; $same }, 30, 1), 'the cluster is quiet');

# Nothing is due within the quarter of an hour that a use may go untold.
my ($requests, $messages) = used('/long/', 'one', $server{'/long/'}, 3);
cmp_ok($requests, '>', 200, 'timeout=1h: many requests');
cmp_ok($messages, '<=', 20, "... cause no messages but those that are sent anyway ($messages)");

# A use is told each second at the earliest: by each of the nodes at worst, to both others, each time a few messages.
my $seconds = 8;
($requests, $messages) = used('/short/', 'one', $server{'/short/'}, $seconds);
my $most = ($seconds + 1) * 3 * 2 * 6;
cmp_ok($messages, '<=', $most, "timeout=4s: $requests requests cause at most $most messages ($messages)");
cmp_ok($messages, '>',  4,     '... but some: the session is kept alive');
my %seen = map { (with($_, 'one', '/short/')) => 1 } @fronts;
is_deeply([ keys %seen ], [ $server{'/short/'} ], '... on all nodes, for longer than its timeout');

done_testing;
