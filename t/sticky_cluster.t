# `sticky learn ... sync`: three nodes that list three servers each in another order, and sessions that lead to the same one from
# each of them.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;
use ZoneMesh::Cluster;

my %backends = backends(qw(a b c));
my @orders   = ([qw(a b c)], [qw(c a b)], [qw(b c a)]);
my @nodes    = cluster(3, not_started => 1, ports => ['FRONT']);

# What is in front of the servers, on a node.
sub front { my ($node) = @_; return bless { port => $node->{vars}{FRONT} }, 'Front' }
sub Front::get { my ($front, @rest) = @_; return ZoneMesh::Http->request($front->{port}, 'GET', @rest) }

for my $n (0 .. 2) {
    my $servers = join ' ', map { 'server ' . address_of($backends{$_}) . ' fail_timeout=1s;' } @{ $orders[$n] };
    my $learn   = 'sticky learn create=$upstream_cookie_session lookup=$cookie_session';
    $nodes[$n]->{more} = "
        upstream app   { zone app 64k; $servers $learn zone=sessions:64k sync; keepalive 4; }
        upstream brief { zone brief 64k; $servers $learn zone=brief-sessions:64k timeout=3s header sync; }
        proxy_connect_timeout 2s;
        server {
            listen 127.0.0.1:%%FRONT%%;
            location /app/   { proxy_pass http://app/; }
            location /brief/ { proxy_pass http://brief/; }
        }";
    $nodes[$n]->configure(http => $nodes[$n]->{http} . $nodes[$n]->{more})->start;
}
connected(2, @nodes);
my @fronts = map { front($_) } @nodes;

# All nodes lead a session to this server (or to the same one): which.
sub leads_to {
    my ($session, $path, $server, $name) = @_;
    my @seen;
    my $ok = wait_for(sub { @seen = map { with($_, $session, $path) } @fronts, @fronts; !grep { $_ ne ($server // $seen[0]) } @seen });
    ok($ok, $name) or diag("they lead to @seen, not to " . ($server // "one"));
    return $seen[0];
}

my %session;
for my $n (1 .. 30) {
    my $front = $fronts[ $n % 3 ];
    $session{ login($front, "s$n", '/app/') } = "s$n";
}
is(join('', sort keys %session), 'abc', 'sessions on all servers, begun on all nodes');
leads_to($session{$_}, '/app/', $_, "the one on $_ leads there from every node") for qw(a b c);

$backends{b}->stop;
my $other = with($fronts[1], $session{b}, '/app/');
like($other, qr/^[ac]$/, 'a server ends: the session goes to another');
leads_to($session{b}, '/app/', $other, 'the same from every node');
$backends{b}->start;
leads_to($session{b}, '/app/', $other, 'it stays there when the server is back');
sleep 2.2;    # more than fail_timeout, in whole seconds: now every node sends requests there

for my $way (qw(quit crash)) {
    $nodes[2]->$way;
    my $late = login($fronts[0], "while-$way", '/app/');
    $nodes[2]->start;
    connected(2, @nodes);
    leads_to($session{$_}, '/app/', $_, "$way of a node, and back: the session on $_") for qw(a c);
    leads_to("while-$way", '/app/', $late, 'and the one that began meanwhile');
}

# Used on one node only, it lives on all.
my $brief = login($fronts[0], 'brief', '/brief/');
leads_to('brief', '/brief/', $brief, 'a session of a few seconds');
my ($until, %seen) = (time + 7);
while (time < $until) { $seen{ with($fronts[0], 'brief', '/brief/') }++; sleep 0.02 }
is_deeply([ keys %seen ], [$brief], 'is used on one node for longer than that');
is(with($_, 'brief', '/brief/'), $brief, 'and leads there from all') for @fronts;
sleep 5;
is(join('', sort map { with($fronts[1], 'brief', '/brief/') } 1 .. 3), 'abc', 'it is forgotten everywhere when nobody uses it');

# A zone of another type under the name.
my $changed = $nodes[2]{http} =~ s/zone=sessions:64k sync/zone=others:64k sync/r;
$nodes[2]->quit;
$nodes[2]->configure(http => "$changed keyval_zone zone=sessions:64k sync;")->start;
eventually {
    my @refused = map { @{ $_->{refused} } } @{ $nodes[0]->get('/api/9/zonemesh/peers')->json };
    grep { $_->{zone} eq 'sessions' && $_->{reason} =~ /type=session, not string/ } @refused;
} 'a keyval_zone of the name on another node is refused, and shown';
is(with($fronts[1], $session{a}, '/app/'), 'a', 'and the sessions of the others are untouched');

done_testing;
