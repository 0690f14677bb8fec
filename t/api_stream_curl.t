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
done_testing;
