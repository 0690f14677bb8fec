# `sticky learn`: a session stays with its server, whatever the method of balancing and wherever `keepalive` stands, and goes
# elsewhere only when that can't serve it.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;

my %backends = backends(qw(a b));
my ($a, $b) = map { address_of($backends{$_}) } qw(a b);

# name => [what stands before `sticky`, what stands behind it]
my %upstreams = (
    rr            => [ '',                                      '' ],
    rr_zone       => [ 'zone rr_zone 64k;',                     '' ],
    least_conn    => [ 'least_conn;',                           '' ],
    hash          => [ 'hash $arg_h;',                          '' ],
    consistent    => [ 'hash $arg_h consistent; zone c 64k;',   '' ],
    ip_hash       => [ 'ip_hash;',                              '' ],
    random        => [ 'random;',                               '' ],
    random_two    => [ 'zone random_two 64k; random two;',      '' ],
    first         => [ '',                                      'least_conn;' ],
    inside        => [ '',                                      'keepalive 4;' ],
    around        => [ 'keepalive 4;',                          '' ],
    around_method => [ 'least_conn; zone m 64k; keepalive 4;',  '' ],
    inside_method => [ 'random;',                               'keepalive 4;' ],
);

sub upstream {
    my ($name, $before, $after, %given) = @_;
    my $servers = $given{servers} // "server $a fail_timeout=1s; server $b fail_timeout=1s;";
    my $timeout = $given{timeout} ? "timeout=$given{timeout}" : '';
    my $header  = $given{header}  ? 'header'                  : '';
    return "upstream $name { $before $servers
        sticky learn create=\$upstream_cookie_other create=\$upstream_cookie_session lookup=\$arg_none
            lookup=\$cookie_session zone=$name-sessions:64k $timeout $header;
        $after }\n";
}

my %servers = (down => "server $a; server $b down;", drain => "server $a; server $b drain;", up => "server $a; server $b;");

sub conf {
    my ($state) = @_;
    my $http = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_connect_timeout 2s;';
    $http .= upstream($_, @{ $upstreams{$_} }) for sort keys %upstreams;
    $http .= upstream('short', '', '', timeout => '2s');
    $http .= upstream('early', '', '', header  => 1);
    $http .= upstream('one', '', '', servers => "server $a;");
    $http .= upstream('moved', '', '', servers => $servers{$state});
    $http .= upstream('full', '', '', servers => "server $a max_conns=1; server $b;");
    $http .= upstream('spare', 'zone spare 64k;', '', servers => "server $a fail_timeout=1s; server $b backup;");
    my @names = (sort(keys %upstreams), qw(short early one moved full spare));
    $http .= 'server { listen 127.0.0.1:%%PORT%%; location /api { api; }';
    $http .= "location /$_/ { proxy_pass http://$_/; }\n" for @names;
    return "$http }";
}

my $front = node(name => 'front', http => conf('up'))->start;

# A session on the backend of this name.
sub session_on {
    my ($name, $path, $tag) = @_;
    for my $n (1 .. 40) {
        my $session = "$tag-$n";
        return $session if login($front, $session, $path) eq $name;
    }
    return;
}

for my $name (sort keys %upstreams) {
    my $path = "/$name/";
    # ip_hash has one server for all who come from here.
    for my $who ($name eq 'ip_hash' ? () : qw(a b)) {
        my $session;
        for my $n (1 .. 60) {
            my $target = "${path}login?s=$who$n&h=$n";
            $session = "$who$n" and last if $front->get($target)->body eq $who;
        }
        ok($session, "$name: a session begins on $who") or next;
        my @seen = map { with($front, $session, $path, target => "?h=$_") } 1 .. 20;
        is(join('', @seen), $who x 20, "$name: and stays there");
    }
    next if $name eq 'ip_hash';
    my %seen = map { $front->get("$path?h=$_")->body => 1 } 1 .. 60;
    is(join('', sort keys %seen), 'ab', "$name: others go to both");
}

for my $name (qw(inside around around_method inside_method)) {
    my $session = login($front, 'alive', "/$name/") && 'alive';
    my @counts  = map { (split / /, with($front, $session, "/$name/", target => 'connection'))[1] } 1 .. 10;
    ok((grep { $_ > 5 } @counts), "$name: connections are kept, and sessions use them (@counts)");
}

# Down, and up again.
$backends{a}->stop;
for my $name (sort keys %upstreams) {
    next if $name eq 'hash';
    is(login($front, 'moved', "/$name/"), 'b', "$name: a session begins on b, as a is away");
}
$backends{a}->start;
sleep 2.2;    # more than fail_timeout, in whole seconds, for those that met the failure
for my $name (sort keys %upstreams) {
    next if $name eq 'hash';
    is(join('', map { with($front, 'moved', "/$name/") } 1 .. 10), 'b' x 10, "$name: it stays there when a is back");
}
$backends{b}->stop;
for my $name (sort keys %upstreams) {
    next if $name eq 'hash';
    is(with($front, 'moved', "/$name/"), 'a', "$name: it goes to a when b is away");
}
$backends{b}->start;
sleep 2.2;
for my $name (sort keys %upstreams) {
    next if $name eq 'hash';
    is(join('', map { with($front, 'moved', "/$name/") } 1 .. 10), 'a' x 10, "$name: and stays there");
}

# Time.
login($front, 'brief', '/short/');
my $who = with($front, 'brief', '/short/');
my $until = time + 5;
my %seen;
while (time < $until) { $seen{ with($front, 'brief', '/short/') }++; sleep 0.1 }
is_deeply([ keys %seen ], [$who], 'a session in use outlives its timeout');
sleep 3;
is(join('', sort map { with($front, 'brief', '/short/') } 1, 2), 'ab', 'one that is not used is forgotten, and not made anew');

