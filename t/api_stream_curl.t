#!/usr/bin/perl

# Large listings over TLS and HTTP/2, to a client that nobody here wrote.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use Digest::MD5 qw(md5_hex);

my $ca = authority('the CA');
my ($certificate, $key) = $ca->issue('node', ip => ['127.0.0.1']);
my ($clear, $tls) = (port(), port());
my $node = node(vars => { CLEAR => $clear, TLS => $tls, CERTIFICATE => $certificate, KEY => $key }, http => <<'CONF')->start;
    keyval_zone zone=one:32m;
    client_max_body_size 32m;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%CLEAR%% http2;
        listen 127.0.0.1:%%TLS%% ssl http2;
        ssl_certificate     %%CERTIFICATE%%;
        ssl_certificate_key %%KEY%%;
        gzip_types application/json;
        location /api  { api write=on; }
        location /gzip { api; gzip on; }
    }
CONF

my %pairs = map { ("key $_" => 'v' x ($_ % 300)) } 1 .. 20_000;
is($node->request('PUT', '/api/9/zonemesh/keyvals/one', body => ZoneMesh::Node::encode(\%pairs))->status, 200, 'many pairs');

# What curl gets.
sub curl {
    my (@arguments) = @_;
    open my $out, '-|', 'curl', '-sS', '--max-time', '30', '--cacert', $ca->file, @arguments or die "curl: $!";
    binmode $out;
    return do { local $/; <$out> } // '';
}

my $one  = '/9/http/keyvals/one';
my ($plain, $h2, $https) = map { "$_/api$one" } "http://127.0.0.1:" . $node->port, "http://127.0.0.1:$clear", "https://127.0.0.1:$tls";
my $body = curl($plain);
my $many = () = $body =~ /"key \d+":/g;
is($many, 20_000, 'all of them over HTTP/1.1');
my $same = sub { my ($got, $name) = @_; is(md5_hex($got), md5_hex($body), $name) };

$same->(curl('--http2-prior-knowledge', $h2), 'HTTP/2');
$same->(curl('--http2-prior-knowledge', '--compressed', $h2 =~ s{/api/}{/gzip/}r), 'HTTP/2, compressed');
$same->(curl('--http1.1', $https), 'TLS');
$same->(curl('--http2', $https), 'HTTP/2 over TLS');
$same->(curl('--http1.1', '--limit-rate', '3M', $https), 'TLS, slowly');
$same->(curl('--http2', '--limit-rate', '3M', $https), 'HTTP/2 over TLS, slowly');
is(length curl('--http2', $https, $https, $https), 3 * length $body, 'three over one connection');
is(curl('--http2', '-I', '-o', '/dev/null', '-w', '%{http_code}', $https), '200', 'HEAD');
is(curl('--http2', '-X', 'DELETE', $https =~ s{http/keyvals/one}{zonemesh/keyvals/one?glob=*}r), '{"deleted":20000}', 'and work in many turns');

# Bodies, too, which are read as they come.
my $folder = $node->prefix;
$node->write_file('object', ZoneMesh::Node::encode(\%pairs));
$node->write_file('lines', join '', map { ZoneMesh::Node::encode({ $_ => $pairs{$_} }) . "\n" } sort keys %pairs);
for my $way ([ 'HTTP/1.1', $plain ], [ 'HTTP/2', $h2, '--http2-prior-knowledge' ], [ 'TLS', $https, '--http1.1' ], [ 'HTTP/2 over TLS', $https, '--http2' ]) {
    my ($name, $url, @options) = @$way;
    my $own = $url =~ s{http/keyvals}{zonemesh/keyvals}r;
    is(curl(@options, '-X', 'DELETE', '-w', '%{http_code}', $url), '204', "$name: an empty zone");
    is(curl(@options, '-T', "$folder/object", $own), '{"created":20000,"replaced":0,"deleted":0,"missing":0}', '... gets many pairs');
    is(curl(@options, '-X', 'POST', '-T', "$folder/lines", '-w', '', $own) =~ s/"errors".*//r,
        '{"lines":20000,"created":0,"replaced":20000,"deleted":0,"missing":0,"failed":0,', '... and lines');
    my @good = ('-T', "$folder/object", '-o', '/dev/null', $own);
    # Debian's curl can't use a connection twice that began as HTTP/2 without TLS.
    @good = () if $name eq 'HTTP/2';
    is(curl(@options, '-T', "$folder/lines", '-o', '/dev/null', '-w', '%{http_code}', $own, @good), @good ? '415200' : '415',
        '... and a body that is no JSON, before one that is on the same connection');
    is(curl(@options, '-X', 'PUT', '-T', "$folder/object", '-o', '/dev/null', '-w', '%{http_code}', $url), '405', '... and one that nobody wants');
    $same->(curl(@options, $url), '... all is there');
}
done_testing;
