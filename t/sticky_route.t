# `sticky route`, and what `server` has for it: `route=` and `drain`.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;

use Digest::MD5 qw(md5_hex);

my %backends = backends(qw(a b c));
my ($a, $b, $c) = map { address_of($backends{$_}) } qw(a b c);
my $front = node(name => 'front', http => <<"CONF");
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream plain  { server $a route=left; server $b weight=2 route=right; server $c; sticky route \$cookie_route \$arg_route; }
    upstream shared { zone shared 64k; least_conn; keepalive 4; server $a route=same; server $b route=same; server $c; sticky route \$arg_route; }
    upstream drains { server $a; server $b drain route=right max_fails=3; server $c drain; sticky route \$arg_route; }
    upstream single { server $a drain route=only; sticky route \$arg_route; }
    upstream last   { server $a backup route=last; server $b route=right; sticky route \$arg_route; }
    upstream unix   { server unix:%%PREFIX%%/u.sock; server $b; sticky route \$arg_route; }
    upstream none   { server $a route=left; server $b drain; }
    server { listen unix:%%PREFIX%%/u.sock; location / { return 200 u; } }
    server {
        listen 127.0.0.1:%%PORT%%;
        location /plain/  { proxy_pass http://plain/; }
        location /shared/ { proxy_pass http://shared/; }
        location /drains/ { proxy_pass http://drains/; }
        location /single/ { proxy_pass http://single/; }
        location /last/   { proxy_pass http://last/; }
        location /unix/   { proxy_pass http://unix/; }
        location /none/   { proxy_pass http://none/; }
    }
CONF
$front->start;

sub who { my ($path, $route) = @_; return join '', map { $front->get("$path?route=$route")->body } 1 .. 4 }

is(who('/plain/', 'left'),       'aaaa', 'the first of two routes');
is(who('/plain/', 'right'),      'bbbb', 'the second');
is(who('/plain/', md5_hex($c)),  'cccc', 'a server without a route has the MD5 of its address');
is($front->get('/plain/?route=left', headers => { Cookie => 'route=right' })->body, 'b', 'the first variable that is not empty counts');
is(without($front, '/plain/?route=other'), 'abc', 'a route that no server has');
is(without($front, '/plain/?route=' . md5_hex($a)), 'abc', 'the address of one that has another name');
my %seen = map { $front->get('/shared/?route=same')->body => 1 } 1 .. 4;
is(join('', sort keys %seen), 'a', 'one route of several servers: the first');
$backends{a}->stop;
is(who('/shared/', 'same'), 'bbbb', 'and the next, if that is away');
$backends{a}->start;

is(without($front, '/drains/'),             'a',    'servers that drain get nothing new');
is(who('/drains/', 'right'),                'bbbb', 'but what is bound to them');
is(who('/drains/', md5_hex($c)),            'cccc', 'without route= as well');
$backends{b}->stop;
is(who('/drains/', 'right'),                'aaaa', 'and one of the others has it when they are away');
$backends{b}->start;
is(who('/single/', 'only'),                 'aaaa', 'a single server that drains');
is($front->get('/single/')->status,         502,    'has no other requests');
is(who('/last/', 'last'),                   'bbbb', 'a backup server has none while others serve');
$backends{b}->stop;
is(who('/last/', 'last'),                   'aaaa', 'and has them when none does');
$backends{b}->start;
is(who('/unix/', md5_hex('unix:' . $front->prefix . '/u.sock')), 'uuuu', 'a path of a socket');
is(without($front, '/none/'), 'a', 'an upstream without sticky: route= means nothing, drain is down');

for my $case (
    [ 'server 127.0.0.1:1 route=; sticky route $arg_r;',            qr/"server 127.0.0.1:1": "route=" is empty or longer than 32 bytes/ ],
    [ "server 127.0.0.1:1 route=" . 'x' x 33 . ';',                 qr/longer than 32 bytes/ ],
    [ 'server 127.0.0.1:1 route=a route=b;',                        qr/a second "route="/ ],
    [ 'server 127.0.0.1:1; sticky route;',                          qr/"sticky" in upstream "u": "route" has no variable/ ],
    [ 'server 127.0.0.1:1; sticky route name;',                     qr/"name" is no variable/ ],
    [ 'server 127.0.0.1:1 drained;',                                qr/invalid parameter "drained"/ ],
    [ 'server;',                                                    qr/invalid number of arguments in "server"/ ],
    [ 'server 127.0.0.1:1; keepalive;',                             qr/invalid number of arguments in "keepalive"/ ],
    [ 'server 127.0.0.1:1; keepalive 1; keepalive 1;',              qr/"keepalive" directive is duplicate/ ],
) {
    my ($lines, $said) = @$case;
    config_fails({ http => "upstream u { $lines }" }, $said, "refused: $lines");
}
unlike(config_works({ http => 'upstream u { server 127.0.0.1:1; sticky route $arg_r; least_conn; keepalive 1; }' }, 'any order'),
    qr/\[warn\]/, 'without a warning');

done_testing;
