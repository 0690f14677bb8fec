# `sticky cookie`: the server's name in a cookie, with the parameters that nginx documents.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;

use Digest::MD5 qw(md5_hex);

my %backends = backends(qw(a b));
my %address  = map { $_ => address_of($backends{$_}) } qw(a b);
my %name     = map { $_ => md5_hex($address{$_}) } qw(a b);
my %forms    = (
    plain    => 'srv',
    session  => 'srv expires=0',
    hour     => 'srv expires=1h',
    max      => 'srv expires=max path=/',
    all      => 'srv expires=max domain=.example.com httponly secure samesite=Lax path=/app',
    domain   => 'srv domain=$arg_domain',
    samesite => 'srv samesite=$arg_s',
    alive    => 'srv',
);

sub conf {
    my ($b_more) = @_;
    my $http = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_connect_timeout 2s;';
    for my $form (sort keys %forms) {
        my $more = $form eq 'alive' ? 'keepalive 4;' : '';
        $http .= "upstream $form { server $address{a}; server $address{b} $b_more; sticky cookie $forms{$form}; $more }\n";
    }
    $http .= "upstream route { server $address{a} route=left; server $address{b} route=right; sticky cookie srv; }\n";
    $http .= "upstream away { server $address{a} down route=left; server $address{b}; sticky cookie srv; }\n";
    $http .= 'server { listen 127.0.0.1:%%PORT%%;' . join '', map { "location /$_/ { proxy_pass http://$_/; }\n" } sort(keys %forms), 'route', 'away';
    return "$http }";
}
my $front = node(name => 'front', http => conf(''))->start;

sub asked {
    my ($target, $cookie) = @_;
    my $answer = $front->get($target, headers => defined $cookie ? { Cookie => "x=1; srv=$cookie; y=2" } : {});
    return ($answer->body, $answer->header('Set-Cookie'));
}

for my $n (1 .. 4) {
    my ($who, $cookie) = asked('/plain/');
    is($cookie, "srv=$name{$who}", "a request of nobody: the MD5 of the address of $who");
}
for my $path (qw(/plain/ /alive/)) {
    for my $who (qw(a b)) {
        is(join(' ', map { join ' ', asked($path, $name{$who}) } 1 .. 5), join(' ', ("$who srv=$name{$who}") x 5), "$path: bound to $who");
    }
}
for my $bad ('', 'z', $name{a} . 'x', substr($name{a}, 1), uc $name{a}, 'x' x 5000) {
    my %seen = map { (asked('/plain/', $bad))[0] => 1 } 1 .. 4;
    is(join('', sort keys %seen), 'ab', 'a name that no server has: as if there was none');
}
is(join(' ', asked('/route/', 'right')), 'b srv=right', 'route=: is the name');
my %seen = map { (asked('/route/', $name{b}))[0] => 1 } 1 .. 4;
is(join('', sort keys %seen), 'ab', 'and the address is none then');
is(join(' ', asked('/away/', 'left')), "b srv=$name{b}", 'a server that is down: another, and its name');

my ($who, $cookie) = asked('/hour/');
like($cookie, qr/^srv=$name{$who}; expires=\w{3}, \d\d-\w{3}-\d\d(?:\d\d)? \d\d:\d\d:\d\d GMT; max-age=3600$/, 'expires=1h');
($who, $cookie) = asked('/session/');
like($cookie, qr/^srv=$name{$who}; expires=.* GMT; max-age=0$/, 'expires=0');
($who, $cookie) = asked('/max/');
is($cookie, "srv=$name{$who}; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000; path=/", 'expires=max path=/');
($who, $cookie) = asked('/all/');
is($cookie, "srv=$name{$who}; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000; domain=.example.com; httponly; secure; samesite=Lax; path=/app",
    'all parameters');
($who, $cookie) = asked('/domain/?domain=example.org');
is($cookie, "srv=$name{$who}; domain=example.org", 'domain= with a variable');
($who, $cookie) = asked('/domain/');
is($cookie, "srv=$name{$who}", 'which is empty');
for (['none', '; samesite=none'], ['STRICT', '; samesite=STRICT'], ['other', '; samesite=strict'], ['', '']) {
    my ($value, $expected) = @$_;
    ($who, $cookie) = asked("/samesite/?s=$value");
    is($cookie, "srv=$name{$who}$expected", "samesite= with a variable that is \"$value\"");
}
is(scalar(() = ($front->get('/plain/login?s=1')->header('Set-Cookie')) =~ /=/g), 2, 'beside a cookie of the server');

$backends{b}->stop;
is(join(' ', asked('/plain/', $name{b})), "a srv=$name{a}", 'b is away: the cookie is that of who answered');
$backends{b}->start;
$front->reload(http => conf('drain'));
is(join(' ', map { join ' ', asked('/plain/', $name{b}) } 1 .. 4), join(' ', ("b srv=$name{b}") x 4), 'drain: who is bound stays');
is(without($front, '/plain/'), 'a', 'drain: others go elsewhere');

for my $case (
    [ 'cookie ""',                         qr/"sticky" in upstream "u": "cookie" has no name/ ],
    [ 'cookie',                            qr/"cookie" has no name/ ],
    [ 'cookie c expires=soon',             qr/bad "expires=soon" of "cookie"; it is a time/ ],
    [ 'cookie c samesite=lux',             qr/bad "samesite=lux"/ ],
    [ 'cookie c domain=',                  qr/bad "domain="/ ],
    [ 'cookie c path=/ path=/',            qr/a second "path=\/"/ ],
    [ 'cookie c secure secure',            qr/a second "secure"/ ],
    [ 'cookie c sync',                     qr/unknown parameter "sync" of "cookie"; known are/ ],
) {
    my ($line, $said) = @$case;
    config_fails({ http => "upstream u { server 127.0.0.1:1; sticky $line; }" }, $said, "refused: sticky $line");
}

done_testing;