# At the header, at the end, or not at all.
for my $name (qw(early rr)) {
    my $socket = tcp($front->port);
    print {$socket} "GET /$name/slow?s=slow HTTP/1.0\r\n\r\n";
    my $head = '';
    wait_for(sub { sysread $socket, $head, 65_536, length $head; $head =~ /\r\n\r\n(\w)/ });
    my ($server) = $head =~ /\r\n\r\n(\w)/;
    my @seen = map { with($front, 'slow', "/$name/") } 1 .. 4;
    if ($name eq 'early') { is(join('', @seen), $server x 4, 'header: the session is there before the body') }
    else                  { is(join('', sort @seen), 'aabb', 'without it there is none before the end') }
    close $socket;
}
is(with($front, 'nobody', '/one/'), 'a', 'one server: a request without a session');
is(login($front, 'one', '/one/') . with($front, 'one', '/one/'), 'aa', 'and with one');

# A server without room; and what has been going on there for long ends when its session is elsewhere.
for my $ending ('the end of its response', 'a client that goes away') {
    my $session = (grep { login($front, $_, '/full/') eq 'a' } map { "$ending $_" =~ tr/ /-/r } 1 .. 4)[0];
    my $socket = tcp($front->port);
    print {$socket} "GET /full/some HTTP/1.0\r\nCookie: session=$session\r\n\r\n";
    my $head = '';
    wait_for(sub { sysread $socket, $head, 65_536, length $head; $head =~ /\r\n\r\n(\w)/ });
    is(with($front, $session, '/full/'), 'b', 'a server with max_conns requests is passed by');
    read_all($socket, 20) if $ending =~ /response/;
    close $socket;
    # When a has room again, which others see, too.
    wait_for(sub { without($front, '/full/') eq 'ab' });
    is(join('', map { with($front, $session, '/full/') } 1 .. 4), 'bbbb', "... and the session stays elsewhere after $ending");
}

# Backup servers.
is(login($front, 'spare', '/spare/'), 'a', 'backup: a session on the first');
$backends{a}->stop;
is(join('', map { with($front, 'spare', '/spare/') } 1 .. 3), 'bbb', 'backup: goes to the second when that is away');
$backends{a}->start;
eventually_is { with($front, 'spare', '/spare/') } 'a', 'backup: and back';

# Reloads that change what a server is.
my $bound = session_on('b', '/moved/', 'bound');
for my $state (qw(drain down up)) {
    $front->reload(http => conf($state));
    my $expected = $state eq 'drain' ? 'b' : 'a';
    is(join('', map { with($front, $bound, '/moved/') } 1 .. 6), $expected x 6, "$state: the session is on $expected");
    is(without($front, '/moved/'), $state eq 'up' ? 'ab' : 'a', "$state: where others go");
}
# Reloads while requests come, also with a zone of another size.
my $kept = session_on('a', '/early/', 'kept');
my @answers;
for my $size (qw(128k 64k 1m)) {
    $front->configure(http => conf('up') =~ s/zone=early-sessions:\K64k/$size/r);
    $front->signal('HUP');
    push @answers, map { with($front, $kept, '/early/') } 1 .. 30;
    $front->reload;
    push @answers, with($front, $kept, '/early/');
}
is(join('', @answers), 'a' x 93, 'a session outlives reloads and changes of its zone');

is_deeply($front->get('/api/9/http/keyvals/')->json, {}, 'sessions are no key-value zones');

my $zone = 'zone=s:64k';
for my $case (
    [ "sticky learn create=\$a lookup=\$b",                       qr/"sticky" in upstream "u": "learn" has no "zone=name:size"/ ],
    [ "sticky learn lookup=\$arg_b $zone",                        qr/no "create=\$variable"/ ],
    [ "sticky learn create=\$arg_a $zone",                        qr/no "lookup=\$variable"/ ],
    [ "sticky learn create=a lookup=\$arg_b $zone",               qr/"a" is no variable; write "\$name"/ ],
    [ "sticky learn create=\$arg_a lookup=\$arg_b zone=s",        qr/"s": no size; write for example "zone=s:1m"/ ],
    [ "sticky learn create=\$arg_a lookup=\$arg_b zone=s:8k",     qr/"8k" is too small/ ],
    [ "sticky learn create=\$arg_a lookup=\$arg_b $zone timeout=0", qr/bad time "0"/ ],
    [ "sticky learn create=\$arg_a lookup=\$arg_b $zone synch",   qr/unknown parameter "synch" of "learn"; known are/ ],
    [ "sticky learn create=\$arg_a lookup=\$arg_b $zone; sticky route \$arg_r", qr/"sticky" is duplicate in upstream "u"/ ],
    [ "sticky glue x",                                            qr/unknown form "glue"/ ],
) {
    my ($line, $said) = @$case;
    config_fails({ http => "upstream u { server 127.0.0.1:1; $line; }" }, $said, "refused: $line");
}
config_fails({ http => "keyval_zone $zone; upstream u { server 127.0.0.1:1; sticky learn create=\$arg_a lookup=\$arg_b $zone; }" },
    qr/duplicate zone "s" of "sticky" in upstream "u": it is declared already/, 'refused: a zone that is taken');
config_fails({ http => "keyval \$arg_k \$v zone=s; upstream u { server 127.0.0.1:1; sticky learn create=\$arg_a lookup=\$arg_b $zone; }" },
    qr/unknown zone "s" of "keyval"/, 'refused: a variable that reads sessions');

done_testing;
