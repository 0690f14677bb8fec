# Sessions while servers fail: backup servers with each method, whom a request asks in which order, and how many.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;

my %backends = backends(qw(b c));
my ($b, $c)  = map { address_of($backends{$_}) } qw(b c);
my @dead     = map { '127.0.0.1:' . port() } 1 .. 3;

# name => the method, which stands behind the servers: there even those that refuse `backup` have them
my %methods = (
    rr => '', least_conn => 'least_conn;', random => 'random;', random_two => 'random two;', hash => 'hash $arg_h;',
    consistent => 'hash $arg_h consistent;', ip_hash => 'ip_hash;', shared => 'zone shared 128k; random two;',
);
my $backup = "server $b backup route=b max_fails=0; server $c backup route=c max_fails=0;";
my ($http, $locations) = ('', '');
sub upstream {
    my ($name, $lines, $location) = @_;
    $http      .= "upstream $name { $lines sticky route \$arg_route; }\n";
    $locations .= "location /$name/ { proxy_pass http://$name/; " . ($location // '') . " }\n";
    return;
}
for my $name (sort keys %methods) {
    upstream($name, "server $dead[0] max_fails=0; $backup $methods{$name}");
    upstream("${name}_wide", "server $dead[0] max_fails=0; server $dead[1] max_fails=0; $backup " . $methods{$name} =~ s/zone \K/wide_/r);
}
upstream('namesakes', "server $dead[0] route=c max_fails=0; $backup");
for my $tries (0 .. 3) {
    upstream("one_$tries", "server $c; server $dead[0] drain route=d max_fails=0;", "proxy_next_upstream_tries $tries;");
    upstream("two_$tries", "server $dead[1] max_fails=0; server $dead[2] max_fails=0; server $dead[0] drain route=d max_fails=0;",
        "proxy_next_upstream_tries $tries;");
}
my $front = node(name => 'front', http => "$http
    server { listen 127.0.0.1:%%PORT%%; add_header X-Asked \$upstream_addr always; $locations }")->start;

# What came, from whom, and who was asked.
sub asked {
    my ($name, $route) = @_;
    my $answer = $front->get("/$name/?route=$route&h=1");
    return ($answer->status == 200 ? $answer->body : $answer->status, $answer->header('X-Asked') // '');
}

for my $state (qw(up down)) {
    $backends{b}->stop if $state eq 'down';
    for my $name (map { ($_, "${_}_wide") } sort keys %methods) {
        my $first  = $name =~ /wide/ ? qr/(?:$dead[0], $dead[1]|$dead[1], $dead[0])/ : qr/$dead[0]/;
        my $second = $state eq 'down' ? "$b, $c" : $b;
        my $who    = $state eq 'down' ? 'c' : 'b';
        my @seen = map { join ' ', asked($name, 'b') } 1 .. 10;
        is(scalar(grep { /^$who $first, $second$/ } @seen), 10, "$name: first its backup server, which is $state") or diag("@seen");
        @seen = map { join ' ', asked($name, 'c') } 1 .. 4;
        is(scalar(grep { /^c $first, $c$/ } @seen), 4, "$name: only the other, for who is bound to that") or diag("@seen");
    }
}
$backends{b}->start;
is(join('', map { (asked('namesakes', 'c'))[0] } 1 .. 4), 'cccc', 'a backup server serves for a first one of its name');

# One that drains is a try more than nginx has counted, but never more than the configuration grants.
for my $case ([ 0, 'c', 3 ], [ 1, '502', 1 ], [ 2, 'c', 2 ], [ 3, 'c', 3 ]) {
    my ($tries, $who, $count) = @$case;
    my ($answer, $asked) = asked("one_$tries", 'd');
    is("$answer $asked", $who eq 'c' ? "c $dead[0], $c" : "502 $dead[0]", "proxy_next_upstream_tries $tries: one that drains is away");
    ($answer, $asked) = asked("two_$tries", 'd');
    is($answer . ' ' . scalar(split /, /, $asked), "502 $count", '... and all others, too');
    like($asked, qr/^$dead[0]/, '... after it');
}

done_testing;
