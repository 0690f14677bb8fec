# An nginx that has a `sticky` of its own gets all but `sticky learn ... sync`, with the parameters of `server` as they stand. Such
# an nginx is played by a module that has its module's name and directive; with another name it is one that someone added.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $cc     = needs_program('cc');
my $source = $ENV{NGINX_SOURCE_DIR} // "$FindBin::Bin/../target/nginx";
my $build  = $ENV{NGINX_BUILD_DIR}  // "$source/objs";
my ($version) = ZoneMesh::Node::slurp("$source/src/core/nginx.h") =~ /^#define nginx_version\s+(\d+)/m;
plan(skip_all => "no headers of the nginx that is tested in $source")
    unless $version && $version == ZoneMesh::Node::nginx_version() && -e "$build/ngx_auto_config.h";
plan(skip_all => 'the nginx that is tested has one') if $version >= 1_029_006;

my $folder = File::Temp->newdir('zonemesh-test-XXXXXX', TMPDIR => 1);
my @headers = map { "-I$_" } map({ "$source/src/$_" } qw(core event event/modules os/unix http http/modules http/v2)), $build;

sub built {
    my ($name) = @_;
    my $file = "$folder/$name.so";
    system($cc, qw(-shared -fPIC -O1 -w), "-DMODULE_NAME=\"$name\"", @headers, '-o', $file, "$FindBin::Bin/native/sticky.c") == 0 or die 'cc';
    return $file;
}
my ($native, $added) = map { built($_) } qw(ngx_http_upstream_sticky_module ngx_http_sticky_module);

my $learn = 'sticky learn create=$arg_a lookup=$arg_b zone=s:64k';
for my $order ([ 'zonemesh', $native ], [ $native, 'zonemesh' ]) {
    my $name  = $order->[0] eq 'zonemesh' ? 'loaded after' : 'loaded before';
    my $given = sub { return { modules => $order, http => "upstream u { $_[0] }" } };
    my $said  = config_works($given->('server 127.0.0.1:1; sticky cookie a expires=1h;'), "$name: sticky cookie");
    like($said, qr/native sticky, word 1: "cookie".*word 2: "a".*word 3: "expires=1h"/s, '... is handed on, whole');
    $said = config_works($given->("server 127.0.0.1:1; $learn;"), "$name: sticky learn");
    like($said, qr/word 4: "zone=s:64k"/, '... too');
    $said = config_works($given->("server 127.0.0.1:1; $learn sync;"), "$name: sticky learn sync");
    unlike($said, qr/native/, '... is not');
    config_fails($given->('server 127.0.0.1:1; sticky bad x;'), qr/"sticky" directive is bad in/, '... what it refuses is refused');
    config_fails($given->('server 127.0.0.1:1; sticky x;'), qr/invalid number of arguments in "sticky" directive/, '... its number of words counts');
    config_fails($given->("server 127.0.0.1:1; sticky cookie a; $learn sync;"), qr/"sticky" is duplicate in upstream "u"/, '... one of both, one');
    config_fails($given->("server 127.0.0.1:1; $learn sync; sticky cookie a;"), qr/"sticky" is duplicate in upstream "u"/, '... or the other');
    config_fails($given->('server 127.0.0.1:1 route=a;'), qr/invalid parameter "route=a"/, '... route= goes to the nginx, which here lacks it');
    config_fails($given->('server 127.0.0.1:1 drain;'), qr/invalid parameter "drain"/, '... and drain');
}

for my $order ([ 'zonemesh', $added ], [ $added, 'zonemesh' ]) {
    my $name  = 'one that was added, ' . ($order->[0] eq 'zonemesh' ? 'after' : 'before');
    my $given = sub { return { modules => $order, http => "upstream u { $_[0] }" } };
    unlike(config_works($given->('server 127.0.0.1:1 route=a; server 127.0.0.1:2 drain; sticky cookie a;'), "$name: route= and drain"),
        qr/native/, '... are ours, as is a form that we have');
    like(config_works($given->('server 127.0.0.1:1; sticky name=a x;'), "$name: another form"),
        qr/native sticky, word 1: "name=a"/, '... is handed on');
}

done_testing;
