# Upstreams of more servers than a word has bits: the first, those at its end and the last are found as any other, with each
# method, and so are backup servers; what fails is tried once.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;

use Digest::MD5 qw(md5_hex);

my $COUNT = 130;
my $port  = port();
my %at    = map { $_ => "127.0.1.$_:$port" } 1 .. $COUNT;
# Nobody listens there.
my %is_dead = map { $_ => 1 } 2, 66, 129;
my $listens = join "\n", map { "listen $at{$_};" } grep { !$is_dead{$_} } 1 .. $COUNT;
node(name => 'backends', modules => [], host => '127.0.1.1', port => $port, events => 'worker_connections 2048;', http => "
    server {
        $listens
        location /login { add_header Set-Cookie session=\$arg_s; return 200 \$server_addr; }
        location /      { return 200 \$server_addr; }
    }")->start;

my %methods = (
    rr => '', shared => 'zone shared 512k;', least_conn => 'least_conn;', random => 'random;', random_two => 'zone two 512k; random two;',
    hash => 'hash $arg_h;', consistent => 'hash $arg_h consistent;', ip_hash => 'ip_hash;', alive => 'zone alive 512k; least_conn; keepalive 8;',
);
my $all    = join "\n", map { "server $at{$_};" } 1 .. $COUNT;
my $backup = join "\n", map { "server $at{$_} backup;" } 3 .. $COUNT;
my $http   = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_connect_timeout 2s;';
my @names  = sort keys %methods;
$http .= "upstream $_ { $methods{$_} $all sticky route \$arg_route; }\n" for @names;
$http .= "upstream learns { zone learns 512k; $all sticky learn create=\$upstream_cookie_session lookup=\$cookie_session zone=many-sessions:256k; }\n";
# The first list is dead: all go to the backup one, which is longer than a word, too.
$http .= "upstream spare { zone spare 512k; server $at{2} max_fails=0; $backup sticky route \$arg_route; }\n";
$http .= "upstream spare_two { server $at{2} max_fails=0; server $at{66} max_fails=0; $backup sticky route \$arg_route; }\n";
$http .= 'server { listen 127.0.0.1:%%PORT%%; add_header X-Asked $upstream_addr always;'
    . join('', map { "location /$_/ { proxy_pass http://$_/; }\n" } @names, qw(learns spare spare_two)) . '}';
my $front = node(name => 'front', workers => 2, http => $http)->start;

# Who answers, and who was asked.
sub asked {
    my ($name, $n) = @_;
    my $answer = $front->get("/$name/?h=1&route=" . md5_hex($at{$n}));
    return ($answer->body, $answer->header('X-Asked'));
}

for my $name (@names) {
    for my $n (1, 63, 64, 65, 128, $COUNT) {
        my @seen = map { (asked($name, $n))[0] } 1 .. 3;
        is("@seen", join(' ', ("127.0.1.$n") x 3), "$name: number $n");
    }
    my ($who, $asked) = asked($name, 66);
    like($asked, qr/^127\.0\.1\.66:$port, /, "$name: number 66 is away, and asked first");
    my %times;
    $times{$_}++ for split /, /, $asked;
    is_deeply([ grep { $_ > 1 } values %times ], [], "$name: nobody is asked twice ($asked)");
    like($who, qr/^127\.0\.1\.\d+$/, "$name: another answers");
}

for my $name (qw(spare spare_two)) {
    for my $n (3, 64, 67, 128, $COUNT) {
        my ($who, $asked) = asked($name, $n);
        is($who, "127.0.1.$n", "$name: number $n of the backup servers");
        is(scalar(split /, /, $asked), $name eq 'spare' ? 2 : 3, "$name: after all of the first");
    }
}

my %server = map { $_ => login($front, "s$_", '/learns/') } 1 .. 2 * $COUNT;
my %far = map { $_ => 1 } grep { /\.(\d+)$/ && $1 > 64 } values %server;
cmp_ok(scalar keys %far, '>', 40, 'sessions on servers behind the first word');
my @lost = grep { with($front, "s$_", '/learns/') ne $server{$_} } sort keys %server;
is("@lost", '', 'each stays with its server');

done_testing;
