# Sessions on servers whose addresses follow DNS while nginx runs (`server name resolve`, nginx 1.27.3 and newer): those on
# addresses that stay aren't touched by what comes and goes, those on an address that goes move, on all nodes alike.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;
use ZoneMesh::Cluster;
use ZoneMesh::Dns;

use Digest::MD5 qw(md5_hex);

plan(skip_all => 'this nginx does not resolve names of servers at run time') if ZoneMesh::Node::nginx_version() < 1_027_003;

my $port = port();
my $LAST = 90;
sub at { return map { "127.0.1.$_" } @_ }
my $backends = node(name => 'backends', modules => [], host => '127.0.1.1', port => $port, events => 'worker_connections 2048;', http => '
    server {
        ' . join("\n", map { "listen $_:$port;" } at(1 .. $LAST)) . '
        location /login { add_header Set-Cookie session=$arg_s; return 200 $server_addr; }
        location /slow  { add_header Set-Cookie session=$arg_s; alias %%PREFIX%%/long; limit_rate 2k; }
        location /      { return 200 $server_addr; }
    }');
$backends->write_file('long', '-' x 6_000);
$backends->start;

my $dns = ZoneMesh::Dns->new->serve('_app._tcp.srv.test', 'host.srv.test', $port)->start;
$dns->set('app.test' => at(1 .. 3))->set('host.srv.test' => at(5, 6))->set('one.test' => at(7))->set('drains.test' => at(9));

my %methods = (
    rr => '', least_conn => 'least_conn;', random => 'random;', random_two => 'random two;', hash => 'hash $arg_h;',
    consistent => 'hash $arg_h consistent;', ip_hash => 'ip_hash;', alive => 'keepalive 8;',
);
my $learn = 'sticky learn create=$upstream_cookie_session lookup=$cookie_session';
my @names = sort keys %methods;
my $http  = "resolver 127.0.0.1:@{[ $dns->port ]} valid=1s ipv6=off; resolver_timeout 1s;
    proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_connect_timeout 2s;
    upstream single { zone single 256k; server one.test:$port resolve; $learn zone=single-sessions:64k sync; }
    upstream spare  { zone spare 256k; server 127.0.0.1:%%DEAD%% max_fails=0; server app.test:$port resolve backup; sticky route \$arg_route; }
    upstream srv    { zone srv 256k; server srv.test service=app resolve route=srv; server 127.0.1.4:$port; sticky route \$arg_route; }
    upstream drains { zone drains 256k; server drains.test:$port resolve drain; server 127.0.1.4:$port; sticky route \$arg_route; }\n"
    . join('', map { "upstream $_ { zone $_ 512k; server app.test:$port resolve; $methods{$_} $learn zone=$_-sessions:128k sync; }\n" } @names)
    . 'server { listen 127.0.0.1:%%FRONT%%;' . join('', map { "location /$_/ { proxy_pass http://$_/; }\n" } @names, qw(single spare srv drains)) . '}';
my @nodes  = cluster(2, ports => [ 'FRONT', 'DEAD' ], http => $http);
my @fronts = map { bless { port => $_->{vars}{FRONT} }, 'Front' } @nodes;
sub Front::get { my ($front, @rest) = @_; return ZoneMesh::Http->request($front->{port}, 'GET', @rest) }

# Both nodes know just these addresses, as who has no session sees it.
sub knows {
    my ($path, @wanted) = @_;
    my $all = join ' ', sort @wanted;
    return wait_for(sub {
        for my $front (@fronts) {
            my %seen;
            for my $n (1 .. 12 * @wanted) { $seen{ $front->get("$path?h=$n")->body }++ }
            return 0 if join(' ', sort keys %seen) ne $all;
        }
        return 1;
    }, 15, 0.2);
}

# The server that a session leads to, from both nodes; several if there is no one.
sub leads_to {
    my ($path, $session) = @_;
    my %seen = map { (with($_, $session, $path, target => '?h=1') => 1) } (@fronts) x 3;
    return join ' ', sort keys %seen;
}
sub leads_all { my ($path, %wanted) = @_; return wait_for(sub { !grep { leads_to($path, $_) ne $wanted{$_} } keys %wanted }) }

ok(knows('/rr/', at(1 .. 3)), 'the name has three addresses');
my %session;    # of each upstream: session => address
for my $name (@names) {
    for my $n (1 .. 60) {
        my $address = $fronts[ $n % 2 ]->get("/$name/login?s=$name$n&h=$n")->body;
        $session{$name}{"$name$n"} = $address if !grep { $_ eq $address } values %{ $session{$name} };
        last if keys %{ $session{$name} } == ($name eq 'ip_hash' ? 1 : 3);
    }
    ok(leads_all("/$name/", %{ $session{$name} }), "$name: sessions lead to their servers from both nodes");
}

# An address goes, others come.
$dns->set('app.test' => at(1, 3, 4, 5));
ok(knows('/rr/', at(1, 3, 4, 5)), 'an address goes, two come');
for my $name (@names) {
    my %stay = map { $_ => $session{$name}{$_} } grep { $session{$name}{$_} ne '127.0.1.2' } keys %{ $session{$name} };
    ok(leads_all("/$name/", %stay), "$name: sessions on the addresses that stay are where they were");
    for my $gone (grep { !$stay{$_} } keys %{ $session{$name} }) {
        my $now = with($fronts[0], $gone, "/$name/");
        like($now, qr/^127\.0\.1\.[1345]$/, "$name: that on the address that went goes elsewhere");
        # The other node may be asked before it has heard of that, and choose for itself: the later choice holds for both.
        ok(wait_for(sub { ($now = leads_to("/$name/", $gone)) !~ / / }), "$name: ... to the same from both nodes");
        $session{$name}{$gone} = $now;
    }
}
$dns->set('app.test' => at(1 .. 5));
ok(knows('/rr/', at(1 .. 5)), 'it comes back');
ok(leads_all("/$_/", %{ $session{$_} }), "$_: what moved stays where it moved to") for @names;

# As many as a word has bits, and more.
$dns->set('app.test' => at(1 .. $LAST));
my $path = '/rr/';
ok(wait_for(sub { my %seen = map { ($_->get($path)->body => 1) } (@fronts) x $LAST; keys %seen == $LAST }, 15), "$LAST addresses");
my %many = map { my $s = "many$_"; ($s => login($fronts[ $_ % 2 ], $s, $path)) } 1 .. 2 * $LAST;
ok(leads_all($path, %many), 'sessions on all of them, from both nodes');
ok(leads_all($path, %{ $session{rr} }), 'and the first are where they were');
for my $n (1, 64, 65, $LAST) {
    is($fronts[0]->get("/spare/?route=" . md5_hex("127.0.1.$n:$port"))->body, "127.0.1.$n", "a backup server, number $n");
}

# Answers that are on their way when their server goes.
my @slow = map { my $s = tcp($fronts[0]{port}); print {$s} "GET /rr/slow?s=slow$_ HTTP/1.0\r\n\r\n"; $s } 1 .. 3;
$dns->set('app.test' => at(1, 2));
ok(knows($path, at(1, 2)), 'all but two go, while answers are on their way');
my @bodies = map { my ($bytes) = read_all($_, 10); $bytes =~ s/^.*?\r\n\r\n//sr } @slow;
is_deeply([ map { length } @bodies ], [ (6_000) x 3 ], 'these come whole');
for my $n (1 .. 3) {
    my $now = with($fronts[0], "slow$n", $path);
    like($now, qr/^127\.0\.1\.[12]$/, "and the session that one began goes to a server that is there");
    ok(leads_all($path, "slow$n" => $now), '... the same from both nodes');
}

# One address, and another one instead.
ok(knows('/single/', at(7)), 'a name with one address');
is(login($fronts[0], 'single', '/single/'), '127.0.1.7', 'has a session');
$dns->set('one.test' => at(8));
ok(knows('/single/', at(8)), 'which is replaced');
is(leads_to('/single/', 'single'), '127.0.1.8', 'the session goes there');
$dns->set('one.test' => at(7, 8));
ok(knows('/single/', at(7, 8)), 'one comes beside it');
is(leads_to('/single/', 'single'), '127.0.1.8', 'the session stays');
$_->reload for @nodes;
connected(1, @nodes);
is(leads_to('/single/', 'single'), '127.0.1.8', 'over reloads, too');

# The line's own words are those of all its addresses.
ok(knows('/srv/', at(4, 5, 6)), 'a service');
my %seen = map { ($fronts[0]->get('/srv/?route=srv')->body => 1) } 1 .. 12;
like(join(' ', keys %seen), qr/^127\.0\.1\.[56]$/, 'route= of its line: always the first of its servers');
is($fronts[0]->get('/srv/?route=' . md5_hex("127.0.1.4:$port"))->body, '127.0.1.4', 'and another has the MD5 of its address');
my $bound = '/drains/?route=' . md5_hex("127.0.1.9:$port");
ok(knows('/drains/', at(4)), 'drain: what was resolved gets nothing new');
ok(wait_for(sub { $fronts[0]->get($bound)->body eq '127.0.1.9' }), '... but what is bound to it');

done_testing;
